"""The output error of chosen sets of FP32 layers, measured by mixed emulation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from polygraphy_layerprec.execution.comparison.judging import JudgedOutputs
from polygraphy_layerprec.execution.comparison.output_divergence import OutputDivergences
from polygraphy_layerprec.execution.emulation.checkpoints import Checkpoints
from polygraphy_layerprec.execution.emulation.quantized_runs import executor_for
from polygraphy_layerprec.execution.errors import ExecutionError
from polygraphy_layerprec.execution.samples.given import check_samples
from polygraphy_layerprec.plan import KeptLayers, Plan, Target
from polygraphy_layerprec.plan.quantized_planning import planner_for
from polygraphy_layerprec.precision import is_floating
from polygraphy_layerprec.records import Outcome

if TYPE_CHECKING:
    from polygraphy_layerprec.divergence.judges import Judge
    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.precision import Precision

__all__ = ["SetMeasurement"]

Sample = Mapping[str, np.ndarray[Any, Any]]

_MOST_CHECKPOINT_BYTES: Final = 1 << 29
"""For all samples; what does not fit is computed again."""


class SetMeasurement:
    """Measures sets of layers on the same samples; the reference runs once for all of them."""

    def __init__(
        self,
        graph: Graph,
        samples: Iterable[Sample],
        *,
        precision: Precision,
        outputs: tuple[str, ...],
        target: Target = Target.STRONG,
    ) -> None:
        """Runs the reference.

        Args:
            graph: The model.
            samples: Input samples, which are kept.
            precision: The low precision.
            outputs: Names of the outputs that count.
            target: Whom the sets are planned for.

        Raises:
            SampleError: If a sample does not fit the model.
            ExecutionError: If there is no sample, or no output that counts can be computed: every
                set would seem to be without error.
        """
        self._executor = executor_for(graph, precision)
        self._planner = planner_for(graph, precision, target)
        self._precision = precision
        self._outputs = outputs
        self._samples = list(check_samples(samples, graph.inputs))
        self._references = [self._executor.run(sample) for sample in self._samples]
        most = _MOST_CHECKPOINT_BYTES // max(len(self._samples), 1)
        self._checkpoints = [Checkpoints(len(graph.nodes), most_bytes=most) for _ in self._samples]
        if not self._samples:
            raise ExecutionError("There is no input sample to measure sets of layers with.")
        if not any(name in reference for reference in self._references for name in outputs):
            raise ExecutionError(
                f"None of the outputs {list(outputs)!r} can be computed, so that no set of layers "
                f"can be measured.\nNote: The samples have inputs: {list(self._samples[0])!r}."
            )

    @property
    def sample_count(self) -> int:
        """How many samples it measures on."""
        return len(self._samples)

    def plan(self, kept: KeptLayers) -> Plan:
        """Returns what becomes of the model with these layers in FP32."""
        return self._planner.plan(kept)

    def divergence(self, kept: KeptLayers, *, exact_inputs: bool = False) -> OutputDivergences:
        """Returns how far the outputs move if all layers are lowered but those that are kept.

        With `exact_inputs` lowered layers take what other layers made as it is, and so add their
        introduced error alone.
        """
        divergences = OutputDivergences(self._outputs, self._precision)
        for _, reference, candidate in self._runs(kept, exact_inputs=exact_inputs):
            divergences.add(reference, candidate)
        return divergences

    def outcome(self, kept: KeptLayers, judges: Sequence[Judge]) -> Outcome:
        """Returns what judges make of the model with all layers lowered but those that are kept."""
        divergences = OutputDivergences(self._outputs, self._precision)
        judged = JudgedOutputs(judges, self._outputs)
        for sample, reference, candidate in self._runs(kept):
            divergences.add(reference, candidate)
            judged.add(reference, candidate, sample)
        return Outcome(divergences.error, judged.judgements())

    def _runs(
        self, kept: KeptLayers, *, exact_inputs: bool = False
    ) -> Iterator[tuple[Sample, Sample, Sample]]:
        """Each sample with the outputs of the reference and of the candidate."""
        plan = self._planner.plan(kept)
        runs = zip(self._samples, self._references, self._checkpoints, strict=True)
        for sample, reference, checkpoints in runs:
            candidate = self._executor.run(
                sample, plan, exact_inputs=exact_inputs, checkpoints=checkpoints
            )
            yield sample, reference, {**candidate, **_lost_outputs(reference, candidate)}


def _lost_outputs(reference: Sample, candidate: Sample) -> dict[str, np.ndarray[Any, Any]]:
    """No element of float outputs that are missing: a total loss, not no error."""
    return {
        name: np.empty((*expected.shape, 0), expected.dtype)
        for name, expected in reference.items()
        if is_floating(expected.dtype) and name not in candidate
    }
