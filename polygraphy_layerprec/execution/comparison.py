"""Runs samples through the executor and turns what was seen into observations of layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from polygraphy_layerprec.divergence.adjoint import AdjointImpacts
from polygraphy_layerprec.divergence.caveats import Caveat, CaveatTrail, of_layer
from polygraphy_layerprec.divergence.gain import NodeGains, output_gains, reader_shares
from polygraphy_layerprec.divergence.loss import NO_GRADIENT, Loss, loss_seeds
from polygraphy_layerprec.divergence.probes import output_scales, probe_count, target_seeds
from polygraphy_layerprec.divergence.rules import find_rule
from polygraphy_layerprec.execution.emulated import EmulatedExecutor, SampleComparison
from polygraphy_layerprec.execution.error_paths import ErrorPaths
from polygraphy_layerprec.execution.errors import ExecutionError
from polygraphy_layerprec.execution.integer_gains import gains_by_rule
from polygraphy_layerprec.execution.observation import LayerObservations
from polygraphy_layerprec.execution.output_divergence import OutputDivergences
from polygraphy_layerprec.execution.recording import TapeRecorder, tensors_of

if TYPE_CHECKING:
    from polygraphy_layerprec.divergence.probes import Target
    from polygraphy_layerprec.execution.error_paths import NodePaths
    from polygraphy_layerprec.execution.node_evaluation import Evaluation
    from polygraphy_layerprec.model import Graph, Node
    from polygraphy_layerprec.plan import Plan
    from polygraphy_layerprec.records import ImpactMethod

__all__ = ["Comparison", "Progress", "compare_samples"]

Sample = Mapping[str, np.ndarray[Any, Any]]
Progress = Callable[[int, int, str], None]
"""Called with nodes done, nodes in all (0 if unknown), and what is going on."""


@dataclass(slots=True)
class Comparison:
    """Everything that the samples together said."""

    observations: LayerObservations
    """What each layer did."""

    outputs: OutputDivergences
    """How far the outputs are apart."""

    with_adjoint: bool
    """Whether impacts come from backward sweeps."""

    sample_count: int = 0
    """Samples that were run."""

    failures: dict[int, str] = field(default_factory=dict)
    """Why a node could not run, by node index."""

    nonfinite_from: set[int] = field(default_factory=set)
    """Layers that handed a NaN or infinity on to an output, by node index."""

    ran: set[int] = field(default_factory=set)
    """Nodes that ran in a sample at least."""

    flips: set[int] = field(default_factory=set)
    """`If` nodes where reference and candidate took different branches."""

    samples_of_ids: list[Sample] = field(default_factory=list)
    """The samples in which floats that are taken for integers are not exact."""

    samples_lost: list[Sample] = field(default_factory=list)
    """The first samples in which an output becomes NaN or infinite."""

    lowered_already: set[int] = field(default_factory=set)
    """Nodes that the model runs in FP16 or BF16 itself."""


def compare_samples(
    plan: Plan,
    samples: Iterable[Sample],
    *,
    impact: ImpactMethod,
    outputs: tuple[str, ...],
    budget_bytes: int | None,
    loss: Loss | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Returns what `samples` say of each layer that a plan lowers.

    Args:
        plan: What becomes of the tensors of the candidate.
        samples: An array for each input, any number of times; shapes may differ.
        impact: `gain`, or else the adjoint.
        outputs: The outputs that count.
        budget_bytes: Memory for activations; beyond it they are kept on disk.
        loss: What matters at the outputs, instead of their relative errors.
        progress: Told after every node.

    Raises:
        ExecutionError: If there is no sample.
    """
    graph, precision = plan.graph, plan.precision
    with_adjoint = impact != "gain"
    executor = EmulatedExecutor(
        plan,
        needs_gains=_lacks_rule if with_adjoint else (lambda _: True),
        keep_errors=with_adjoint,
    )
    comparison = Comparison(
        LayerObservations(), OutputDivergences(graph.outputs, precision), with_adjoint
    )
    paths = ErrorPaths(graph, precision)
    spread = (
        _AdjointSpread(graph, paths, budget_bytes, loss) if with_adjoint else _GainSpread(paths)
    )
    for index, sample in enumerate(samples):
        observe = _observer(comparison, spread, graph, progress, index)
        result = executor.compare(sample, observe)
        reference = {name: y for name, y in result.reference.items() if name in outputs}
        spread.add_impacts(comparison.observations, reference, seed=index)
        if paths.inexact_integers:
            comparison.observations.add_inexact_integers(paths.inexact_integers)
            comparison.samples_of_ids.append(sample)
        paths.forget()
        _add_result(comparison, sample, result, outputs)
    if not comparison.sample_count:
        raise ExecutionError(
            "There is no input sample to measure with.\n"
            "Give one with `--load-inputs` or `--data-loader-script`, or leave both out."
        )
    if isinstance(spread, _AdjointSpread):
        spread.check()
    return comparison


def _observer(
    comparison: Comparison,
    spread: _AdjointSpread | _GainSpread,
    graph: Graph,
    progress: Progress | None,
    sample: int,
) -> Callable[[Evaluation], None]:
    def observe(evaluation: Evaluation) -> None:
        comparison.observations.add(evaluation)
        spread.add(evaluation)
        comparison.ran.add(evaluation.node.index)
        if any(o is not None and o.data_type() in _LOW_TYPES for o in evaluation.outputs):
            comparison.lowered_already.add(evaluation.node.index)
        if progress is not None:
            progress(evaluation.node.index + 1, len(graph.nodes), f"sample {sample + 1}")

    return observe


