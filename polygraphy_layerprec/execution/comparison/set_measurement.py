"""The output error of chosen sets of FP32 layers, measured by mixed emulation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraphy_layerprec.execution.comparison.judging import Findings
from polygraphy_layerprec.execution.comparison.set_runs import MOST_CHECKPOINT_BYTES, SetRuns
from polygraphy_layerprec.execution.errors import ExecutionError
from polygraphy_layerprec.execution.samples.given import check_samples
from polygraphy_layerprec.plan import KeptLayers, Plan, Target

if TYPE_CHECKING:
    from polygraphy_layerprec.divergence.judges import Judge
    from polygraphy_layerprec.execution.comparison.output_divergence import OutputDivergences
    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.precision import Precision
    from polygraphy_layerprec.records import Outcome

__all__ = ["SampleRuns", "SetMeasurement", "no_reference"]

Sample = Mapping[str, np.ndarray[Any, Any]]


class SampleRuns(ABC):
    """Runs samples with sets of layers in FP32, in this process or elsewhere."""

    def __init__(self, precision: Precision, outputs: Sequence[str], sample_count: int) -> None:
        """Stores what it is about.

        Args:
            precision: The low precision.
            outputs: Names of the outputs that count.
            sample_count: How many samples it measures on.
        """
        self._precision = precision
        self._outputs = tuple(outputs)
        self.sample_count = sample_count

    @abstractmethod
    def plan(self, kept: KeptLayers) -> Plan:
        """Returns what becomes of the model with these layers in FP32."""

    def nothing(self, judges: Sequence[Judge] = ()) -> Findings:
        """Returns the findings in no sample."""
        return Findings(self._outputs, judges, self._precision)

    @abstractmethod
    def findings(
        self,
        kept: KeptLayers,
        judges: Sequence[Judge] = (),
        places: range | None = None,
        *,
        tell: Callable[[int], None] | None = None,
    ) -> Findings:
        """Returns what becomes of the outputs if all layers are lowered but those that are kept.

        Args:
            kept: The layers that are kept.
            judges: What judges the outputs.
            places: Which samples to run, all by default.
            tell: Called with the number of samples that are done.
        """


class SetMeasurement(SampleRuns):
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
        self._runs = SetRuns.of(graph, precision, target)
        checked = list(check_samples(samples, graph.inputs))
        most = MOST_CHECKPOINT_BYTES // max(len(checked), 1)
        self._samples = [self._runs.remember(sample, most_bytes=most) for sample in checked]
        references = (remembered.reference for remembered in self._samples)
        if not any(name in reference for reference in references for name in outputs):
            raise no_reference(checked, outputs)
        super().__init__(precision, outputs, len(checked))

    def plan(self, kept: KeptLayers) -> Plan:
        """As in `SampleRuns`."""
        return self._runs.plan(kept)

    def findings(
        self,
        kept: KeptLayers,
        judges: Sequence[Judge] = (),
        places: range | None = None,
        *,
        exact_inputs: bool = False,
        tell: Callable[[int], None] | None = None,
    ) -> Findings:
        """Returns what becomes of the outputs, as `SampleRuns` says.

        Args:
            kept: As there, as all others.
            judges: As there.
            places: As there.
            exact_inputs: Whether lowered layers take what other layers made as it is, and so add
                their introduced error alone.
            tell: As there.
        """
        findings = self.nothing(judges)
        plan = self._runs.plan(kept)
        for done, place in enumerate(places or range(len(self._samples)), start=1):
            one = self._samples[place]
            candidate = self._runs.whole_candidate(one, plan, exact_inputs=exact_inputs)
            findings.add(one.reference, candidate, one.sample)
            if tell is not None:
                tell(done)
        return findings

    def divergence(self, kept: KeptLayers, *, exact_inputs: bool = False) -> OutputDivergences:
        """Returns how far the outputs move; the arguments are those of `findings`."""
        return self.findings(kept, exact_inputs=exact_inputs).divergences

    def outcome(self, kept: KeptLayers, judges: Sequence[Judge]) -> Outcome:
        """Returns what judges make of the model with all layers lowered but those that are kept."""
        return self.findings(kept, judges).outcome()


def no_reference(samples: Sequence[Sample], outputs: Sequence[str]) -> ExecutionError:
    """Returns the error that says that no output that counts can be computed, or no sample is."""
    if not samples:
        return ExecutionError("There is no input sample to measure sets of layers with.")
    return ExecutionError(
        f"None of the outputs {list(outputs)!r} can be computed, so that no set of layers "
        f"can be measured.\nNote: The samples have inputs: {list(samples[0])!r}."
    )
