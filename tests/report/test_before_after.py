"""Two files before and after a change, side by side."""

from __future__ import annotations

import pytest

from polygraphy_layerprec.report.before_after import FileComparison, format_comparison
from polygraphy_layerprec.report.columns import display_width

ROWS = (
    ("Result", "passed", "failed"),
    ("relative L2 error, all lowered", "0.0123 (at most 0.005)", "1.234 (at most 0.005)"),
    ("the verdict " * 3, "a sentence " * 9, "another one " * 7),
)


@pytest.mark.parametrize("width", [72, 80, 120])
def test_rows_that_do_not_fit_are_told_in_lines_and_nothing_is_cut(width):
    lines = format_comparison(
        FileComparison("verdicts", "Both failed.", ROWS), "a", "b", width=width
    )

    assert max(map(display_width, lines)) <= width
    said = " ".join(" ".join(lines).split())
    for row in ROWS:
        for cell in row:
            assert " ".join(cell.split()) in said


def test_without_a_row_that_fits_all_are_told_in_lines():
    lines = format_comparison(
        FileComparison("verdicts", "Both failed.", ROWS[2:]), "a", "b", width=72
    )

    assert "a sentence a sentence" in " ".join(" ".join(lines).split())
