"""What every verb refuses: the message names the option or the file, and nothing is written."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from polygraphy_layerprec.tools.main import main
from tests.models import chain, sample_inputs, small_cnn
from tests.processes import run_layerprec

pytestmark = pytest.mark.onnxrt


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Returns a folder with a model, inputs, a ranking, a script, and files that are none."""
    folder = tmp_path_factory.mktemp("made")
    model = small_cnn()
    onnx.save(model, folder / "model.onnx")
    onnx.save(chain(3), folder / "other.onnx")
    np.savez(folder / "inputs.npz", **sample_inputs(model))
    words = "--load-inputs inputs.npz --save-ranking ranking.json --save-script constraints.py"
    done = run_layerprec("rank", "model.onnx", *words.split(), folder=folder)
    assert done.returncode == 0, done.stderr
    (folder / "text.json").write_text("text")
    (folder / "plain.py").write_text("x = 1\n")
    (folder / "folder.json").mkdir()
    return folder


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("rank model.onnx --top 0", ["`--top`", "at least 1"]),
        ("rank model.onnx --precision fp8", ["--precision", "fp8", "fp16", "bf16"]),
        ("rank model.onnx --exact -1", ["`--exact`"]),
        ("rank model.onnx --max-memory 0", ["`--max-memory`"]),
        ("rank model.onnx --max-memory 4Q", ["4Q", "suffix: K, M, or G"]),
        ("rank model.onnx --iterations 0", ["`--iterations`"]),
        ("rank model.onnx --tolerance 0", ["`--tolerance`"]),
        ("rank model.onnx --max-abs nan", ["`--max-abs`"]),
        ("rank model.onnx --fp32-fraction 2", ["`--fp32-fraction`", "[0, 1]"]),
        ("rank model.onnx --keep (", ["`--keep`", "'('", "backslash"]),
        ("rank model.onnx --allow [", ["`--allow`", "'['"]),
        ("rank model.onnx --keep nobody --top-k 1", ["`--keep`", "'nobody'", "look like"]),
        ("rank model.onnx --save-ranking r.txt", ["`--save-ranking`", ".json or .csv"]),
        ("rank model.onnx --save-script s.txt", ["`--save-script`", ".py"]),
        ("rank model.onnx --save-onnx model.onnx", ["`--save-onnx`", "another path"]),
        ("rank model.onnx --load-inputs text.json --save-ranking text.json", ["which is read"]),
        ("rank model.onnx --loss-script plain.py:f --save-script ./plain.py", ["which is read"]),
        ("constrain ranking.json --save-verdict ranking.json", ["`--save-verdict`", "is read"]),
        (
            "rank model.onnx --save-ranking one.json --save-verdict one.json",
            ["`--save-ranking`", "`--save-verdict`", "both save 'one.json'"],
        ),
        ("rank model.onnx --save-curve c.pdf", ["`--save-curve`", ".csv"]),
        ("rank model.onnx --load-inputs none.npz", ["'none.npz'", "Check the path"]),
        ("rank model.onnx --input-shapes other:[1]", ["`--input-shapes`", "'other'", "image"]),
        ("rank model.onnx --val-range other:[0,1]", ["`--val-range`", "'other'", "image"]),
        ("rank model.onnx --val-range [1,0]", ["`--val-range`", "low to high"]),
        ("rank model.onnx --val-range image:[0,nan]", ["`--val-range`", "'image'"]),
        ("rank model.onnx --val-range 3", ["`--val-range`", "[0,1]"]),
        ("rank model.onnx --loss-script none.py", ["'none.py'"]),
        ("rank model.onnx --loss-script plain.py", ["'plain.py'", "--loss-script"]),
        ("rank model.onnx --outputs other", ["`--outputs`", "'other'"]),
        ("constrain none.json", ["'none.json'", "No such file", "Check the path"]),
        ("constrain folder.json", ["'folder.json'", "directory"]),
        ("constrain text.json", ["'text.json'", "--save-ranking"]),
        ("constrain model.onnx", ["'model.onnx'", "--save-ranking"]),
        ("constrain ranking.json --model none.onnx --tolerance 1", ["'none.onnx'"]),
        ("constrain ranking.json --model other.onnx --tolerance 1", ["another model", "rank"]),
        ("constrain ranking.json --max-abs 1", ["`--max-abs`", "--model model.onnx"]),
        ("constrain ranking.json --save-onnx m.onnx", ["`--save-onnx`", "--model model.onnx"]),
        ("verify model.onnx --script none.py", ["`--script`", "'none.py'"]),
        ("verify model.onnx --script plain.py", ["'plain.py'", "--save-script"]),
        ("verify other.onnx --script constraints.py", ["'constraints.py'", "another model"]),
        ("verify model.onnx --mixed-onnx other.onnx", ["'other.onnx'", "'model.onnx'"]),
        ("verify model.onnx --ranking text.json", ["'text.json'", "--save-ranking"]),
        ("verify model.onnx --top-k 3", ["`--top-k`", "`--ranking ranking.json`"]),
        ("verify model.onnx --script constraints.py --precision bf16", ["`--precision`", "fp16"]),
        ("verify model.onnx --tolerance -1", ["`--tolerance`"]),
        ("verify model.onnx --outputs other", ["`--outputs`", "'other'"]),
        ("verify model.onnx --timing-runs 0", ["`--timing-runs`"]),
        ("rank model.onnx --load-outputs none.json", ["'none.json'", "Check the path"]),
        ("rank model.onnx --load-outputs text.json", ["'text.json'", "--save-outputs"]),
        ("rank model.onnx --load-outputs a b c", ["`--load-outputs`", "3 paths"]),
        ("rank model.onnx --reference-runner x", ["`--reference-runner`", "`--load-outputs"]),
        ("rank model.onnx --trt-min-shapes x:[1]", ["`--trt-min-shapes`", "`--backend tensorrt`"]),
        ("rank model.onnx --save-report r.txt", ["`--save-report`", ".html"]),
        ("rank model.onnx --save-plot p.gif", ["`--save-plot`", ".png"]),
        ("compare ranking.json none.json", ["'none.json'"]),
        (
            "compare ranking.json constraints.py",
            ["'ranking.json' is a ranking, 'constraints.py' a script"],
        ),
        ("compare ranking.json text.json", ["'text.json'", "--save-ranking"]),
        ("compare ranking.json ranking.json --top 0", ["`--top`"]),
        ("compare ranking.json ranking.json --save-agreement a.txt", ["`--save-agreement`"]),
        ("report ranking.json", ["-o report.html", "`--format markdown`"]),
        ("report ranking.json -o r.txt", ["`--output`", ".html"]),
        ("report text.json -o r.html", ["'text.json'", "--save-ranking"]),
        ("inspect none.json", ["'none.json'"]),
        ("inspect model.onnx", ["'model.onnx'", ".json or .py"]),
        ("inspect plain.py", ["'plain.py'", "--save-script"]),
        ("inspect ranking.json --top 0", ["`--top`"]),
        ("inspect constraints.py --model none.onnx", ["'none.onnx'"]),
    ],
)
def test_a_refusal_names_the_option_or_the_file(made, monkeypatch, capsys, command, names):
    monkeypatch.chdir(made)
    before = sorted(made.iterdir())

    try:
        status = main(command.split())
    except SystemExit as stop:  # how argparse refuses
        status = stop.code
    said = " ".join(capsys.readouterr().err.split())

    assert status in (1, 2), said
    assert not [name for name in names if name not in said], said
    assert sorted(made.iterdir()) == before
