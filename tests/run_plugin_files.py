"""What the tests of `polygraphy run --layerprec` run, and how they read what it saved."""

from __future__ import annotations

import sys

import numpy as np
from polygraphy.comparator import RunResults

from polygraphy_layerprec.emit.network_script import render_network_script
from polygraphy_layerprec.model import identify, load_graph
from polygraphy_layerprec.precision import FP16
from polygraphy_layerprec.records import Constraint
from tests.models import cancellation
from tests.processes import POLYGRAPHY_DOOR, run_command

__all__ = ["DATA_SCRIPT", "OFFSET", "SMALL", "loaded", "polygraphy_run", "script_of"]

OFFSET = 400.0
SMALL = np.linspace(0.001, 0.09, 32, dtype=np.float16).astype(np.float32).reshape(4, 8)
"""What FP16 loses at 400, where its numbers are 0.25 apart."""

DATA_SCRIPT = """
import numpy as np
def load_data():
    for value in (0.01, 0.02, 0.03):
        yield {"x": np.full((4, 8), value, np.float32)}
"""


def script_of(*kept: str, precision=FP16, **options) -> str:
    constraints = [Constraint(name, "", (), (name,), "") for name in kept]
    digest = identify(load_graph(cancellation(OFFSET))).digest
    return render_network_script(
        constraints,
        precision=precision,
        **{"model_name": "model.onnx", "model_digest": digest, **options},
    )


def loaded(path) -> dict[str, list[dict]]:
    """Returns saved outputs by the kind of runner."""
    return {
        name.partition("-")[0]: [dict(iteration.items()) for iteration in iterations]
        for name, iterations in RunResults.load(str(path)).items()
    }


def polygraphy_run(*words, folder, python=sys.executable):
    """Returns the finished process of `polygraphy run`."""
    return run_command([python, *POLYGRAPHY_DOOR[:2], "run", *words], folder)
