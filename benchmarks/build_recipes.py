"""The ways from one FP32 model to an engine that the engine-build benchmark compares."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from polygraphy_layerprec.emit.network_script import render_network_script
from polygraphy_layerprec.pipeline import rank_model
from polygraphy_layerprec.precision import FP16
from polygraphy_layerprec.selection import SelectionRequest, constraints_of, select_layers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.given_models import GivenModel
    from benchmarks.peer_environment import PeerEnvironment
    from polygraphy_layerprec.records import Constraint, Ranking

__all__ = ["Recipe", "recipes_for"]

_SETS: Final[dict[str, SelectionRequest | Literal["half"] | None]] = {
    "all in FP16": None,
    "worst tenth in FP32": SelectionRequest(fp32_fraction=0.1),
    "error halved": "half",
}
_TOLD = "error halved"


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way from a model to an engine."""

    title: str
    """What tables call it."""

    script: str | None = None
    """Network postprocessing script that the build calls."""

    task: str = ""
    """Function that converts the model first; none if the FP32 model is built."""

    arguments: Mapping[str, object] = field(default_factory=dict)
    """What the task is given besides `model` and `output`."""

    python: str = sys.executable
    """Interpreter that the task needs."""

    is_own: bool = True
    """Whether it is ours, so that the goals are about it."""


def recipes_for(
    given: GivenModel, environment: PeerEnvironment | None, folder: Path
) -> list[Recipe]:
    """Returns the FP32 build, then ours, then those of the peers if there is an environment.

    Ours are the script and the mixed ONNX, each for three sets of FP32 layers: none, the first
    tenth of the ranking, and what `rank` keeps by itself, which is the fewest layers that are
    forecast to halve the output error. The peers have their own defaults; AutoCast is also told
    our set.

    Args:
        given: The FP32 model.
        environment: Where the peers live, or None.
        folder: Where scripts are written.
    """
    ranking = rank_model(given.model, [given.sample()], precision=FP16)
    sets = {title: _constraints(ranking, request) for title, request in _SETS.items()}
    recipes = [Recipe("FP32, as it is")]
    for index, (title, constraints) in enumerate(sets.items()):
        path = folder / f"{given.name}-{index}.py"
        path.write_text(_script(ranking, constraints), encoding="utf-8")
        recipes.append(Recipe(f"script, {_label(title, constraints, ranking)}", str(path)))
    for title, constraints in sets.items():
        kept = [next(filter(None, constraint.outputs)) for constraint in constraints]
        recipes.append(
            Recipe(
                f"mixed ONNX, {_label(title, constraints, ranking)}",
                task="benchmarks.build_tasks:save_mixed",
                arguments={"fp32_outputs": kept},
            )
        )
    if environment is not None:
        recipes += _peer_recipes(given, sets[_TOLD], environment)
    return recipes


def _peer_recipes(
    given: GivenModel, told: Sequence[Constraint], environment: PeerEnvironment
) -> list[Recipe]:
    sample: dict[str, object] = {"sample": str(given.inputs)}
    kept = [constraint.name for constraint in told]
    tasks: list[tuple[str, str, dict[str, object]]] = [
        ("ModelOpt AutoCast", "autocast", sample),
        (f"AutoCast, told our `{_TOLD}`", "autocast_keeping", {"kept": kept}),
        ("onnxconverter-common, auto", "auto_mixed_precision", sample),
        ("onnxconverter-common, float16", "converter_float16", {}),
        ("ONNX-Runtime, float16", "onnxruntime_float16", {}),
    ]
    return [
        Recipe(
            title,
            task=f"benchmarks.peer_tasks:{task}",
            arguments=arguments,
            python=str(environment.python),
            is_own=False,
        )
        for title, task, arguments in tasks
    ]


def _constraints(
    ranking: Ranking, request: SelectionRequest | Literal["half"] | None
) -> Sequence[Constraint]:
    if request is None:
        return ()
    if request == "half":
        request = SelectionRequest(tolerance=ranking.output_error.forecast / 2)
    return constraints_of(select_layers(ranking, request))


def _script(ranking: Ranking, constraints: Sequence[Constraint]) -> str:
    return render_network_script(
        constraints,
        precision=FP16,
        model_name=ranking.model.name,
        model_digest=ranking.model.digest,
    )


def _label(title: str, constraints: Sequence[Constraint], ranking: Ranking) -> str:
    if not constraints:
        return title
    return f"{title} ({len(constraints)} of {len(ranking.layers)})"
