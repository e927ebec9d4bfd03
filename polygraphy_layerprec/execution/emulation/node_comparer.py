"""One node in reference, candidate and introduced error, reduced to sums."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from polygraphy_layerprec.arrays import is_all_true
from polygraphy_layerprec.divergence.compact_errors import ErrorMemory
from polygraphy_layerprec.execution.background import works_beside
from polygraphy_layerprec.execution.emulation.branches import join_branches
from polygraphy_layerprec.execution.emulation.layer_outputs import LayerOutputs, OutputFacts
from polygraphy_layerprec.execution.emulation.low_feeds import LowFeeds
from polygraphy_layerprec.execution.emulation.lowered_nodes import LoweredNodes
from polygraphy_layerprec.execution.emulation.node_gains import GainMeasurer, candidates_of
from polygraphy_layerprec.execution.emulation.node_run import NodeResult, NodeRun
from polygraphy_layerprec.execution.emulation.reference_run import ReferenceRun
from polygraphy_layerprec.execution.kernels.cast_rounding import CastRounder
from polygraphy_layerprec.execution.kernels.device_runner import runner_of
from polygraphy_layerprec.execution.kernels.node_session import tensor_of, value_of
from polygraphy_layerprec.execution.kernels.row_lookup import narrow_lookup
from polygraphy_layerprec.execution.kernels.weights_on_device import weights_of
from polygraphy_layerprec.execution.probes.accumulation import sum_of_terms
from polygraphy_layerprec.execution.probes.decisions import count_flipped
from polygraphy_layerprec.execution.probes.saturation import carry_overflows
from polygraphy_layerprec.execution.probes.step_gain import step_gain
from polygraphy_layerprec.execution.streams import (
    Streams,
    hands_on_fed,
    is_float,
    largest_finite,
    rounded_tensor,
    streams_of,
    union_of_overflows,
)
from polygraphy_layerprec.model import Role
from polygraphy_layerprec.plan.widths import Width, reads_of

if TYPE_CHECKING:
    import onnxruntime as ort

    from polygraphy_layerprec.divergence.compact_errors import CompactErrors
    from polygraphy_layerprec.divergence.metrics import DivergenceSums
    from polygraphy_layerprec.divergence.pair_fit import PairFit
    from polygraphy_layerprec.execution.kernels.weights_ahead import WeightsAhead
    from polygraphy_layerprec.model import Node
    from polygraphy_layerprec.plan.widths import Plan

__all__ = ["NodeComparer", "NodeRun"]


class NodeComparer:
    """Runs the nodes of one graph, one after the other, as a plan says."""

    def __init__(
        self,
        plan: Plan,
        *,
        needs_gains: Callable[[Node], bool],
        keep_errors: bool,
        ahead: WeightsAhead | None = None,
    ) -> None:
        self._plan = plan
        self._graph = plan.graph
        self._precision = plan.precision
        self._errors = ErrorMemory() if keep_errors else None
        self._rounder = CastRounder(plan.precision)
        self._runner = runner_of(plan.graph)
        self._gains = GainMeasurer(self._runner, plan.precision, needs_gains=needs_gains)
        self._weights = weights_of(plan.graph, ahead)
        self._lowered = LoweredNodes(plan.graph, plan.precision, self._runner, self._weights)

    def start(self) -> None:
        """Begins a sample."""
        self._weights.start()
        if self._errors is not None:
            self._errors = ErrorMemory()

    def compare(self, node: Node, tensors: Mapping[str, Streams]) -> NodeResult:
        """Returns what comes of a node.

        Args:
            node: The node.
            tensors: The streams of its sources; weights are read here.

        Raises:
            NodeError: If it cannot run.
        """
        if node.branches:
            node_run, joined = join_branches(self._graph, node, tensors)
            return _finished(joined, node_run)
        weights, streams = self._load(node, tensors)
        inputs = {**weights, **{name: stream.reference for name, stream in streams.items()}}
        outputs = self._runner.run(node, inputs)
        referenced = ReferenceRun(node, weights, streams, inputs, outputs)
        if node.is_constant:
            return _finished(
                [_constant(output) for output in outputs], NodeRun(node, inputs, outputs)
            )
        if not (node.is_layer and self._plan.is_lowered(node)):
            return self._pass_on(referenced)
        return self._measure(referenced)

    def take_fits(self) -> dict[str, PairFit]:
        """Returns how the scales of a quantised model fit the values of one sample: here none."""
        return {}

    def run_candidate(self, node: Node, tensors: Mapping[str, Streams]) -> list[Streams | None]:
        """Returns the streams of a node that the candidate alone runs: its branch was not taken.

        Raises:
            NodeError: If it cannot run.
        """
        if node.branches:
            return join_branches(self._graph, node, tensors)[1]
        weights, streams = self._load(node, tensors)
        feeds = {**weights, **candidates_of(streams)}
        if self._plan.is_lowered(node):
            feeds |= self._lowered.low_weights(node, self._plan, weights)[0]
            feeds |= self._entering(node, streams)
            outputs = self._lowered.run(node, self._plan, feeds)
        else:
            outputs = self._runner.run(node, feeds)
        rounds = node.is_layer and self._plan.is_lowered(node)
        made = [
            o if o is None or not rounds else rounded_tensor(o, self._precision) for o in outputs
        ]
        return streams_of(made, made, made)

    def _load(
        self, node: Node, tensors: Mapping[str, Streams]
    ) -> tuple[dict[str, ort.OrtValue], dict[str, Streams]]:
        """The node's constants and the streams of its other sources."""

        def shared(name: str) -> ort.OrtValue | None:
            stream = tensors.get(name)
            return stream.reference if stream is not None and stream.shared else None

        narrowed = narrow_lookup(self._graph, node, shared)
        if narrowed is not None:
            rows, places = narrowed
            weights = {node.inputs[0]: self._weights.hold(node.inputs[0], rows)}
            return weights, {node.inputs[1]: Streams(places, places, places)}
        weights = self._weights.load(node)
        return weights, {name: tensors[name] for name in node.sources if name not in weights}

    def _entering(self, node: Node, streams: Mapping[str, Streams]) -> dict[str, ort.OrtValue]:
        """The candidate's inputs, those cast that the plan casts."""
        widths = dict(reads_of(node, self._plan.of(node)))
        return {
            name: stream.enter(self._precision)
            if widths.get(name) is Width.LOW and not self._plan.is_low(name)
            else stream.candidate
            for name, stream in streams.items()
        }

    def _pass_on(self, referenced: ReferenceRun) -> NodeResult:
        node, streams, outputs = referenced.node, referenced.streams, referenced.outputs
        candidates, saturated = outputs, outputs
        overflows = union_of_overflows(streams)
        if overflows and not referenced.is_random:
            moved = {name: stream.saturated for name, stream in streams.items()}
            saturated = self._runner.run(node, {**referenced.weights, **moved})
        entering = self._entering(node, streams)
        low_weights: Mapping[str, ort.OrtValue] = {}
        if self._plan.is_lowered(node):
            low_weights, _ = self._lowered.low_weights(node, self._plan, referenced.weights)
        moved_on = any(entering[name] is not streams[name].reference for name in streams)
        if (moved_on or low_weights) and not referenced.is_random:
            feeds = {**referenced.weights, **low_weights, **entering}
            candidates = self._runner.run(node, feeds)
        floats = [stream for stream in streams.values() if is_float(stream.reference)]
        float_weights = any(is_float(weight) for weight in referenced.weights.values())
        moves = bool(floats) and not float_weights and node.role is Role.EXACT
        made = streams_of(outputs, candidates, saturated)
        for stream in filter(None, made):
            # What computes in FP32 hands on values that nothing clips.
            stream.computed = node.is_layer or any(s.computed for s in streams.values())
            stream.fed = hands_on_fed(node, floats) or node.role in (Role.APART, Role.LAYER)
            stream.max_abs = referenced.max_abs_input if moves else _largest(stream.reference)
            stream.overflows = overflows
            stream.nonfinite_from = _still_nonfinite(stream.candidate, referenced.nonfinite_from)
        gains = self._gains.in_fp32(referenced, candidates)
        arriving = {**referenced.inputs, **candidates_of(streams)}
        steps = step_gain(node, referenced.inputs, arriving, outputs, candidates)
        flipped = 0 if candidates is outputs else count_flipped(node, outputs, candidates)
        node_run = NodeRun(
            node,
            referenced.inputs,
            outputs,
            gains=gains,
            step_gain=steps,
            flipped_count=flipped,
        )
        return _finished(made, node_run)

    def _measure(self, referenced: ReferenceRun) -> NodeResult:
        node, streams, outputs = referenced.node, referenced.streams, referenced.outputs
        terms = sum_of_terms(
            self._runner, node, referenced.inputs, self._largest_of(streams), self._precision
        )
        feeds, largest_weight = self._low_feeds(referenced)
        run = partial(self._lowered.run, node, self._plan)
        rounds_inside = self._lowered.rounds_inside(node)
        introduced = run(feeds.own) if feeds.are_changed or rounds_inside else None
        own = introduced or outputs
        # In memory of their own, since they are rounded in place.
        candidates = (
            run(feeds.arriving)
            if feeds.differ
            else [None if o is None else _copied(o) for o in own]
        )
        if rounds_inside:
            # Rounding within would hide an error as small as that which arrives.
            gains = self._gains.in_fp32(referenced)
        else:
            gains = self._gains.measured(
                referenced, feeds.own, feeds.entering, own, candidates, run
            )
        steps = step_gain(
            node, {**feeds.weights, **referenced.inputs}, feeds.arriving, outputs, candidates
        )
        widths = self._plan.of(node).outputs
        compared = LayerOutputs(
            node.outputs, widths, self._rounder, outputs, introduced, candidates
        )
        measure, facts = self._seen(compared)
        carried = carry_overflows(
            run,
            referenced,
            feeds.arriving,
            self._precision,
            overflows_here=facts.max_abs >= self._precision.overflow_threshold,
        )
        bad = facts.has_nonfinite

        def finish() -> NodeRun:
            sums, errors = measure()
            return NodeRun(
                node,
                referenced.inputs,
                outputs,
                introduced,
                sums,
                max_abs_input=max(referenced.max_abs_input, largest_weight),
                largest_sum_of_terms=terms,
                harmful_overflows=carried.harmful,
                nonfinite_from=referenced.nonfinite_from if bad else None,
                gains=gains,
                step_gain=steps,
                errors=errors,
            )

        made = streams_of(outputs, compared.candidates, carried.outputs)
        for stream in filter(None, made):
            stream.computed = True
            stream.max_abs = facts.max_abs
            untouched = stream.saturated is stream.reference
            stream.overflows = frozenset() if untouched else carried.overflows
            stream.nonfinite_from = node.index if bad else None
        return NodeResult(made, finish, compared.nbytes)

    def _low_feeds(self, referenced: ReferenceRun) -> tuple[LowFeeds, float]:
        """What the layer takes in low precision, and the largest magnitude among its weights."""
        node, streams = referenced.node, referenced.streams
        rounded, largest = self._lowered.low_weights(node, self._plan, referenced.weights)
        entering = self._entering(node, streams)
        # What no layer made is rounded by the layer that takes it, as its weights are.
        exact = {
            name: stream.reference if stream.computed else entering[name]
            for name, stream in streams.items()
        }
        feeds = LowFeeds(
            {**referenced.weights, **rounded},
            exact,
            entering,
            are_changed=bool(rounded)
            or any(exact[name] is not streams[name].reference for name in exact),
        )
        return feeds, largest

    def _seen(
        self, compared: LayerOutputs
    ) -> tuple[Callable[[], tuple[DivergenceSums, dict[str, CompactErrors]]], OutputFacts]:
        """What sums up the outputs of a layer, and what has to be known of them at once."""
        if works_beside():
            return partial(compared.measure, self._errors), compared.facts()
        # A look is saved, and every look at a device waits for it.
        measured = compared.measure(self._errors)
        return lambda: measured, OutputFacts.of(measured[0])

    def _largest_of(self, streams: Mapping[str, Streams]) -> Callable[[str], float]:
        return lambda n: streams[n].max_abs if n in streams else self._weights.largest(n)


def _finished(streams: list[Streams | None], node_run: NodeRun) -> NodeResult:
    return NodeResult(streams, lambda: node_run)


def _constant(output: ort.OrtValue | None) -> Streams | None:
    if output is None:
        return None
    return Streams(output, output, output, constant=True, max_abs=_largest(output))


def _copied(tensor: ort.OrtValue) -> ort.OrtValue:
    return tensor_of(value_of(tensor).copy()) if is_float(tensor) else tensor


def _largest(tensor: ort.OrtValue) -> float:
    return largest_finite(value_of(tensor)) if is_float(tensor) else 0.0


def _still_nonfinite(candidate: ort.OrtValue, origin: int | None) -> int | None:
    if origin is None or not is_float(candidate):
        return None
    return None if is_all_true(np.isfinite(value_of(candidate))) else origin
