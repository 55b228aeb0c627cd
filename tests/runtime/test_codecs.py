"""Every protocol reads the same values into the same arrays, and refuses what the signature does not allow, in words."""

from __future__ import annotations

import base64
import contextlib
import csv
import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_runtime import errors
from moorage_runtime.codecs import answers, arrays, mlflow, rows, signature, v2
from runtime_builders import columns, tensors

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "boolean": st.booleans(),
    "integer": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(allow_nan=False, allow_infinity=False, width=32),
    "double": st.floats(allow_nan=False, allow_infinity=False),
    "string": st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1),
    "datetime": st.datetimes().filter(lambda moment: 1700 < moment.year < 2200).map(lambda moment: moment.isoformat()),
    "binary": st.binary().map(lambda data: base64.b64encode(data).decode()),
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[signature.Signature, list[dict[str, Any]]]:
    """A signature with any columns, and rows that it allows."""
    types = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=4))
    names = [f"c {position}" for position in range(len(types))]
    row = st.fixed_dictionaries({name: VALUES[kind] for name, kind in zip(names, types, strict=True)})
    return columns(**dict(zip(names, types, strict=True))), draw(st.lists(row, min_size=1, max_size=4))


def through_json(content: Any) -> Any:
    return orjson.loads(orjson.dumps(content))


def same(left: arrays.Arrays, right: arrays.Arrays) -> None:
    assert list(left) == list(right)
    for name, array in left.items():
        assert array.dtype == right[name].dtype
        assert array.tolist() == right[name].tolist()


@given(tables())
def test_every_row_shaped_form_reads_the_same_arrays(table: tuple[signature.Signature, list[dict[str, Any]]]) -> None:
    wanted, given_rows = table
    names = [field.name for field in wanted.inputs]
    lists = [[row[name] for name in names] for row in given_rows]
    by_column = {name: [row[name] for row in given_rows] for name in names}
    expected = rows.body(wanted, through_json({"rows": given_rows}))
    same(expected, rows.body(wanted, through_json({"rows": lists})))
    same(expected, mlflow.body(wanted, through_json({"dataframe_records": given_rows})))
    same(expected, mlflow.body(wanted, through_json({"dataframe_split": {"columns": names, "data": lists}})))
    same(expected, mlflow.body(wanted, through_json({"inputs": by_column})))
    same(expected, mlflow.body(wanted, through_json({"instances": given_rows})))


@given(tables())
def test_v2_and_csv_read_what_rows_read(table: tuple[signature.Signature, list[dict[str, Any]]]) -> None:
    wanted, given_rows = table
    expected = rows.body(wanted, through_json({"rows": given_rows}))
    inputs = [
        {
            "name": f.name,
            "shape": [len(given_rows)],
            "datatype": f.datatype,
            "data": [row[f.name] for row in given_rows],
        }
        for f in wanted.inputs
    ]
    same(expected, v2.body(wanted, through_json({"inputs": inputs})))
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerow([field.name for field in wanted.inputs])
    writer.writerows([row[field.name] for field in wanted.inputs] for row in given_rows)
    same(expected, mlflow.table(wanted, text.getvalue()))


@given(tables())
def test_the_example_of_the_documentation_reads_back_as_itself(
    table: tuple[signature.Signature, list[dict[str, Any]]],
) -> None:
    wanted, given_rows = table
    read = rows.body(wanted, through_json({"rows": given_rows}))
    example = orjson.loads(orjson.dumps(v2.example(read), option=orjson.OPT_SERIALIZE_NUMPY))
    same(read, v2.body(wanted, example))


@given(st.lists(st.lists(VALUES["float"], min_size=3, max_size=3), min_size=1, max_size=4))
def test_a_tensor_reads_the_same_flat_and_nested(matrix: list[list[float]]) -> None:
    wanted = tensors(x=("float32", (-1, 3)))
    expected = rows.body(wanted, through_json({"rows": matrix}))
    same(expected, mlflow.body(wanted, through_json({"inputs": {"x": matrix}})))
    same(expected, mlflow.body(wanted, through_json({"inputs": matrix})))
    same(expected, mlflow.body(wanted, through_json({"instances": [{"x": row} for row in matrix]})))
    for data in (matrix, [value for row in matrix for value in row]):
        tensor = {"name": "x", "shape": [len(matrix), 3], "datatype": "FP32", "data": data}
        same(expected, v2.body(wanted, through_json({"inputs": [tensor]})))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_json_is_read_or_refused_in_words(content: Any) -> None:
    for wanted in (
        columns(a="double", b="string?"),
        tensors(x=("float32", (-1, 2))),
        tensors(x=("int64", (-1,)), y=("bool", (1,))),
    ):
        for decode in (rows.body, mlflow.body, v2.body):
            for body in (content, {"rows": content}, {"inputs": content}, {"dataframe_split": content}):
                with contextlib.suppress(errors.InvalidInput):  # any other exception would be a 500
                    assert set(decode(wanted, body)) <= {field.name for field in wanted.inputs}


