"""Mistakes in the options of `polygraphy run --layerprec`, and in the files that they name."""

from __future__ import annotations

import json

import pytest
from polygraphy.exception import PolygraphyException

from tests.run_plugin_files import polygraphy_run

pytestmark = [
    pytest.mark.onnxrt,
    # Polygraphy's own, on Python 3.10 and 3.11.
    pytest.mark.filterwarnings("ignore:SelectableGroups dict interface:DeprecationWarning"),
]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layerprec-script", "none.py"], "No such file for `--layerprec-script`: 'none.py'"),
        (["--layerprec-ranking", "none.json"], "No such file for `--layerprec-ranking`"),
        (["--layerprec-ranking", "all.py"], "is not a ranking"),
        (["--layerprec-script", "ranking.json"], "is not a script"),
        (["--layerprec-script", "stray.py"], "1 of 1 constraints match no layer"),
        (["--layerprec-script", "bf16.py", "--layerprec-precision", "fp16"], "is for bf16"),
        (
            ["--layerprec-precision", "fp8"],
            "`--layerprec-precision` must be one of fp16, bf16, got: 'fp8'",
        ),
        (["--layerprec-top-k", "3"], "there is none"),
        (["--layerprec-tolerance", "3"], "there is none"),
        (["--layerprec-ranking", "ranking.json", "--layerprec-top-k", "-1"], "at least 0"),
        (["--layerprec-ranking", "ranking.json", "--layerprec-tolerance", "nan"], "be positive"),
        (
            "--layerprec-ranking ranking.json --layerprec-top-k 1 --layerprec-tolerance 1".split(),
            "`--layerprec-top-k` and `--layerprec-tolerance`, leave out one",
        ),
    ],
)
def test_mistakes_are_told(run, options, message):
    with pytest.raises(PolygraphyException) as caught:
        run("model.onnx", "--layerprec", *options)

    assert message in str(caught.value)


def test_a_ranking_of_another_model_is_refused(run, files):
    content = json.loads((files / "ranking.json").read_text())
    content["model"]["digest"] = "2:" + "cd" * 32
    (files / "foreign.json").write_text(json.dumps(content))

    with pytest.raises(PolygraphyException, match="is about another model"):
        run("model.onnx", "--layerprec", "--layerprec-ranking", "foreign.json")


def test_what_is_no_onnx_model_is_refused(run, files):
    (files / "model.engine").write_bytes(b"engine")

    with pytest.raises(PolygraphyException, match="could not be converted to an ONNX model"):
        run("model.engine", "--layerprec")


@pytest.mark.parametrize("runners", [["--onnxrt"], ["--onnxrt", "--layerprec"]])
def test_options_without_the_runner_are_warned_of(run, capsys, runners):
    run("model.onnx", *runners, "--layerprec-script", "all.py", "--validate")

    warned = "nothing runs in emulated low precision" in capsys.readouterr().out
    assert warned == ("--layerprec" not in runners)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--layerprec-script", "foreign.py"],
            "is about another model: 'model.onnx', digest 2:cdcd",
        ),
        (
            ["--layerprec-script", "all.py", "--layerprec-ranking", "ranking.json"],
            "both say what stays in FP32",
        ),
    ],
)
def test_mistakes_end_a_process_without_a_traceback(files, options, message):
    done = polygraphy_run("model.onnx", "--layerprec", *options, folder=files)

    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
