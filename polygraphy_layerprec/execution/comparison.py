"""Runs samples through the executor and turns what was seen into observations of layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraphy_layerprec.divergence.adjoint import output_seeds, probe_count
from polygraphy_layerprec.divergence.gain import NodeGains, output_gains, reader_shares
from polygraphy_layerprec.divergence.loss import Loss, loss_seeds
from polygraphy_layerprec.divergence.rules import find_rule
from polygraphy_layerprec.execution.emulated import EmulatedExecutor, SampleComparison
from polygraphy_layerprec.execution.errors import ExecutionError
from polygraphy_layerprec.execution.observation import LayerObservations
from polygraphy_layerprec.execution.output_divergence import OutputDivergences
from polygraphy_layerprec.execution.recording import TapeRecorder
from polygraphy_layerprec.execution.streams import can_carry_error

if TYPE_CHECKING:
    from polygraphy_layerprec.execution.node_evaluation import Evaluation
    from polygraphy_layerprec.model import Graph, Node
    from polygraphy_layerprec.precision import Precision
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

    lowered_already: set[int] = field(default_factory=set)
    """Nodes that the model runs in FP16 or BF16 itself."""


def compare_samples(
    graph: Graph,
    samples: Iterable[Sample],
    *,
    precision: Precision,
    impact: ImpactMethod,
    outputs: tuple[str, ...],
    budget_bytes: int | None,
    loss: Loss | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Returns what `samples` say of each layer of `graph`.

    Args:
        graph: The model.
        samples: An array for each input, any number of times; shapes may differ.
        precision: The low precision.
        impact: `gain`, or else the adjoint.
        outputs: The outputs that count.
        budget_bytes: Memory for activations; beyond it they are kept on disk.
        loss: What matters at the outputs, instead of their relative errors.
        progress: Told after every node.

    Raises:
        ExecutionError: If there is no sample.
    """
    with_adjoint = impact != "gain"
    executor = EmulatedExecutor(
        graph,
        precision,
        needs_gains=_lacks_rule(graph) if with_adjoint else (lambda _: True),
        keep_errors=with_adjoint,
    )
    comparison = Comparison(
        LayerObservations(), OutputDivergences(graph.outputs, precision), with_adjoint
    )
    spread = _AdjointSpread(graph, budget_bytes, loss) if with_adjoint else _GainSpread()
    for index, sample in enumerate(samples):
        observe = _observer(comparison, spread, graph, progress, index)
        result = executor.compare(sample, observe)
        reference = {name: y for name, y in result.reference.items() if name in outputs}
        spread.add_impacts(comparison.observations, reference, seed=index)
        _add_result(comparison, result, outputs)
    if not comparison.sample_count:
        raise ExecutionError(
            "There is no input sample to measure with.\n"
            "Give one with `--load-inputs` or `--data-loader-script`, or leave both out."
        )
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
        if any(o is not None and o.data_type() in _LOW_TYPES for o in evaluation.outputs):
            comparison.lowered_already.add(evaluation.node.index)
        if progress is not None:
            progress(evaluation.node.index + 1, len(graph.nodes), f"sample {sample + 1}")

    return observe


_LOW_TYPES = frozenset({"tensor(float16)", "tensor(bfloat16)"})


def _add_result(comparison: Comparison, result: SampleComparison, outputs: tuple[str, ...]) -> None:
    comparison.sample_count += 1
    comparison.outputs.add(
        {name: y for name, y in result.reference.items() if name in outputs}, result.candidate
    )
    comparison.observations.add_harmful_overflows(result.harmful_overflows)
    comparison.nonfinite_from |= result.nonfinite_from
    for index, reason in result.failures.items():
        comparison.failures.setdefault(index, reason)


def _lacks_rule(graph: Graph) -> Callable[[Node], bool]:
    def lacks_rule(node: Node) -> bool:
        found = find_rule(node.op_type, node.domain, graph.opset(node.domain))
        return found is None or bool(node.captures)

    return lacks_rule


class _AdjointSpread:
    """Impacts by a backward sweep after each sample."""

    def __init__(self, graph: Graph, budget_bytes: int | None, loss: Loss | None) -> None:
        self._recorder = TapeRecorder(graph, budget_bytes=budget_bytes)
        self._loss = loss

    def add(self, evaluation: Evaluation) -> None:
        self._recorder.record(evaluation)

    def add_impacts(self, observations: LayerObservations, reference: Sample, *, seed: int) -> None:
        if self._loss is None:
            rng = np.random.default_rng(seed)
            probes = [output_seeds(reference, rng=rng) for _ in range(probe_count(reference))]
        else:
            probes = [_loss_probe(self._loss, reference)]
        impacts = self._recorder.tape.sweep(*probes)
        self._recorder.finish()
        observations.add_impacts(
            impacts.powers,
            independent=impacts.independent_powers,
            estimated=impacts.estimated,
            readers=impacts.consumers,
        )


def _loss_probe(loss: Loss, reference: Sample) -> dict[str, np.ndarray[Any, Any]]:
    try:
        return loss_seeds(loss, reference)
    except ValueError as error:  # what is wrong with the loss is the user's to mend
        raise ExecutionError(str(error)) from error


class _GainSpread:
    """Impacts from scalar gains, composed backwards after each sample."""

    def __init__(self) -> None:
        self._nodes: list[NodeGains] = []
        self._introduced: dict[int, tuple[tuple[str, ...], float]] = {}

    def add(self, evaluation: Evaluation) -> None:
        node = evaluation.node
        # What no probe measures moves values, and keeps the norm of an error.
        carried = (n for n in node.sources if can_carry_error(evaluation.inputs.get(n)))
        gains = {**dict.fromkeys(carried, 1.0), **evaluation.gains}
        layer = None if evaluation.sums is None else node.index
        self._nodes.append(NodeGains(gains, node.outputs, layer))
        if evaluation.sums is not None:
            self._introduced[node.index] = (node.outputs, evaluation.sums.introduced_power)

    def add_impacts(self, observations: LayerObservations, reference: Sample, *, seed: int) -> None:
        del seed  # nothing random here
        scales = _output_scales(reference)
        squared = output_gains(self._nodes, scales)
        shares = reader_shares(self._nodes, scales)
        powers, readers = {}, {}
        for index, (names, power) in self._introduced.items():
            leading = max(names, key=lambda name: squared.get(name, 0.0))
            powers[index] = power * squared.get(leading, 0.0)
            readers[index] = shares.get(leading, {})
        observations.add_impacts(powers, independent=powers, estimated=frozenset(), readers=readers)
        self._nodes.clear()
        self._introduced.clear()


def _output_scales(reference: Sample) -> dict[str, float]:
    """1 / (number of outputs x squared norm), for every float output with a finite norm."""
    powers = {
        name: float(np.linalg.norm(y.astype(np.float64))) ** 2
        for name, y in reference.items()
        if y.dtype in (np.float32, np.float64)
    }
    usable = {name: power for name, power in powers.items() if 0.0 < power < np.inf}
    return {name: 1.0 / (power * len(usable)) for name, power in usable.items()}
