from __future__ import annotations

import pytest

from polygraphy_layerprec.tools.mistyped_options import nearest_options
from tests.processes import DOORS, run_layerprec


@pytest.mark.parametrize(
    ("unknown", "expected"),
    [
        (["--tolerence", "1e-3"], [("--tolerence", "--tolerance")]),
        (["--tolerence=1e-3"], [("--tolerence", "--tolerance")]),
        (["--topk", "--shw"], [("--topk", "--top-k"), ("--shw", "--show")]),
        (["--no-such-thing", "tolerance"], []),
    ],
)
def test_the_nearest_option_is_found(unknown, expected):
    known = ["-h", "--tolerance", "--top-k", "--show"]

    assert nearest_options(unknown, known) == expected


@pytest.mark.parametrize("door", DOORS)
def test_every_door_proposes_what_was_meant(tmp_path, door):
    words = ("rank", "model.onnx", "--load-inputs", "x.npz", "--tolerence", "1e-3")

    done = run_layerprec(*words, door=door, folder=tmp_path)

    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert "There is no option --tolerence. Did you mean --tolerance?" in said
    assert "Unrecognized Options" in said
    assert "Traceback" not in said


def test_a_mistyped_option_is_shown_printable(tmp_path):
    done = run_layerprec("rank", "model.onnx", "--toler\x1bance", "1e-3", folder=tmp_path)

    assert "There is no option --toler\\x1bance. Did you mean --tolerance?" in done.stdout
