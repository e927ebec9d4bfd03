"""Figures that a page repeats from the benchmarks are still those of the benchmarks."""

from __future__ import annotations

from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"

REPEATED = {
    "how-to/large-models.md": {
        "| BERT-base 1x128 | 418 MiB | 0.21 of it | 0.61 of it |": (
            "ranking-cost.md",
            ("| BERT-base 1x128 | 418 MiB |", " x, 0.21 |", " x, 0.61 |"),
        ),
        "| BERT-large 1x128 | 1279 MiB | 0.10 | 0.38 |": (
            "ranking-cost.md",
            ("| BERT-large 1x128 | 1279 MiB |", " x, 0.10 |", " x, 0.38 |"),
        ),
        "| MLP of 2.19 GiB | 2241 MiB | 0.08 | 0.13 |": (
            "ranking-cost.md",
            ("| MLP of 2.19 GiB | 2241 MiB |", " x, 0.08 |", " x, 0.13 |"),
        ),
        "0.56 on MiniLM": ("impact-truth.md", ("| MiniLM | 169 | gain | 0.555 |",)),
        "0.26 on a ResNet-sized CNN": (
            "impact-truth.md",
            ("| ResNet-50-sized CNN | 71 | gain | 0.256 |",),
        ),
        "where the adjoint has 0.99 and 0.96": (
            "impact-truth.md",
            ("| MiniLM | 169 | adjoint | 0.994 |",),
        ),
    },
    "how-to/bert-like-models.md": {
        "| `--cost count` | 51 | 22 % | 37 |": (
            "selection.md",
            ("| `--cost count`, 24 sets measured | 51 | 22% | 37 |",),
        ),
        "| `--cost flops` | 81 | 0 % | 45 |": (
            "selection.md",
            ("| `--cost flops`, 33 sets measured | 81 | 0% | 45 |",),
        ),
        "| `--cost casts` | 94 | 66 % | 13 |": (
            "selection.md",
            ("| `--cost casts`, 31 sets measured | 94 | 66% | 13 |",),
        ),
    },
}


@pytest.mark.parametrize(
    ("page", "figure", "benchmark", "source"),
    [
        pytest.param(page, figure, *origin, id=f"{Path(page).stem}-{number}")
        for page, figures in REPEATED.items()
        for number, (figure, origin) in enumerate(figures.items())
    ],
)
def test_a_figure_is_that_of_the_benchmark(page, figure, benchmark, source):
    measured = (DOCS / "benchmarks" / benchmark).read_text(encoding="utf-8").splitlines()
    said = " ".join((DOCS / page).read_text(encoding="utf-8").split())

    assert figure in said
    assert any(all(part in row for part in source) for row in measured)