def test_a_missing_number_is_nan_and_a_missing_text_none() -> None:
    read = rows.body(columns(a="double", b="string?"), {"rows": [{"a": None, "b": None}, {"a": 1, "b": "x"}]})
    assert np.isnan(read["a"][0])
    assert read["b"].tolist() == [None, "x"]


def test_an_optional_column_may_be_left_out() -> None:
    assert list(rows.body(columns(a="double", b="double?"), {"rows": [{"a": 1}]})) == ["a"]


def test_mlflows_forms_drop_columns_that_the_model_does_not_know() -> None:
    wanted = columns(a="double")
    given_rows = [{"a": 1.0, "id": 7}]
    assert list(mlflow.body(wanted, {"dataframe_records": given_rows})) == ["a"]
    with pytest.raises(errors.InvalidInput, match="not in the signature, which has 'a'"):
        rows.body(wanted, {"rows": given_rows})


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        ("double", "1.5", "row 0 is no number"),
        ("double", True, "row 0 is no number"),
        ("long", 1.5, "not a whole one that fits int64"),
        ("integer", 2**31, "not a whole one that fits int32"),
        ("long", 2**64, "not a whole one that fits int64"),
        ("float", 1e300, "too large for float32"),
        ("boolean", 1, "row 0 is no true or false"),
        ("string", 5, "row 0 is no text"),
        ("string", None, "row 0 is no text"),
        ("datetime", "yesterday", "row 0 is no ISO 8601 time"),
        ("binary", "?", "row 0 is no base64 text"),
    ],
)
def test_a_wrong_value_is_refused_with_the_column_and_what_it_should_be(kind: str, value: Any, said: str) -> None:
    with pytest.raises(errors.InvalidInput, match=rf"column 'amount'.*{said}.*asks for {kind}"):
        rows.body(columns(amount=kind), {"rows": [{"amount": value}]})


def test_a_refusal_never_repeats_what_was_sent() -> None:
    with pytest.raises(errors.InvalidInput) as refused:
        rows.body(columns(amount="double"), {"rows": [{"amount": "4111-1111"}]})
    assert "4111" not in str(refused.value)


def one(decode: Callable[[signature.Signature, Any], arrays.Arrays], content: Any) -> str:
    with pytest.raises(errors.InvalidInput) as refused:
        decode(tensors(x=("float32", (-1, 2))), content)
    return str(refused.value)


def test_a_tensor_of_another_shape_is_refused_with_both_shapes() -> None:
    assert "shape is [1, 3]; the signature asks for float32 of [-1, 2]" in one(rows.body, {"rows": [[1, 2, 3]]})
    assert "different lengths" in one(rows.body, {"rows": [[1, 2], [3]]})


def test_v2_shapes_and_types_must_agree_with_the_data() -> None:
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1.0, 2.0]}
    assert "'shape' says 4 values, 'data' has 2" in one(v2.body, {"inputs": [{**tensor, "shape": [2, 2]}]})
    assert "datatype must be FP32" in one(v2.body, {"inputs": [{**tensor, "datatype": "BYTES"}]})
    assert "it has 'x'" in one(v2.body, {"inputs": [{**tensor, "name": "z"}]})
    assert "same name" in one(v2.body, {"inputs": [tensor, tensor]})


def test_an_answer_that_json_has_no_number_for_is_null() -> None:
    prediction = answers.Prediction({"": np.array([1.0, np.nan])})
    assert json.loads(orjson.dumps(answers.per_row(prediction), option=orjson.OPT_SERIALIZE_NUMPY)) == [1.0, None]


def test_outputs_with_rows_are_answered_row_by_row() -> None:
    prediction = answers.Prediction({"label": np.array([1, 2]), "score": np.array([[0.5, 0.5], [0.1, 0.9]])})
    assert answers.per_row(prediction) == [{"label": 1, "score": [0.5, 0.5]}, {"label": 2, "score": [0.1, 0.9]}]
