"""What samples say of a layer adds up, however they are split."""

from __future__ import annotations

from polygraphy_layerprec.divergence.sums import DivergenceSums
from polygraphy_layerprec.execution.comparison.observation import ObservedLayer


def observed(**figures):
    return ObservedLayer(sums=DivergenceSums(**figures.pop("sums", {})), **figures)


def test_the_largest_stay_and_the_rest_adds_up():
    first = observed(
        sums={"element_count": 3},
        max_abs_input=2.0,
        largest_sum_of_terms=9.0,
        largest_integer=5.0,
        flops=10.0,
        evaluations=1,
        powers={0: 0.5},
        independent_power=0.25,
        readers={7: 0.5, 8: 1.0},
    )
    second = observed(
        sums={"element_count": 4},
        max_abs_input=6.0,
        largest_sum_of_terms=1.0,
        largest_integer=3.0,
        flops=20.0,
        evaluations=2,
        powers={1: 0.125},
        independent_power=0.5,
        readers={7: 0.25},
    )

    first.merge(second)

    assert first == observed(
        sums={"element_count": 7},
        max_abs_input=6.0,
        largest_sum_of_terms=9.0,
        largest_integer=5.0,
        flops=30.0,
        evaluations=3,
        powers={0: 0.5, 1: 0.125},
        independent_power=0.75,
        readers={7: 0.75, 8: 1.0},
    )
