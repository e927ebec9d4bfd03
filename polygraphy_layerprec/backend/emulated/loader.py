"""Loaders, in Polygraphy's manner: they store what they are given, and work when called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from polygraphy import util
from polygraphy.backend.base import BaseLoader

from polygraphy_layerprec._native import G_LOGGER, check_called_by, export
from polygraphy_layerprec.backend.emulated.candidate import Candidate
from polygraphy_layerprec.backend.emulated.placement import open_device
from polygraphy_layerprec.backend.emulated.user_errors import critical_errors
from polygraphy_layerprec.execution import check_emulation
from polygraphy_layerprec.matching.requested_precisions import (
    all_lowered,
    requested_by_ranking,
    requested_by_script,
)
from polygraphy_layerprec.model import Graph, load_graph
from polygraphy_layerprec.precision import PRECISIONS
from polygraphy_layerprec.records import RequestedPrecisions
from polygraphy_layerprec.records.numbers import count_of
from polygraphy_layerprec.selection import SelectionRequest
from polygraphy_layerprec.terminal_output import printable_log

if TYPE_CHECKING:
    import onnx

__all__ = [
    "CandidateFromGraph",
    "GraphFromOnnx",
    "PrecisionsFromRanking",
    "PrecisionsFromScript",
]

GraphOrLoader: TypeAlias = Graph | Callable[[], Graph]
PrecisionsOrLoader: TypeAlias = RequestedPrecisions | Callable[[], RequestedPrecisions]


@export()
class GraphFromOnnx(BaseLoader):
    """Functor that reads the graph of an ONNX model; of a file, large weights stay on disk."""

    def __init__(
        self,
        model: str | onnx.ModelProto | Callable[[], onnx.ModelProto],
        external_data_dir: str | None = None,
    ) -> None:
        """Stores what to load.

        Args:
            model: Path of an `.onnx` file, or a model or a callable that returns one.
            external_data_dir: Directory of the model's external data. Defaults to the model's own.
        """
        self._model = model
        self._external_data_dir = external_data_dir

    @check_called_by("__call__")
    def call_impl(self) -> Graph:
        """Returns the graph.

        Raises:
            PolygraphyException: If it is not a complete, valid ONNX model.
        """
        model, _ = util.invoke_if_callable(self._model)
        with critical_errors():
            return load_graph(model, external_data_folder=self._external_data_dir)


@export()
class PrecisionsFromScript(BaseLoader):
    """Functor that reads which layers an emitted constraints script keeps in FP32.

    The data in the script are read; nothing in it is run.
    """

    def __init__(self, script: str, graph: GraphOrLoader) -> None:
        """Stores what to read.

        Args:
            script: Path of a script of `polygraphy layerprec rank --save-script`.
            graph: The model it was made for, with its own outputs, or a callable that returns it.
        """
        self._script = script
        self._graph = graph

    @check_called_by("__call__")
    def call_impl(self) -> RequestedPrecisions:
        """Returns the precisions.

        Raises:
            PolygraphyException: If it is no such script, or was made for another model.
        """
        graph, _ = util.invoke_if_callable(self._graph)
        with critical_errors():
            return requested_by_script(self._script, graph)


@export()
class PrecisionsFromRanking(BaseLoader):
    """Functor that chooses from a saved ranking which layers stay in FP32.

    By default those that were chosen when it was made.
    """

    def __init__(
        self,
        ranking: str,
        graph: GraphOrLoader,
        top_k: int | None = None,
        tolerance: float | None = None,
    ) -> None:
        """Stores what to read.

        Args:
            ranking: Path of a ranking of `polygraphy layerprec rank --save-ranking`.
            graph: The model that was ranked, with its own outputs, or a callable that returns it.
            top_k: How many layers to keep in FP32, the worst first. Defaults to None.
            tolerance: Relative L2 error of the outputs that the fewest layers are forecast to
                meet; not with `top_k`. Defaults to None.
        """
        self._ranking = ranking
        self._graph = graph
        self._request = SelectionRequest(tolerance=tolerance, top_k=top_k)

    @check_called_by("__call__")
    def call_impl(self) -> RequestedPrecisions:
        """Returns the precisions.

        Raises:
            PolygraphyException: If it is no ranking or is about another model, or what is asked of
                it is not valid.
        """
        graph, _ = util.invoke_if_callable(self._graph)
        with critical_errors():
            return requested_by_ranking(self._ranking, graph, self._request)


@export()
class CandidateFromGraph(BaseLoader):
    """Functor that prepares a model to run in emulated low precision."""

    def __init__(
        self,
        graph: GraphOrLoader,
        precision: str | None = None,
        precisions: PrecisionsOrLoader | None = None,
        providers: Sequence[str] | None = None,
    ) -> None:
        """Stores what to prepare.

        Args:
            graph: The model, with the outputs that are wanted, or a callable that returns it.
            precision: `fp16` or `bf16`. Defaults to that of `precisions`, else fp16.
            precisions: Which layers stay in FP32, or a callable that returns it. Defaults to none:
                every layer is lowered.
            providers: Names of ONNX-Runtime's execution providers, or parts of them: a GPU runs the
                model if CUDA comes before the CPU. Defaults to the CPU.
        """
        self._graph = graph
        self._providers = providers
        self._precision = precision
        self._precisions = precisions

    @check_called_by("__call__")
    def call_impl(self) -> Candidate:
        """Returns the model, ready to run.

        Raises:
            PolygraphyException: If ONNX-Runtime does not emulate low precision, a constraint
                matches no layer, the precisions contradict one another, or there is no GPU.
        """
        graph, _ = util.invoke_if_callable(self._graph)
        asked, _ = util.invoke_if_callable(self._precisions)
        asked = self._checked(asked)
        with critical_errors():
            check_emulation()
            candidate = Candidate(graph, asked, open_device(self._providers))
        with printable_log():
            _log(candidate, asked)
        return candidate

    def _checked(self, asked: RequestedPrecisions | None) -> RequestedPrecisions:
        if self._precision not in (None, *PRECISIONS):
            G_LOGGER.critical(
                f"Precisions that are emulated: {', '.join(PRECISIONS)}; not {self._precision!r}."
            )
        if asked is None:
            return all_lowered(self._precision or "fp16")
        if self._precision not in (None, asked.precision):
            G_LOGGER.critical(
                f"The precision is to be {self._precision}, but {asked.source} is for "
                f"{asked.precision}.\nLeave out `--layerprec-precision`."
            )
        return asked


def _log(candidate: Candidate, asked: RequestedPrecisions) -> None:
    source = f" | {asked.source}" if asked.source else ""
    G_LOGGER.info(
        f"Emulating: {asked.precision} | {len(asked.constraints)} of {candidate.layer_count} "
        f"layers stay in FP32{source}"
    )
    for warning in asked.warnings:
        G_LOGGER.warning(warning)
    nodes = candidate.graph.nodes
    random = [node.name for node in nodes if node.is_random]
    if random:
        G_LOGGER.warning(
            f"{count_of(len(random), 'node')}, {random[0]!r} the first, "
            f"{'draws' if len(random) == 1 else 'draw'} random numbers, anew in every "
            f"run: differences between runners hold these too."
        )