_LOW_TYPES = frozenset({"tensor(float16)", "tensor(bfloat16)"})
_LOST_SAMPLES_KEPT: Final = 8
"""Enough to measure sets with; what others alone lose is found when the choice is measured."""


def _add_result(
    comparison: Comparison,
    sample: Sample,
    result: SampleComparison,
    outputs: tuple[str, ...],
) -> None:
    comparison.sample_count += 1
    before = comparison.outputs.nonfinite_count
    comparison.outputs.add(
        {name: y for name, y in result.reference.items() if name in outputs}, result.candidate
    )
    lost = comparison.outputs.nonfinite_count > before
    if lost and len(comparison.samples_lost) < _LOST_SAMPLES_KEPT:
        comparison.samples_lost.append(sample)
    comparison.observations.add_harmful_overflows(result.harmful_overflows)
    comparison.nonfinite_from |= result.nonfinite_from
    comparison.flips |= result.flips
    for index, reason in result.failures.items():
        comparison.failures.setdefault(index, reason)


def _lacks_rule(node: Node) -> bool:
    return find_rule(node.op_type, node.domain, node.opset) is None or bool(node.captures)


class _AdjointSpread:
    """Impacts by a backward sweep after each sample."""

    def __init__(
        self, graph: Graph, paths: ErrorPaths, budget_bytes: int | None, loss: Loss | None
    ) -> None:
        self._recorder = TapeRecorder(graph, paths, budget_bytes=budget_bytes)
        self._loss = loss
        self._saw_gradient = False

    def add(self, evaluation: Evaluation) -> None:
        self._recorder.record(evaluation)

    def add_impacts(self, observations: LayerObservations, reference: Sample, *, seed: int) -> None:
        targets = self._recorder.targets(reference)
        if self._loss is None:
            rng = np.random.default_rng(seed)
            shapes = [target.shape for target in targets.values()]
            count = probe_count(shapes, work=self._recorder.sweep_work)
            probes = [target_seeds(targets, rng=rng) for _ in range(count)]
        else:
            probes = [_loss_probe(self._loss, reference)]
            self._saw_gradient |= any(np.any(seed) for seed in probes[0].values())
        decisions = {name: target.decision for name, target in targets.items() if target.decision}
        impacts = self._recorder.tape.sweep(*probes, decisions=decisions)
        self._recorder.finish()
        observations.add_impacts(impacts, judged=_elements(probes[0]))

    def check(self) -> None:
        """Checks, after all samples, that they say something."""
        if self._loss is not None and not self._saw_gradient:
            raise ExecutionError(NO_GRADIENT)


def _elements(arrays: Sample) -> int:
    return sum(array.size for array in arrays.values())


def _loss_probe(loss: Loss, reference: Sample) -> dict[str, np.ndarray[Any, Any]]:
    try:
        return loss_seeds(loss, reference)
    except ValueError as error:  # what is wrong with the loss is the user's to mend
        raise ExecutionError(str(error)) from error


class _GainSpread:
    """Impacts from scalar gains, composed backwards after each sample."""

    def __init__(self, paths: ErrorPaths) -> None:
        self._paths = paths
        self._nodes: list[NodeGains] = []
        self._followed: list[tuple[Node, bool, NodePaths, list[str]]] = []
        self._introduced: dict[int, tuple[tuple[str, ...], float]] = {}

    def add(self, evaluation: Evaluation) -> None:
        node = evaluation.node
        layer = None if evaluation.sums is None else node.index
        tensors = tensors_of(evaluation)
        paths = self._paths.follow(node, tensors, is_layer=layer is not None)
        arriving = [*(node.inputs[i] for i in paths.wanted)]
        arriving += [node.captures[i] for i in paths.captured]
        # What no probe measures moves values, and keeps the norm of an error.
        gains = {**dict.fromkeys(arriving, 1.0), **evaluation.gains}
        by_rule = {
            name: gain * evaluation.step_gain
            for name, gain in gains_by_rule(node, paths, tensors).items()
        }
        # Beside integers there are scales and zero points, whose errors undo themselves.
        outputs = node.outputs[:1] if by_rule else node.outputs
        self._nodes.append(NodeGains({**gains, **by_rule}, outputs, layer))
        self._followed.append((node, layer is not None, paths, arriving))
        if evaluation.sums is not None:
            self._introduced[node.index] = (node.outputs, evaluation.sums.introduced_power)

    def add_impacts(self, observations: LayerObservations, reference: Sample, *, seed: int) -> None:
        del seed  # nothing random here
        targets = self._paths.targets(reference)
        scales = output_scales(targets)
        squared = output_gains(self._nodes, scales)
        shares = reader_shares(self._nodes, scales)
        powers, readers = {}, {}
        for index, (names, power) in self._introduced.items():
            leading = max(names, key=lambda name: squared.get(name, 0.0))
            powers[index] = power * squared.get(leading, 0.0)
            readers[index] = shares.get(leading, {})
        impacts = AdjointImpacts(powers, self._caveats(targets), readers, powers)
        observations.add_impacts(impacts, judged=sum(math.prod(targets[n].shape) for n in scales))
        self._nodes.clear()
        self._introduced.clear()
        self._followed.clear()

    def _caveats(self, targets: Mapping[str, Target]) -> dict[int, frozenset[Caveat]]:
        trail, caveats = CaveatTrail(), {}
        for name, target in targets.items():
            if target.is_usable:
                trail.start(name, target.decision)
        for node, is_layer, paths, arriving in reversed(self._followed):
            found = trail.arrive(node.outputs)
            if is_layer:
                caveats[node.index] = of_layer(found)
            if found is not None:
                steps = {Caveat(paths.steps, node.op_type)} if paths.steps and arriving else set()
                trail.leave(found | steps, arriving, paths.decided)
        return caveats
