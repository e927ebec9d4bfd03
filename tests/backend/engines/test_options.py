from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec.backend.engines.options import choose_profile
from polygraphy_layerprec.execution import ExecutionError

SMALL = {"x": ((1, 8), (2, 8), (4, 8))}
LARGE = {"x": ((4, 8), (8, 8), (16, 8))}


def sample(*shape: int) -> dict:
    return {"x": np.zeros(shape, np.float32), "fixed": np.zeros(3)}


@pytest.mark.parametrize(("batch", "index"), [(1, 0), (4, 0), (5, 1), (16, 1)])
def test_the_first_profile_that_takes_the_shapes_is_chosen(batch, index):
    assert choose_profile([SMALL, LARGE], sample(batch, 8)) == index


@pytest.mark.parametrize("shape", [(17, 8), (1, 7), (1, 8, 1)])
def test_shapes_that_no_profile_takes_are_refused(shape):
    with pytest.raises(ExecutionError, match=r"\[1, 8\][\s\S]*--trt-min-shapes"):
        choose_profile([SMALL, LARGE], sample(*shape))


def test_fixed_shapes_need_no_profile():
    assert choose_profile([], sample(3, 3)) == 0
