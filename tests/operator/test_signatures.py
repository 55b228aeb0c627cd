"""May another version follow? The table of signatures: what callers of the old one can use, and what is said of what they can't."""

from __future__ import annotations

import pytest

from moorage_operator.core import signatures
from moorage_operator.core.signatures import Signature


def a(text: str) -> Signature:
    """From inputs > outputs, such as `amount:double note:string? > score:double`; from nothing one that is too large."""
    inputs, _, outputs = text.partition(">")
    fields = [tuple((*part.rsplit(":", 1),) for part in words.split()) for words in (inputs, outputs)]
    return Signature(f"sha256:{text}", *fields)  # type: ignore[arg-type]  # pairs


FINE = {
    #                            before                      after
    "the same":                 ("x:double > y:long",        "x:double > y:long"),
    "a new optional input":     ("x:double",                 "x:double z:string?"),
    "optional by now":          ("x:double z:string",        "x:double z:string?"),
    "a new output":             ("x:double > y:long",        "x:double > y:long p:double"),
    "outputs in another order": ("x:double > y:long p:double", "x:double > p:double y:long"),
    "outputs told for once":    ("x:double",                 "x:double > y:long"),
    "an int becomes a long":    ("x:integer",                "x:long"),
    "a long becomes a double":  ("x:long",                   "x:double"),
    "a float becomes a double": ("x:float",                  "x:double"),
    "any number of rows":       ("x:float32[8,3]",           "x:float32[-1,3]"),
    "a wider tensor":           ("x:uint8[-1,3]",            "x:float32[-1,3]"),
    "signed, of more bits":     ("x:uint8[-1]",              "x:int16[-1]"),
    "an output of known size":  ("x:double > y:float32[-1,-1]", "x:double > y:float32[-1,3]"),
}  # fmt: skip


@pytest.mark.parametrize(("before", "after"), FINE.values(), ids=FINE)
def test_callers_may_have_either(before: str, after: str) -> None:
    assert signatures.differences(a(before), a(after)) == ()


REFUSED = {
    #                            before                    after                       what is said
    "renamed":                  ("amount:double", "sum:double",
                                 "input `amount` is gone; input `sum` is new and required"),
    "another type":             ("amount:double",          "amount:string",            "input `amount` was double and is string"),
    "a narrower type":          ("x:double",               "x:float",                  "input `x` was double and is float"),
    "a double becomes a long":  ("x:double",               "x:long",                   "input `x` was double and is long"),
    "a sign is lost":           ("x:int8[-1]",             "x:uint16[-1]",             "input `x` was int8[-1] and is uint16[-1]"),
    "a text becomes a time":    ("x:string",               "x:datetime",               "input `x` was string and is datetime"),
    "a column turns tensor":    ("x:double",               "x:float64[-1]",            "input `x` was double and is float64[-1]"),
    "a narrower shape":         (":float32[-1,-1]", ":float32[-1,28]",
                                 "input `input` was float32[-1,-1] and is float32[-1,28]"),
    "fewer dimensions":         (":float32[-1,3]", ":float32[-1]",
                                 "input `input` was float32[-1,3] and is float32[-1]"),
    "no dimension":             ("x:float32[]",            "x:float32[1]",             "input `x` was float32[] and is float32[1]"),
    "required by now":          ("x:double?",              "x:double",                 "input `x` was optional and is required"),
    "another order":            ("x:double z:double",      "z:double x:double",        "the inputs are in another order"),
    "an output is gone":        ("x:double > y:long",      "x:double > z:long",        "output `y` is gone"),
    "an only output is named":  ("x:double > :long[-1]",   "x:double > y:long[-1]",    "output `predictions` is gone"),
    "a wider output":           ("x:double > y:integer",   "x:double > y:long",        "output `y` was integer and is long"),
    "an output of any size":    ("x:double > y:float32[-1,3]", "x:double > y:float32[-1,-1]",
                                 "output `y` was float32[-1,3] and is float32[-1,-1]"),
    "both":                     ("amount:double > score:double", "amount:string",
                                 "input `amount` was double and is string; output `score` is gone"),
    "very many":                ("a:long b:long c:long d:long e:long f:long g:long", "h:long?",
                                 "; ".join([*(f"input `{name}` is gone" for name in "abcde"), "and 2 more"])),
    "too large":                ("x:double",               "",                         "it is another one, and too large to be compared"),
    "too large before":         ("",                       "x:double",                 "it is another one, and too large to be compared"),
    "a name of many lines":     (f"{'x' * 70}:long",       "x:long?",                  f"input `{'x' * 59}…` is gone"),
}  # fmt: skip


@pytest.mark.parametrize(("before", "after", "says"), REFUSED.values(), ids=REFUSED)
def test_callers_cannot_use_it(before: str, after: str, says: str) -> None:
    assert signatures.in_words(signatures.differences(a(before), a(after))) == says


def test_equal_hashes_are_equal_signatures_however_large() -> None:
    assert signatures.differences(Signature("sha256:1"), Signature("sha256:1")) == ()


def test_what_is_told_is_read_and_kept_as_it_was() -> None:
    words = {"signature": "sha256:1", "schema": {"inputs": [["x", "double"]], "outputs": [["y", "long"]]}}
    found = signatures.reported(words)
    assert found == Signature("sha256:1", (("x", "double"),), (("y", "long"),))
    assert signatures.decode(signatures.encode(found)) == found


@pytest.mark.parametrize(
    "words",
    [
        {},
        {"signature": "sha256:1"},
        {"signature": "", "schema": {}},
        {"signature": 7, "schema": {}},
        {"signature": "sha256:1", "schema": {"inputs": [["x"]]}},
        {"signature": "sha256:1", "schema": {"inputs": "x"}},
        {"signature": "sha256:1", "schema": "x"},
    ],
    ids=str,
)
def test_words_that_say_nothing_of_it(words: dict[str, object]) -> None:
    assert signatures.reported(words) is None


def test_a_pin_that_somebody_changed_is_no_signature() -> None:
    assert signatures.decode("{") is None
    assert signatures.decode("[]") is None
