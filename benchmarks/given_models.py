"""Trained models that a user gives by path: they are not part of the repository."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import argparse

    import numpy.typing as npt

__all__ = ["GivenModel", "add_arguments", "given_models"]

_TITLES = {"minilm": "MiniLM", "digits": "digits CNN"}


@dataclass(frozen=True, slots=True)
class GivenModel:
    """One model with one input sample."""

    name: str
    """Name of its command-line option."""

    title: str
    """What tables call it."""

    model: Path
    """The ONNX file."""

    inputs: Path
    """The `.npz` file with one array per input."""

    def sample(self) -> dict[str, npt.NDArray[Any]]:
        """Returns the input sample: arrays by input name."""
        with np.load(self.inputs, allow_pickle=False) as arrays:
            return dict(arrays)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds an option for the path of each model and of its input."""
    for name, title in _TITLES.items():
        parser.add_argument(f"--{name}", type=Path, help=f"{title} as ONNX; else left out.")
        parser.add_argument(f"--{name}-inputs", type=Path, help="One array per input (.npz).")


def given_models(arguments: argparse.Namespace) -> list[GivenModel]:
    """Returns the models whose two files exist; says on stderr which are left out."""
    models = []
    for name, title in _TITLES.items():
        model, inputs = getattr(arguments, name), getattr(arguments, f"{name}_inputs")
        if all(path is not None and path.exists() for path in (model, inputs)):
            models.append(GivenModel(name, title, model, inputs))
            continue
        print(f"{title}: left out, give --{name} and --{name}-inputs", file=sys.stderr)
    return models
