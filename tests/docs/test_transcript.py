"""The README shows what its command prints today."""

from __future__ import annotations

import re
import shutil

import pytest

from tests.environments import ROOT
from tests.processes import run_layerprec


@pytest.mark.onnxrt
def test_the_readme_shows_what_the_command_prints(tmp_path, demo_model):
    shutil.copy(demo_model / "model.onnx", tmp_path / "demo.onnx")
    shutil.copy(demo_model / "inputs.npz", tmp_path / "demo_inputs.npz")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (command, shown) = re.search(
        r"`(rank demo.*?)` says.*?```text\n(.*?)```", text, re.DOTALL
    ).groups()

    said = run_layerprec(*command.split(), folder=tmp_path, environment={"COLUMNS": "80"}).stdout

    answer = said[said.index("[I] Verdict") : said.index("[I] Next")]
    assert answer == shown
