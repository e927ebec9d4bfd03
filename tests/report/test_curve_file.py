"""The curve as a table."""

from __future__ import annotations

import csv
import re

import pytest

from polygraphy_layerprec.records import CurvePoint, SelectionCost
from polygraphy_layerprec.report.curve_file import save_curve


def point(count, measured=None, *, error=0.1 + 0.2):
    return CurvePoint(count, error, measured, SelectionCost(count, 1 / 3, 2 * count))


def test_each_point_is_a_row_with_every_digit(tmp_path):
    path = tmp_path / "curve.csv"

    save_curve([point(0, 1e-300), point(2, 0.5)], str(path))

    assert path.read_bytes() == (
        b"layer_count,forecast_error,measured_error,flops_fraction,cast_count\n"
        b"0,0.30000000000000004,1e-300,0.3333333333333333,0\n"
        b"2,0.30000000000000004,0.5,0.3333333333333333,4\n"
    )


def test_what_was_not_measured_is_empty_and_zero_is_not(tmp_path):
    path = tmp_path / "curve.csv"

    save_curve([point(0), point(1, 0.0)], str(path))

    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["measured_error"] for row in rows] == ["", "0.0"]


def test_no_points_are_a_table_without_rows(tmp_path):
    path = tmp_path / "curve.csv"

    save_curve([], str(path))

    assert path.read_text().count("\n") == 1


def test_a_path_that_cannot_be_written_is_said_and_nothing_is_left(tmp_path):
    path = str(tmp_path / "missing" / "curve.csv")

    with pytest.raises(ValueError, match=re.escape(f"Cannot write {path!r}")):
        save_curve([point(0)], path)

    assert list(tmp_path.iterdir()) == []


def test_points_that_fail_half_way_leave_the_old_file(tmp_path):
    path = tmp_path / "curve.csv"
    path.write_text("old")

    def failing():
        yield point(0)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        save_curve(failing(), str(path))

    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["curve.csv"]
