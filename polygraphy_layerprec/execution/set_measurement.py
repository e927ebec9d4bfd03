"""The output error of chosen sets of FP32 layers, measured by mixed emulation."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraphy_layerprec.execution.errors import ExecutionError
from polygraphy_layerprec.execution.mixed import MixedExecutor
from polygraphy_layerprec.execution.output_divergence import OutputDivergences
from polygraphy_layerprec.execution.samples import check_samples

if TYPE_CHECKING:
    from polygraphy_layerprec.model import Graph, Node
    from polygraphy_layerprec.precision import Precision

__all__ = ["SetMeasurement"]

Sample = Mapping[str, np.ndarray[Any, Any]]


class SetMeasurement:
    """Measures sets of layers on the same samples; the reference runs once for all of them."""

    def __init__(
        self,
        graph: Graph,
        samples: Iterable[Sample],
        *,
        precision: Precision,
        outputs: tuple[str, ...],
    ) -> None:
        """Runs the reference.

        Args:
            graph: The model.
            samples: Input samples, which are kept.
            precision: The low precision.
            outputs: Names of the outputs that count.

        Raises:
            SampleError: If a sample does not fit the model.
            ExecutionError: If there is no sample, or no output that counts can be computed: every
                set would seem to be without error.
        """
        self._executor = MixedExecutor(graph, precision)
        self._precision = precision
        self._outputs = outputs
        self._samples = list(check_samples(samples, graph.inputs))
        self._references = [self._executor.run(sample, lambda _: False) for sample in self._samples]
        if not self._samples:
            raise ExecutionError("There is no input sample to measure sets of layers with.")
        if not any(name in reference for reference in self._references for name in outputs):
            raise ExecutionError(
                f"None of the outputs {list(outputs)!r} can be computed, so that no set of layers "
                f"can be measured.\nNote: The samples have inputs: {list(self._samples[0])!r}."
            )

    def divergence_of_kept(self, fp32_outputs: Collection[str]) -> OutputDivergences:
        """Returns how far the outputs move if all layers are lowered but those that make these."""
        kept = frozenset(fp32_outputs) - {""}  # the name of every output that is absent
        return self.divergence(lambda node: kept.isdisjoint(node.outputs))

    def divergence(
        self, lowered: Callable[[Node], bool], *, exact_inputs: bool = False
    ) -> OutputDivergences:
        """Returns how far the outputs move if the layers that `lowered` names are lowered.

        With `exact_inputs` these take what other layers made as it is, and so add their introduced
        error alone.
        """
        divergences = OutputDivergences(self._outputs, self._precision)
        for sample, reference in zip(self._samples, self._references, strict=True):
            candidate = self._executor.run(sample, lowered, exact_inputs=exact_inputs)
            divergences.add(reference, {**candidate, **_lost_outputs(reference, candidate)})
        return divergences


def _lost_outputs(reference: Sample, candidate: Sample) -> dict[str, np.ndarray[Any, Any]]:
    """NaN for float outputs that are missing or of another shape: a total loss, not no error."""
    return {
        name: np.full_like(expected, np.nan)
        for name, expected in reference.items()
        if expected.dtype.kind == "f"
        and (name not in candidate or candidate[name].shape != expected.shape)
    }
