"""The figures of the comparison are those of the benchmarks."""

from __future__ import annotations

import re

from tests.environments import ROOT

DOCS = ROOT / "docs"
TEXT = (DOCS / "comparison.md").read_text(encoding="utf-8")
TOOLS = {
    "AutoCast": "ModelOpt AutoCast",
    "none, all in FP16": "all in FP16",
    "`auto_mixed_precision`": "auto_mixed_precision",
    "ONNX-Runtime's `float16`": "ONNX-Runtime float16",
    "this choice": "this choice, by the default criterion",
}
WAYS = {
    "our script, all in FP16": "script, all in FP16",
    "our script, 63 of 319 layers in FP32": "script, error halved (63 of 319)",
    "our mixed ONNX, all in FP16": "mixed ONNX, all in FP16",
    "our mixed ONNX, 63 of 319 layers in FP32": "mixed ONNX, error halved (63 of 319)",
    "AutoCast, its own choice": "ModelOpt AutoCast",
    "AutoCast, told our 63 layers": "AutoCast, told our `error halved`",
    "ONNX-Runtime's `float16`": "ONNX-Runtime, float16",
    "onnxconverter-common's `float16`": "onnxconverter-common, float16",
    "`auto_mixed_precision`": "onnxconverter-common, auto",
}


def test_sets_of_the_peers_are_those_that_were_measured():
    measured = {tuple(row[:2] + row[4:5]): row[2:] for row in rows(read("peers"), 7)}

    shown = rows(section("and what it is worth"), 7)[1:]

    for model, title, layers, *figures in shown:
        count = layers.replace("of", "/")
        tool = TOOLS.get(title, title)
        if title == "this ranking":
            tool = f"this ranking, {layers.split()[0]} layers"
        if layers.startswith("fails"):
            assert any(row[:2] == [model, tool] and "FAIL" in row[2] for row in all_peers())
            continue
        seconds, peak, _, operations, error = measured[model, tool, count]
        time = seconds if seconds == "-" else f"{seconds} s"
        assert figures == [operations, error, time, peak]
    assert len(shown) == 13


def test_costs_of_engines_are_those_that_were_measured():
    bert = read("engine-build").split("## BERT-base 1x128")[1].split("\n## ")[0]
    measured = {row[0]: row[1:] for row in rows(bert.split("| build, in multiples")[0], 6)}

    shown = rows(section("from a set to an engine"), 4)[1:]

    for way, conversion, build, engine in shown:
        figures = measured[WAYS[way]]
        if "fails" in conversion or "refused" in build:
            assert "no engine" in figures[1]
            continue
        assert [conversion, build] == [user_time(cell) for cell in figures[:2]]
        assert engine == figures[3]
    wall_user_peak, size = measured["FP32, as it is"][1:3]
    assert len(shown) == len(WAYS)
    assert "takes {} s and {}".format(*user_time(wall_user_peak).split(" s, ")) in TEXT
    assert f"has {round(float(size.split()[0]))} MiB" in TEXT


def test_versions_are_those_of_the_environment_that_is_measured():
    from benchmarks import peer_environment

    pinned = " ".join((peer_environment._MODELOPT, *peer_environment._REQUIREMENTS))

    assert "nvidia-modelopt==0.47.0" in pinned
    assert "ModelOpt 0.47.0" in TEXT
    assert "onnxconverter-common~=1.16.0" in pinned
    assert "onnxconverter-common 1.16.0" in TEXT
    assert "onnxruntime==1.24.2" in pinned
    assert "1.24.2 beside the peers" in TEXT


def user_time(cell):
    """Returns user time and memory of a cell, without the wall time."""
    return re.sub(r"^[\d.]+ s, ([\d.]+ s) user", r"\1", cell)


def read(name):
    """Returns the text of a page of measurements."""
    return (DOCS / "benchmarks" / f"{name}.md").read_text(encoding="utf-8")


def section(title):
    """Returns the part of the comparison whose heading ends so."""
    (found,) = [part for part in TEXT.split("\n## ") if part.split("\n")[0].endswith(title)]
    return found


def rows(text, columns):
    """Returns the cells of all table rows of so many columns, rules aside."""
    table = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line[1:-1].split("|")] for line in table]
    return [row for row in cells if len(row) == columns]


def all_peers():
    """Returns the rows of the peers, those without figures as well."""
    return rows(read("peers"), 7)
