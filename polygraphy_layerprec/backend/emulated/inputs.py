"""Data loaders for `polygraphy run`: what its own cannot make or read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from polygraphy import util

from polygraphy_layerprec._native import export
from polygraphy_layerprec.backend.emulated.user_errors import critical_errors
from polygraphy_layerprec.backend.made_up_inputs import tell_made_up
from polygraphy_layerprec.backend.sample_files import read_samples
from polygraphy_layerprec.execution.samples.given import NO_SAMPLE, SampleError, check_sample
from polygraphy_layerprec.execution.samples.plausible import DEFAULT_SEED, draw_samples, plan_inputs
from polygraphy_layerprec.files.npz_file import StoredArray
from polygraphy_layerprec.model import Graph

if TYPE_CHECKING:
    import numpy.typing as npt

    from polygraphy_layerprec.execution.samples.plausible import PlausibleInput

__all__ = ["InputsFromFiles", "PlausibleInputs"]

GraphOrLoader: TypeAlias = Graph | Callable[[], Graph]


@export()
class PlausibleInputs:
    """Data loader that makes up inputs which the model takes, of shapes and values that fit it."""

    def __init__(
        self,
        graph: GraphOrLoader,
        shapes: Mapping[str, Sequence[int]] | None = None,
        val_range: Mapping[str, tuple[float, float]] | None = None,
        seed: int | None = None,
        iterations: int | None = None,
    ) -> None:
        """Stores what to make up.

        Args:
            graph: The model, or a callable that returns it.
            shapes: Shapes by input name. Defaults to plausible ones.
            val_range: Smallest and largest value by input name; under an empty name, for every
                input that is not listed. Defaults to plausible values.
            seed: Seed of the random numbers. Defaults to 1.
            iterations: How many samples. Defaults to 1.
        """
        self._graph = graph
        self._shapes = shapes or {}
        self._val_range = val_range or {}
        self._seed = util.default(seed, DEFAULT_SEED)
        self._iterations = util.default(iterations, 1)
        self._plan: Sequence[PlausibleInput] | None = None

    def __iter__(self) -> Iterator[dict[str, npt.NDArray[Any]]]:
        """Yields one array for each input, by name, for each sample."""
        if self._plan is None:
            graph, _ = util.invoke_if_callable(self._graph)
            with critical_errors():
                self._plan = plan_inputs(graph, shapes=self._shapes, val_range=self._val_range)
            tell_made_up(graph, self._plan)
        yield from draw_samples(self._plan, seed=self._seed, iterations=self._iterations)


@export()
class InputsFromFiles:
    """Data loader that reads `.npz`, `.npy` and JSON files, and folders of them."""

    def __init__(self, paths: Sequence[str], graph: GraphOrLoader) -> None:
        """Stores what to read.

        Args:
            paths: Files and folders, in order.
            graph: The model, or a callable that returns it.
        """
        self._paths = tuple(paths)
        self._graph = graph

    def __iter__(self) -> Iterator[dict[str, npt.NDArray[Any]]]:
        """Yields one array for each input, by name, for each sample.

        They fit the model, but for those of a JSON file, which Polygraphy checks and casts.

        Raises:
            PolygraphyException: If a file cannot be read or does not fit, or there is no sample.
        """
        graph, _ = util.invoke_if_callable(self._graph)
        is_empty = True
        with critical_errors():
            for path in self._paths:
                for where, sample in read_samples(path, graph.inputs):
                    is_empty = False
                    yield (
                        sample
                        if _is_of_json(sample)
                        else check_sample(sample, graph.inputs, where=where)
                    )
            if is_empty:
                raise SampleError(NO_SAMPLE)


def _is_of_json(sample: Any) -> bool:
    return isinstance(sample, dict) and not any(
        isinstance(array, StoredArray) for array in sample.values()
    )
