"""One node of a quantised model in reference, candidate and with its own pairs alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from polygraphy_layerprec.arrays import is_all_true
from polygraphy_layerprec.divergence.metrics import DivergenceSums, measure_divergence
from polygraphy_layerprec.divergence.pair_fit import PairFit, fit_of
from polygraphy_layerprec.execution.emulation.node_comparer import NodeComparer
from polygraphy_layerprec.execution.emulation.node_run import NodeResult, NodeRun
from polygraphy_layerprec.execution.emulation.quantized_pairs import PairRunner
from polygraphy_layerprec.execution.emulation.reference_run import ReferenceRun
from polygraphy_layerprec.execution.kernels.ort_tensors import value_of
from polygraphy_layerprec.execution.probes.step_gain import step_gain
from polygraphy_layerprec.execution.streams import Streams, is_float, largest_finite
from polygraphy_layerprec.model.quantized import QuantizedGraph

if TYPE_CHECKING:
    import onnxruntime as ort

    from polygraphy_layerprec.divergence.compact_errors import CompactErrors
    from polygraphy_layerprec.execution.kernels.weights_ahead import WeightsAhead
    from polygraphy_layerprec.model import Node
    from polygraphy_layerprec.plan.widths import Plan

__all__ = ["QuantizedComparer"]

Outputs = Sequence["ort.OrtValue | None"]


class QuantizedComparer(NodeComparer):
    """Runs the nodes of one quantised model.

    What a layer introduces is what its own pairs do to its result: the difference between what it
    makes of the reference's values through its pairs and of these values as they are. Nodes that
    hand their pairs on introduce nothing; the nodes behind them take what their pairs left.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        needs_gains: Callable[[Node], bool],
        keep_errors: bool,
        ahead: WeightsAhead | None = None,
    ) -> None:
        super().__init__(plan, needs_gains=needs_gains, keep_errors=keep_errors, ahead=ahead)
        assert isinstance(plan.graph, QuantizedGraph)
        self._quantized = plan.graph
        self._pairs = PairRunner(plan.graph)
        self._own: dict[str, ort.OrtValue] = {}
        self._fits: dict[str, PairFit] = {}

    def take_fits(self) -> dict[str, PairFit]:
        """Returns how the scales of activations fit the values of one sample, and forgets it."""
        fits, self._fits = self._fits, {}
        return fits

    def compare(self, node: Node, tensors: Mapping[str, Streams]) -> NodeResult:
        """As `NodeComparer.compare`."""
        if not self._quantized.is_quantized(node) or node.branches:
            return super().compare(node, tensors)
        weights = self._weights.load(node)
        streams = {name: tensors[name] for name in node.sources if name not in weights}
        inputs = {**weights, **{name: stream.reference for name, stream in streams.items()}}
        outputs = self._runner.run(node, inputs)
        self._note_fits(node, inputs)
        own_inputs = {name: self._own.get(name, value) for name, value in inputs.items()}
        own = self._runner.run(node, self._pairs.feeds(node, own_inputs))
        arriving = {**weights, **{name: stream.candidate for name, stream in streams.items()}}
        if self._plan.is_lowered(node):
            arriving = self._pairs.feeds(node, arriving)
        candidates = self._runner.run(node, arriving)
        referenced = ReferenceRun(node, weights, streams, inputs, outputs)
        made = self._streams(referenced, candidates)
        if self._quantized.carries(node):
            pairs = zip(node.outputs, own, strict=True)
            self._own.update((name, value) for name, value in pairs if name and value is not None)
            node_run = NodeRun(node, inputs, outputs)
        else:
            node_run = self._measured(referenced, own, candidates, arriving)
        for name in self._graph.last_uses.get(node.index, ()):
            self._own.pop(name, None)
        return NodeResult(made, lambda: node_run)

    def run_candidate(self, node: Node, tensors: Mapping[str, Streams]) -> list[Streams | None]:
        """As `NodeComparer.run_candidate`."""
        if node.branches or not self._quantized.is_quantized(node):
            return super().run_candidate(node, tensors)
        weights = self._weights.load(node)
        arriving = {n: weights[n] if n in weights else tensors[n].candidate for n in node.sources}
        if self._plan.is_lowered(node):
            arriving = self._pairs.feeds(node, arriving)
        outputs = self._runner.run(node, arriving)
        return [None if o is None else Streams(o, o, o) for o in outputs]

    def _note_fits(self, node: Node, inputs: Mapping[str, ort.OrtValue]) -> None:
        for name, chain in self._quantized.chains_of(node).items():
            pair = chain[0]
            if pair.is_weight or pair.name in self._fits:
                continue
            values = value_of(inputs[name])
            self._fits[pair.name] = fit_of(
                values,
                pair.limits(values.shape),
                largest_step=pair.largest_step,
                has_even_steps=pair.has_even_steps,
                channel_axis=_channel_axis(node, values.ndim, pair.axis),
            )

    def _streams(self, referenced: ReferenceRun, candidates: Outputs) -> list[Streams | None]:
        made: list[Streams | None] = []
        for reference, candidate in zip(referenced.outputs, candidates, strict=True):
            if reference is None or candidate is None:
                made.append(None)
                continue
            largest = largest_finite(value_of(reference)) if is_float(reference) else 0.0
            made.append(
                Streams(
                    reference,
                    candidate,
                    reference,
                    constant=referenced.node.is_constant,
                    computed=not referenced.node.is_constant,
                    max_abs=largest,
                    nonfinite_from=self._bad(referenced.node, candidate),
                )
            )
        return made

    def _bad(self, node: Node, candidate: ort.OrtValue) -> int | None:
        if not is_float(candidate) or is_all_true(np.isfinite(value_of(candidate))):
            return None
        return node.index

    def _measured(
        self,
        referenced: ReferenceRun,
        own: Outputs,
        candidates: Outputs,
        arriving: Mapping[str, ort.OrtValue],
    ) -> NodeRun:
        node, outputs = referenced.node, referenced.outputs
        sums = DivergenceSums()
        errors: dict[str, CompactErrors] = {}
        for name, reference, introduced, candidate in zip(
            node.outputs, outputs, own, candidates, strict=True
        ):
            if reference is None or introduced is None or candidate is None:
                continue
            if not is_float(reference):
                continue
            exact, inexact = value_of(reference), value_of(introduced)
            if self._errors is not None:
                errors[name] = self._errors.take(exact)
            sums += measure_divergence(
                exact,
                value_of(candidate),
                precision=self._precision,
                introduced=inexact,
                introduced_rounded=inexact,
                round_candidate=False,
                compact_errors=errors.get(name),
            )
        return NodeRun(
            node,
            referenced.inputs,
            outputs,
            own,
            sums,
            max_abs_input=referenced.max_abs_input,
            gains=self._gains.in_fp32(referenced),
            step_gain=step_gain(node, referenced.inputs, arriving, outputs, candidates),
            errors=errors,
        )


def _channel_axis(node: Node, rank: int, axis: int | None) -> int | None:
    """Axis of the channels of what a node takes: that of the scale, or as its operator has it."""
    if axis is not None:
        return axis
    if rank < 2:
        return None
    by_position = "Conv" in node.op_type or "Pool" in node.op_type or "Norm" in node.op_type
    return 1 if by_position or rank == 4 else rank - 1
