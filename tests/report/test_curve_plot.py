"""The curve as a picture."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from polygraphy_layerprec.records import CurvePoint, SelectionCost
from polygraphy_layerprec.report.curve_plot import save_curve_plot


def points(*, measured=True):
    errors = {0: 1e-3, 5: 4e-4, 20: 0.0}
    return [
        CurvePoint(count, error, error * 1.1 if measured else None, SelectionCost(count, 0.0, 0))
        for count, error in errors.items()
    ]


def test_the_same_points_give_the_same_bytes(tmp_path):
    paths = [str(tmp_path / name) for name in ("a.svg", "b.svg")]

    for path in paths:
        save_curve_plot(points(), path)

    first, second = (Path(path).read_bytes() for path in paths)
    assert first == second
    assert b"<svg" in first


def test_measured_errors_are_drawn_only_where_there_are_some(tmp_path):
    sizes = {}
    for measured in (True, False):
        path = str(tmp_path / f"{measured}.svg")
        save_curve_plot(points(measured=measured), path)
        sizes[measured] = len(Path(path).read_bytes())

    assert sizes[True] > sizes[False]


def test_the_ending_names_the_format(tmp_path):
    path = str(tmp_path / "curve.PNG")

    save_curve_plot(points(), path)

    assert Path(path).read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    with pytest.raises(ValueError, match=r"pip install 'polygraphy-layerprec\[plot\]'"):
        save_curve_plot(points(), str(tmp_path / "curve.svg"))

    assert not list(tmp_path.iterdir())
