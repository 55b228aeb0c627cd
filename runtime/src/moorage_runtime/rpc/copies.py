"""Copies of gRPC requests to another revision, as `shadow` wants them sent: blocking, from its threads."""

from __future__ import annotations

import threading
from typing import Any

import grpc

from moorage_runtime import arms, shadow
from moorage_runtime.codecs import v2_messages
from moorage_runtime.rpc import inference

_OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", shadow.MAX_ANSWER_BYTES)]


class Copies:
    """Keeps one channel: there is one revision at a time that copies go to."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._lock = threading.Lock()
        self._channel: tuple[str, Any] = ("", None)

    def send(self, copy: shadow.Copy, seconds: float) -> tuple[int, bytes]:
        request = v2_messages.request(copy.body)
        request.ClearField("model_version")  # this revision's
        infer = self._to(copy.revision).unary_unary(f"/{inference.NAME}/ModelInfer")
        try:
            answer = infer(request.SerializeToString(), timeout=seconds, metadata=((arms.HEADER, arms.SHADOW),))
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise TimeoutError from error
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                # What gRPC itself says when there is nobody, too; but only a runtime says when to come again.
                says_when = inference.RETRY in dict(error.trailing_metadata() or ())
                raise (shadow.Overloaded if says_when else ConnectionError) from error
            return 500, b""
        return 200, answer

    def _to(self, revision: str) -> Any:
        with self._lock:
            known, channel = self._channel
            if known != revision:
                # The other is closed when the last call on it has ended.
                channel = grpc.insecure_channel(f"{revision}:{self._port}", options=_OPTIONS)
                self._channel = (revision, channel)
            return channel


def by_protocol(by_http: shadow.Send, by_grpc: shadow.Send) -> shadow.Send:
    def send(copy: shadow.Copy, seconds: float) -> tuple[int, bytes]:
        return (by_grpc if copy.protocol == inference.PROTOCOL else by_http)(copy, seconds)

    return send
