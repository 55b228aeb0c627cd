"""The Open Inference Protocol's gRPC messages, into the JSON form that `v2` checks, and predictions into messages.

Numbers become arrays without a detour over Python's own; each of the two ways to carry values, typed and raw, is read and written.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import orjson
from google.protobuf import message as messages

from moorage_runtime import errors
from moorage_runtime.codecs import answers, arrays, v2
from moorage_runtime.codecs import signature as signatures
from moorage_runtime.oip import inference_pb2

_MEMBERS = {
    "BOOL": ("bool_contents", "bool"),
    "INT8": ("int_contents", "int8"),
    "INT16": ("int_contents", "int16"),
    "INT32": ("int_contents", "int32"),
    "INT64": ("int64_contents", "int64"),
    "UINT8": ("uint_contents", "uint8"),
    "UINT16": ("uint_contents", "uint16"),
    "UINT32": ("uint_contents", "uint32"),
    "UINT64": ("uint64_contents", "uint64"),
    "FP16": ("", "float16"),
    "FP32": ("fp32_contents", "float32"),
    "FP64": ("fp64_contents", "float64"),
    "BYTES": ("bytes_contents", "object"),
}
"""Datatype: the member of typed contents (FP16 has none), and the array that raw contents are."""

_WIDE = {"int_contents": "int64", "uint_contents": "uint64"}
"""Read wider than the datatype: a number that does not fit is refused by the signature's check, not cut here."""

_LENGTH = np.dtype("<u4")


def request(raw: bytes) -> inference_pb2.ModelInferRequest:
    message: inference_pb2.ModelInferRequest = parsed(inference_pb2.ModelInferRequest, raw)
    return message


def parsed(kind: Any, raw: bytes) -> Any:
    """The message in these bytes; they come from anybody."""
    try:
        return kind.FromString(raw)
    except messages.DecodeError as error:
        raise errors.BadRequest(f"the message is no {kind.DESCRIPTOR.full_name}") from error


def body(signature: signatures.Signature, message: inference_pb2.ModelInferRequest) -> arrays.Arrays:
    """A request's inputs into the model's arrays, by the same checks as the JSON form."""
    # An empty input is two bytes of a message, and much more than that here.
    if len(message.inputs) > len(signature.inputs):
        raise errors.InvalidInput(f"there are {len(message.inputs)} inputs, the model has {len(signature.inputs)}")
    return v2.body(signature, {"inputs": list(_tensors(message.inputs, message.raw_input_contents, signature))})


def answer(
    prediction: answers.Prediction, *, model: str, version: str, request: inference_pb2.ModelInferRequest
) -> inference_pb2.ModelInferResponse:
    """Raw where the request was raw, and where an output has no typed form."""
    reply = inference_pb2.ModelInferResponse(model_name=model, model_version=version, id=request.id)
    tensors = {name or signatures.ONLY_OUTPUT: array for name, array in prediction.outputs.items()}
    is_raw = bool(request.raw_input_contents) or any(array.dtype == np.float16 for array in tensors.values())
    for name, array in tensors.items():
        datatype = signatures.datatype(array.dtype)
        tensor = reply.outputs.add(name=name, datatype=datatype, shape=array.shape)
        if is_raw:
            reply.raw_output_contents.append(_raw(datatype, array))
        else:
            member, _ = _MEMBERS[datatype]
            getattr(tensor.contents, member).extend(_values(datatype, array))
    return reply


def metadata(described: dict[str, Any]) -> inference_pb2.ModelMetadataResponse:
    """From what `v2.metadata` gives."""
    return inference_pb2.ModelMetadataResponse(**described)


