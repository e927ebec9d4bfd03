"""What the tests of the documentation share: a model, and where commands are found."""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from tests.environments import ROOT

if TYPE_CHECKING:
    from pathlib import Path

# Not the console scripts: they may be those of another environment.
_POLYGRAPHY = (
    "import sys; sys.argv[0] = 'polygraphy'; import polygraphy.tools as t; sys.exit(t.main())"
)


@pytest.fixture(scope="session")
def demo_model(tmp_path_factory) -> Path:
    """Returns a folder with the demo's model and inputs, under the names that pages use."""
    path = ROOT / "examples" / "make_demo_model.py"
    specification = importlib.util.spec_from_file_location("make_demo_model", path)
    demo = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(demo)
    folder = tmp_path_factory.mktemp("demo")
    onnx.save(demo.build_model(), folder / "model.onnx")
    np.savez(folder / "inputs.npz", **demo.build_inputs())
    return folder


@pytest.fixture(scope="session")
def environment(tmp_path_factory) -> dict[str, str]:
    """Returns the variables under which commands run: `polygraphy` is this environment's."""
    folder = tmp_path_factory.mktemp("bin")
    commands = {"python": [], "python3": [], "polygraphy": ["-c", _POLYGRAPHY]}
    for name, arguments in commands.items():
        command = folder / name
        words = shlex.join([sys.executable, *arguments])
        command.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        command.chmod(0o755)
    path = os.pathsep.join([str(folder), os.path.dirname(sys.executable), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "COLUMNS": "80", "POLYGRAPHY_USE_TENSORRT_RTX": "1"}
