"""The virtual environment of the tools that we are compared with, made on first use."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PeerEnvironment", "peer_environment"]

# ModelOpt's own `onnx` extra asks for the GPU build of ONNX-Runtime and for CuPy.
_MODELOPT = "nvidia-modelopt==0.47.0"
_REQUIREMENTS = (
    "torch==2.13.0",
    "onnx==1.21.0",
    "onnxruntime==1.24.2",
    "onnxconverter-common~=1.16.0",
    "onnx-graphsurgeon",
    "polygraphy",
    "onnxslim",
    "onnxscript",
    "lief",
    "cppimport",
    "omegaconf",
    "pulp<4",
    "pydantic",
    "PyYAML",
    "regex",
    "rich",
    "safetensors",
    "scipy",
    "tqdm",
    "ninja",
    "nvidia-ml-py",
    "setuptools>=80",
)


@dataclass(frozen=True, slots=True)
class PeerEnvironment:
    """Where the peers live."""

    python: Path
    """Their interpreter."""

    problem: str = ""
    """Why it cannot be used; empty when it can."""


def peer_environment(folder: Path) -> PeerEnvironment:
    """Returns the environment in `folder`, which is made if it is not there."""
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    ready = [str(python), "-c", "import benchmarks.peer_tasks"]
    root = Path(__file__).resolve().parents[1]
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    commands = [
        [sys.executable, "-m", "venv", str(folder)],
        [*pip, "--no-deps", _MODELOPT],
        [*pip, *_REQUIREMENTS],
        ready,
    ]
    if python.exists() and subprocess.run(ready, cwd=root, check=False).returncode == 0:
        return PeerEnvironment(python)
    for command in commands:
        done = subprocess.run(command, cwd=root, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            said = done.stderr.strip().splitlines() or ["no reason given"]
            return PeerEnvironment(python, f"cannot be installed: {said[-1]}")
    return PeerEnvironment(python)
