from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec.divergence.output_parts import OutputParts, parse_per_output

ARRAYS = {"boxes": np.arange(24).reshape(2, 3, 4), "y[0]": np.arange(3), "z": np.arange(2)}


def parts_of(*named):
    return OutputParts(named, ARRAYS)


def test_outputs_that_are_not_named_are_whole():
    found = parts_of("boxes[..., 1:]").of(ARRAYS)

    assert list(found) == ["boxes[..., 1:]", "y[0]", "z"]
    assert found["boxes[..., 1:]"].shape == (2, 3, 3)
    assert found["z"] is ARRAYS["z"]


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        ("..., 1:", np.s_[..., 1:]),
        ("0", np.s_[0:1]),
        (":, -1", np.s_[:, -1:]),
        ("::2, 1:3", np.s_[::2, 1:3]),
        ("1, ..., :-1", np.s_[1:2, ..., :-1]),
    ],
)
def test_an_index_is_that_of_numpy_but_keeps_the_axes(index, expected):
    (found,) = parts_of(f"boxes[{index}]").of({"boxes": ARRAYS["boxes"]}).values()

    np.testing.assert_array_equal(found, ARRAYS["boxes"][expected])


def test_an_output_whose_name_looks_like_a_part_is_itself():
    assert parts_of("y[0]").of(ARRAYS)["y[0]"].shape == (3,)
    assert parts_of("y[0][1:]").of(ARRAYS)["y[0][1:]"].shape == (2,)


def test_one_output_may_be_named_in_several_parts():
    found = parts_of("boxes[..., :2]", "boxes[..., 2:]", "z")

    assert list(found.of(ARRAYS)) == ["boxes[..., :2]", "boxes[..., 2:]", "y[0]", "z"]
    assert list(found.select(ARRAYS, "boxes[..., 2:]")) == ["boxes[..., 2:]"]
    assert list(found.select(ARRAYS, "")) == ["y[0]"]


def test_what_is_not_named_of_an_output_is_its_rest():
    parts = parts_of("boxes[..., :2]", "boxes[0]", "z")
    boxes = ARRAYS["boxes"]

    assert parts.rest == ("the rest of boxes", "y[0]")
    assert parts.sliced == ("boxes",)
    np.testing.assert_array_equal(
        parts.select(ARRAYS, "")["the rest of boxes"], boxes[1, :, 2:].ravel()
    )
    np.testing.assert_array_equal(
        parts.of(ARRAYS, rest=True)["the rest of boxes"], boxes[1, :, 2:].ravel()
    )


def test_of_a_float_output_what_is_named_is_no_number():
    boxes = ARRAYS["boxes"].astype(np.float32)

    rest = parts_of("boxes[..., :2]").select({"boxes": boxes}, "")["the rest of boxes"]

    assert rest.dtype == np.float32
    assert np.isnan(rest[..., :2]).all()
    np.testing.assert_array_equal(rest[..., 2:], boxes[..., 2:])


@pytest.mark.parametrize(
    "named", [("boxes", "boxes[..., :2]"), ("boxes[..., :2]", "boxes[..., 2:]")]
)
def test_an_output_that_is_named_whole_or_in_all_its_parts_has_no_rest(named):
    assert "the rest of boxes" not in parts_of(*named).select(ARRAYS, "")
    assert "the rest of boxes" not in parts_of(*named).of(ARRAYS, rest=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nope", "The model has no output named 'nope'.\nNote: Its outputs are: .*boxes"),
        ("nope[1:]", "The model has no output named 'nope'"),
        ("nope]", r"named 'nope\]'\.\nNote: Its outputs are: [^\n]*$"),
        ("boxes[__import__('os')]", "is no part of an output.*like boxes"),
        ("boxes[1.5]", "is no part of an output"),
        ("boxes[..., ...]", "is no part of an output"),
        ("boxes[..., 4:", r"\nClose the bracket: boxes\[\.\.\., 4:\]\.$"),
        ("boxes..., 4:]", r"\nOpen the bracket: boxes\[\.\.\., 4:\]\.$"),
    ],
)
def test_what_is_no_part_of_an_output_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parts_of(text)


def test_an_index_with_too_many_axes_is_refused_when_it_meets_the_output():
    with pytest.raises(ValueError, match=r"'z\[:, 1\]' does not fit an output of shape \(2,\)"):
        parts_of("z[:, 1]").of(ARRAYS)


def test_values_are_read_by_output():
    words = ["0.5", "boxes:1e-3", "a:b[..., 4:]:2"]

    assert parse_per_output(words, float) == {"": 0.5, "boxes": 1e-3, "a:b[..., 4:]": 2.0}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["boxes:"], "must be VALUE or NAME:VALUE, got 'boxes:': could not convert"),
        (["1", "2"], "names 'all outputs' twice"),
        (["a:1", "a:2"], "names 'a' twice"),
    ],
)
def test_values_that_make_no_sense_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        parse_per_output(words, float)


@pytest.mark.parametrize("text", ["y[..., 40:]", "y[7]", "y[2:1]"])
def test_a_part_without_elements_is_refused_since_it_would_meet_anything(text):
    parts = OutputParts([text], ["y"])

    with pytest.raises(ValueError, match=r"selects nothing of an output of shape \(2, 10\)"):
        parts.select({"y": np.ones((2, 10), np.float32)}, text)


def test_a_step_of_nothing_is_told_with_the_part():
    parts = OutputParts(["y[::0]"], ["y"])

    with pytest.raises(ValueError, match=r"'y\[::0\]' does not fit"):
        parts.select({"y": np.ones(4, np.float32)}, "y[::0]")
