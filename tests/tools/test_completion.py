"""`--print-completion`: what a shell offers, in a real shell."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys

import pytest

from polygraphy_layerprec.tools.completion import SHELLS
from tests.processes import MODULE_DOOR, run_command

pytest.importorskip("shtab")

OFFER = """
source ./completion.bash
COMP_WORDS=({words}) COMP_CWORD={last}
_shtab_polygraphy
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a folder with a completion script and two files."""
    folder = tmp_path_factory.mktemp("completion")
    done = run_command([sys.executable, *MODULE_DOOR, "--print-completion", "bash"], folder)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    (folder / "completion.bash").write_text(done.stdout)
    (folder / "model.onnx").touch()
    (folder / "a b.onnx").touch()
    return folder


def offered(folder, *words) -> set[str]:
    code = OFFER.format(words=shlex.join(words), last=len(words) - 1)
    done = subprocess.run(
        ["bash", "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert not done.stderr
    return set(done.stdout.splitlines())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["layerp"], {"layerprec"}),
        (["layerprec", ""], {"rank", "constrain", "verify", "inspect"}),
        (["layerprec", "rank", "--save-s"], {"--save-script"}),
        (["layerprec", "rank", "--impact", ""], {"adjoint", "gain", "exact"}),
        (["layerprec", "rank", "mod"], {"model.onnx"}),
        (["layerprec", "rank", "model.onnx", "--load-inputs", "mod"], {"model.onnx"}),
        (["convert", "model.onnx", "--trt-npp"], {"--trt-npps"}),
        (["inspect", "mo"], {"model"}),
    ],
)
def test_bash_offers_what_fits(folder, words, expected):
    found = offered(folder, "polygraphy", *words)

    assert expected <= found
    assert all(word.startswith(words[-1]) for word in found)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_has_no_syntax_error(shell, tmp_path):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")

    done = run_command([sys.executable, *MODULE_DOOR, "--print-completion", shell], tmp_path)

    assert done.returncode == 0
    (tmp_path / "script").write_text(done.stdout)
    assert subprocess.run([shell, "-n", tmp_path / "script"], check=False).returncode == 0


def test_what_is_missing_is_said(tmp_path):
    (tmp_path / "shtab.py").write_text("raise ImportError\n")
    environment = {"PYTHONPATH": os.fspath(tmp_path)}

    done = run_command(
        [sys.executable, *MODULE_DOOR, "--print-completion", "zsh"], tmp_path, environment
    )

    assert done.returncode == 1
    assert "pip install 'polygraphy-layerprec[completion]'" in done.stderr
    assert "Traceback" not in done.stderr
