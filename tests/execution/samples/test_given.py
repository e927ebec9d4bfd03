from __future__ import annotations

import re

import ml_dtypes
import numpy as np
import pytest

from polygraphy_layerprec.execution.samples.given import SampleError, check_sample, describe_input
from polygraphy_layerprec.model import GraphInput

IMAGE = GraphInput("image", np.dtype(np.float32), ("batch", 3, None))
IDS = GraphInput("ids", np.dtype(np.int64), (2,))
WHERE = "sample 4 of inputs.json"


def good_sample():
    return {"ids": np.array([1, 2]), "image": np.ones((5, 3, 7), np.float32)}


def test_a_good_sample_comes_back_in_the_order_of_the_model():
    sample = good_sample()

    checked = check_sample(sample, [IMAGE, IDS], where=WHERE)

    assert list(checked) == ["image", "ids"]
    assert checked["image"] is sample["image"]


def test_inputs_are_described_in_words():
    assert describe_input(IMAGE) == "image: float32 [batch, 3, ?]"
    assert describe_input(GraphInput("x", np.dtype(np.int8), None)) == "x: int8 of any shape"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": None}, "has no array for the model's input 'ids'"),
        ({"label": np.ones(1)}, "has an array for 'label', which is no input of the model"),
        ({"ids": np.ones(2, np.int32)}, "Wrong dtype of input 'ids'"),
        ({"image": np.ones((5, 3, 7))}, "astype('float32')"),
        ({"image": np.ones((3, 7), np.float32)}, "Wrong shape of input 'image'"),
        ({"image": np.ones((5, 4, 7), np.float32)}, "Wrong shape of input 'image'"),
        ({"image": np.ones((5, 3, 0), np.float32)}, "'image' in sample 4 of inputs.json has no el"),
    ],
)
def test_a_bad_sample_is_refused_with_its_place_and_what_is_wanted(change, message):
    sample = {name: array for name, array in (good_sample() | change).items() if array is not None}

    with pytest.raises(SampleError, match=re.escape(message)) as caught:
        check_sample(sample, [IMAGE, IDS], where=WHERE)

    assert "ample 4 of inputs.json" in str(caught.value)
    assert "image: float32 [batch, 3, ?]" in str(caught.value) or "ids: int64" in str(caught.value)


def test_a_misspelt_name_is_guessed():
    with pytest.raises(SampleError, match="Is 'input_id' meant to be 'input_ids'"):
        check_sample(
            {"input_id": np.array([1, 2])},
            [GraphInput("input_ids", np.dtype(np.int64), (2,))],
            where=WHERE,
        )


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, ml_dtypes.bfloat16])
def test_nan_is_refused_in_any_float_type_and_counted(dtype):
    values = np.array([1, np.nan, 2, np.nan], dtype)

    with pytest.raises(SampleError, match=r"NaN in input 'x' of .*: 2 of 4 elements"):
        check_sample({"x": values}, [GraphInput("x", np.dtype(dtype), (4,))], where=WHERE)


def test_infinities_pass_because_masks_are_made_of_them():
    values = np.array([-np.inf, 0], np.float32)

    checked = check_sample({"x": values}, [GraphInput("x", values.dtype, (2,))], where=WHERE)

    assert checked["x"] is values


def test_an_input_of_any_shape_takes_any_shape():
    values = np.ones((2, 3, 4), np.float32)

    assert check_sample({"x": values}, [GraphInput("x", values.dtype, None)], where=WHERE)


def test_text_may_come_in_fixed_width():
    values = np.array(["a", "bc"])

    assert check_sample({"x": values}, [GraphInput("x", np.dtype(object), (2,))], where=WHERE)


def test_something_other_than_named_arrays_is_refused():
    with pytest.raises(SampleError, match=r"sample 4 of inputs.json is a list"):
        check_sample([np.ones(2)], [IDS], where=WHERE)