def _tensors(inputs: Sequence[Any], raw: Sequence[bytes], signature: signatures.Signature) -> Iterator[dict[str, Any]]:
    if raw and (len(raw) != len(inputs) or any(tensor.HasField("contents") for tensor in inputs)):
        raise errors.InvalidInput("send either 'contents' with each input, or one of 'raw_input_contents' for each")
    for position, tensor in enumerate(inputs):
        field = _field(signature, tensor.name)
        given = _from_raw(field, tensor, raw[position]) if raw else _from_contents(field, tensor)
        if tensor.datatype == "BYTES" and field.type != "binary":
            given = [_text(field, value) for value in given]
        yield {"name": tensor.name, "shape": list(tensor.shape), "datatype": tensor.datatype, "data": given}


def _field(signature: signatures.Signature, name: str) -> signatures.Field:
    """The field that the refusal names; whether the name is one of the model's is `v2`'s to say."""
    return signature.input(name) or signature.inputs[0]


def _from_contents(field: signatures.Field, tensor: Any) -> Any:
    member, dtype = _MEMBERS.get(tensor.datatype, ("", ""))
    if not member:
        raise arrays.refusal(field, f"its datatype must be {field.datatype}, and FP16 must be raw")
    filled = [descriptor.name for descriptor, _ in tensor.contents.ListFields()]
    if filled not in ([], [member]):
        raise arrays.refusal(field, f"values of {tensor.datatype} belong in '{member}'")
    values = getattr(tensor.contents, member)
    if tensor.datatype == "BYTES":
        return list(values)
    return np.array(values, dtype=_WIDE.get(member, dtype))


def _from_raw(field: signatures.Field, tensor: Any, raw: bytes) -> Any:
    if tensor.datatype == "BYTES":
        return list(_unpacked(field, raw))
    _, dtype = _MEMBERS.get(tensor.datatype, ("", ""))
    if not dtype:
        raise arrays.refusal(field, f"its datatype must be {field.datatype}")
    kind = np.dtype(dtype).newbyteorder("<")
    if len(raw) != math.prod(tensor.shape) * kind.itemsize:
        raise arrays.refusal(field, "its raw contents are not as long as its shape and datatype say")
    if tensor.datatype == "BOOL":
        return np.frombuffer(raw, np.uint8) != 0
    return np.frombuffer(raw, kind).astype(dtype)  # a copy, which a model may write to


def _unpacked(field: signatures.Field, raw: bytes) -> Iterator[bytes]:
    """Each value is its length in four bytes, then itself."""
    start = 0
    while start < len(raw):
        size = int.from_bytes(raw[start : start + _LENGTH.itemsize], "little")
        start += _LENGTH.itemsize
        if start + size > len(raw):
            raise arrays.refusal(field, "its raw contents end within a value")
        yield raw[start : start + size]
        start += size


def _text(field: signatures.Field, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise arrays.refusal(field, "a value is not UTF-8") from error


def _values(datatype: str, array: np.ndarray[Any, Any]) -> Any:
    if datatype != "BYTES":
        return array.ravel().tolist()
    # Bytes stay what they are here; all else is what JSON would show.
    flat = array.ravel()
    if flat.dtype.kind == "O" and all(isinstance(value, bytes) for value in flat):
        return flat.tolist()
    return [_bytes(value) for value in answers.plain(flat)]


def _bytes(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else orjson.dumps(value)


def _raw(datatype: str, array: np.ndarray[Any, Any]) -> bytes:
    if datatype != "BYTES":
        return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    return b"".join(len(value).to_bytes(4, "little") + value for value in _values(datatype, array))


def outputs(raw: bytes) -> dict[str, Any]:
    """What an answer says, as plain lists in their shape."""
    reply: inference_pb2.ModelInferResponse = parsed(inference_pb2.ModelInferResponse, raw)
    found = {}
    for position, tensor in enumerate(reply.outputs):
        field = signatures.Field(tensor.name, "float64", tuple(tensor.shape))  # only for the words of a refusal
        contents = reply.raw_output_contents
        given = _from_raw(field, tensor, contents[position]) if contents else _from_contents(field, tensor)
        values = [value.decode(errors="replace") for value in given] if tensor.datatype == "BYTES" else given
        found[tensor.name] = np.reshape(np.array(values, dtype=object), tuple(tensor.shape)).tolist()
    return found
