"""How far values reach, where some are not finite."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec.execution.streams import largest_finite


@pytest.mark.parametrize(
    ("values", "largest"),
    [
        ([], 0.0),
        ([2.0, -3.0], 3.0),
        ([2.0, -np.inf], 2.0),
        ([np.nan, -5.0], 5.0),
        ([np.inf, np.nan], 0.0),
    ],
)
def test_the_largest_magnitude_is_that_of_what_is_finite(values, largest):
    assert largest_finite(np.array(values, np.float32)) == largest
