"""The layers as a picture."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from polygraphy_layerprec.report import layer_plot
from polygraphy_layerprec.report.layer_plot import save_layer_plot
from tests.rankings import make_layer
from tests.report_models import decided_report, hostile_report, make_report


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_the_same_report_gives_the_same_bytes(tmp_path, suffix):
    paths = [tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"]

    for path in paths:
        save_layer_plot(make_report(), str(path))

    first, second = (path.read_bytes() for path in paths)
    assert first == second
    assert first.startswith({".svg": b"<?xml", ".png": b"\x89PNG"}[suffix])


def test_the_worst_layers_are_named_and_overflows_are_told(tmp_path):
    path = tmp_path / "plot.svg"
    layers = [make_layer(1, "/pow", overflow=True, kind="overflow"), make_layer(2, "/add")]

    save_layer_plot(make_report(*layers), str(path))

    comments = path.read_text()
    assert "<!-- /pow -->" in comments
    assert comments.count("<!-- overflow -->") == 2  # in the legend, and in place of a bar
    assert "<!-- /add -->" in comments
    assert "<!-- stays in FP32 -->" in comments
    assert "<!-- model.onnx: FP16 alone leaves a relative L2 error" in comments


def test_names_that_look_like_mathematics_are_drawn_as_they_are(tmp_path):
    path = tmp_path / "plot.svg"

    save_layer_plot(hostile_report(), str(path))

    assert "somebody #12" in path.read_text()


def test_nothing_kept_has_no_entry_in_the_legend(tmp_path):
    from polygraphy_layerprec.selection import SelectionRequest

    path = tmp_path / "plot.svg"

    save_layer_plot(make_report(request=SelectionRequest(top_k=0)), str(path))

    assert "<!-- stays in FP32 -->" not in path.read_text()


def test_without_matplotlib_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(layer_plot, "find_spec", lambda _: None)

    with pytest.raises(ValueError, match=r"pip install 'polygraphy-layerprec\[plot\]'"):
        save_layer_plot(make_report(), str(tmp_path / "plot.svg"))

    assert not list(Path(tmp_path).iterdir())


def test_a_long_title_is_broken_and_not_cut(tmp_path):
    report = decided_report()
    decision = replace(report.selection.decision, sentence=" ".join(["word"] * 60))
    path = tmp_path / "plot.svg"

    save_layer_plot(
        replace(report, selection=replace(report.selection, decision=decision)), str(path)
    )

    lines = re.findall(r"<!-- (.*\bword\b.*) -->", path.read_text())
    assert sum(line.count("word") for line in lines) == 60
    assert max(map(len, lines)) <= 110
