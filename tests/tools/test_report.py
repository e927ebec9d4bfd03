"""Reports from the command line, in real processes."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from polygraphy_layerprec.files.ranking_file import save_ranking
from polygraphy_layerprec.pipeline import rank_model
from polygraphy_layerprec.tools.main import main
from tests.decisions import make_decision
from tests.models import build_model, node, scalar, tensor
from tests.processes import run_layerprec

pytestmark = pytest.mark.onnxrt

TIE = 1 + 2.0**-11
NAMES = ("<b>first</b>", "second | `third`")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a folder with a model, its inputs, and a ranking of it."""
    folder = tmp_path_factory.mktemp("report")
    nodes = [
        node("Mul", ["x", "tie"], "scaled", name=NAMES[0]),
        node("Mul", ["scaled", "one"], "y", name=NAMES[1]),
    ]
    weights = {"tie": scalar(TIE), "one": scalar(1.0)}
    onnx.save(
        build_model(nodes, [tensor("x", [2])], [tensor("y", [2])], weights), folder / "model.onnx"
    )
    values = np.array([1, 2], np.float32)
    np.savez(folder / "inputs.npz", x=values)
    ranking = rank_model(folder / "model.onnx", [{"x": values}])
    decided = replace(ranking, decision=make_decision(layers=NAMES[:1]))
    save_ranking(decided, folder / "ranking.json")
    return folder


@pytest.fixture
def layerprec(folder):
    def run(*words):
        done = run_layerprec(*words, folder=folder)
        assert "Traceback" not in done.stdout + done.stderr
        return done

    return run


def test_a_saved_ranking_becomes_a_page_and_a_picture(layerprec, folder):
    done = layerprec("report", "ranking.json", "-o", "r.html", "--save-plot", "r.svg")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Saved the report to r.html" in done.stdout
    assert "Saved the picture to r.svg" in done.stdout
    text = (folder / "r.html").read_text()
    assert "&lt;b&gt;first&lt;/b&gt;" in text
    assert "polygraphy layerprec constrain ranking.json --save-script constraints.py" in text
    assert (folder / "r.svg").read_text().startswith("<?xml")


def test_the_same_command_gives_the_same_bytes(layerprec, folder):
    contents = []
    for _ in range(2):
        assert layerprec("report", "ranking.json", "-o", "same.html").returncode == 0
        contents.append((folder / "same.html").read_bytes())

    assert contents[0] == contents[1]


def test_with_the_model_the_curve_and_the_choice_are_measured(layerprec, folder):
    words = ("--model", "model.onnx", "--load-inputs", "inputs.npz", "--tolerance", "1e-5")

    done = layerprec("report", "ranking.json", *words, "-o", "measured.html")

    assert done.returncode == 0, done.stdout + done.stderr
    text = (folder / "measured.html").read_text()
    assert "line_color=--measured" in text
    assert "An FP32 build, 2 of 2 layers in FP32: with every layer in FP16 relative L2" in text
    assert (
        "constrain ranking.json --model model.onnx --load-inputs inputs.npz --tolerance 1e-05"
        in text.replace("1e-5", "1e-05")
    )


def test_markdown_stands_alone_in_its_lines(layerprec):
    done = layerprec("report", "ranking.json", "--format", "markdown", "--silent")

    assert done.returncode == 0
    lines = done.stdout.strip().splitlines()
    assert lines[0].startswith("**FP16 loses accuracy")
    assert any(line.startswith("| 1 | `<b>first</b>` **FP32** |") for line in lines)
    assert any("`` second \\| `third` ``" in line for line in lines)
    assert not any(line.startswith("[I]") for line in lines)


def test_a_report_may_be_markdown_in_a_file(layerprec, folder):
    done = layerprec("report", "ranking.json", "-o", "issue.md")

    assert done.returncode == 0
    assert (folder / "issue.md").read_text().startswith("**FP16 loses accuracy")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "Name a file, for example `-o report.html`"),
        (("-o", "report.pdf"), "its name must end in .html or .md"),
        (("-o", "none/report.html"), "the directory"),
        (("--save-plot", "plot.pdf"), "its name must end in .png or .svg"),
    ],
)
def test_what_cannot_be_done_is_told_before_any_work(layerprec, words, told):
    done = layerprec("report", "ranking.json", *words)

    assert done.returncode == 1
    assert told in done.stderr


def test_rank_saves_reports_and_builds_with_the_script_it_saved(layerprec, folder):
    done = layerprec(
        *("rank", "model.onnx", "--load-inputs", "inputs.npz", "--format", "markdown"),
        *("--save-report", "rank.html", "--save-plot", "rank.png", "--save-script", "c.py"),
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "\n| 1 | `<b>first</b>` |" in done.stdout
    assert "[I]" not in done.stdout
    assert "[I] Next: build an engine" in done.stderr
    text = (folder / "rank.html").read_text()
    assert "--trt-npps c.py" in text
    assert "Save a script" not in text
    assert (folder / "rank.png").read_bytes().startswith(b"\x89PNG")


def test_rank_with_a_report_alone_says_how_to_save_a_script(layerprec, folder):
    done = layerprec(
        "rank", "model.onnx", "--load-inputs", "inputs.npz", "--save-report", "alone.html"
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Chosen:" in done.stdout
    text = (folder / "alone.html").read_text()
    assert "rank model.onnx --load-inputs inputs.npz --save-script constraints.py" in text


def test_verify_saves_a_report_and_shows_markdown(layerprec, folder):
    done = layerprec(
        *("verify", "model.onnx", "--ranking", "ranking.json", "--load-inputs", "inputs.npz"),
        *("--top-k", "2", "--tolerance", "1e-6", "--save-report", "v.html"),
        *("--format", "markdown"),
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("**An FP32 build, 2 of 2 layers")
    assert "[I]" not in done.stdout
    assert "PASSED: " in done.stderr
    assert "Passed." in (folder / "v.html").read_text()


def test_compare_saves_a_report_and_shows_markdown(layerprec, folder):
    done = layerprec(
        *("compare", "ranking.json", "ranking.json", "--save-report", "c.html"),
        *("--format", "markdown"),
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "\n| Layer | Op | First |" in done.stdout
    assert "Impact in both rankings" in (folder / "c.html").read_text()


def test_inspect_shows_rankings_and_scripts_as_markdown(layerprec):
    assert layerprec("constrain", "ranking.json", "--save-script", "i.py").returncode == 0

    ranking = layerprec("inspect", "ranking.json", "--format", "markdown", "--silent").stdout
    script = layerprec("inspect", "i.py", "--format", "markdown", "--silent").stdout

    assert "| 1 | `<b>first</b>` **FP32** |" in ranking
    assert "| `<b>first</b>` | `Mul` |" in script


def test_without_the_packages_nothing_is_begun(folder, monkeypatch, capsys):
    from polygraphy_layerprec.report.html import packages

    monkeypatch.setattr(
        packages, "find_spec", lambda _: SimpleNamespace() if _ == "bokeh" else None
    )
    monkeypatch.chdir(folder)

    assert main(["report", "ranking.json", "-o", "never.html"]) == 1

    assert "pip install 'polygraphy-layerprec[report]'" in capsys.readouterr().err
    assert not (folder / "never.html").exists()
