"""From what each node did with a sample to what its error does at the outputs, in two ways."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraphy_layerprec.divergence.adjoint import AdjointImpacts
from polygraphy_layerprec.divergence.caveats import Caveat, CaveatTrail, of_layer
from polygraphy_layerprec.divergence.gain import NodeGains, output_gains, reader_shares
from polygraphy_layerprec.divergence.loss import Loss, loss_seeds
from polygraphy_layerprec.divergence.probes import (
    output_scales,
    probe_count,
    spanning_seeds,
    target_seeds,
)
from polygraphy_layerprec.execution.comparison.tape_recorder import TapeRecorder, tensors_of
from polygraphy_layerprec.execution.kernels.device import current_device
from polygraphy_layerprec.execution.probes.integer_gains import gains_by_rule
from polygraphy_layerprec.model.quantized import QuantizedGraph

if TYPE_CHECKING:
    from polygraphy_layerprec.divergence.probes import Target
    from polygraphy_layerprec.execution.comparison.observation import LayerObservations
    from polygraphy_layerprec.execution.emulation.node_comparer import NodeRun
    from polygraphy_layerprec.execution.kernels.weights_ahead import WeightsAhead
    from polygraphy_layerprec.execution.probes.error_paths import ErrorPaths, NodePaths
    from polygraphy_layerprec.model import Graph, Node

__all__ = ["AdjointSpread", "GainSpread"]

Sample = Mapping[str, np.ndarray[Any, Any]]


class AdjointSpread:
    """Impacts by a backward sweep after each sample."""

    def __init__(
        self,
        graph: Graph,
        paths: ErrorPaths,
        budget_bytes: int | None,
        loss: Loss | None,
        ahead: WeightsAhead | None = None,
    ) -> None:
        self._recorder = TapeRecorder(graph, paths, budget_bytes=budget_bytes, ahead=ahead)
        self._loss = loss
        # Rounding to FP16 has other signs in every sample; weights that are quantised have not,
        # and steps this coarse go together.
        self._keeps_signs = isinstance(graph, QuantizedGraph)

    def add(self, node_run: NodeRun) -> None:
        """Adds what one node did."""
        self._recorder.record(node_run)

    def add_impacts(
        self, observations: LayerObservations, reference: Sample, *, sample: int
    ) -> None:
        """Adds the impacts that follow to the observations of a sample, and forgets the nodes.

        Args:
            observations: What the layers did with it.
            reference: Reference outputs that count.
            sample: Its index in the data set.
        """
        targets = self._recorder.targets(reference)
        spanning: list[dict[str, np.ndarray[Any, Any]]] = []
        if self._loss is None:
            # Of the sample, not of the run: any split gives the same.
            rng = np.random.default_rng(sample)
            shapes = [target.shape for target in targets.values()]
            count = probe_count(shapes, work=self._recorder.sweep_work)
            spanning = spanning_seeds(targets, most=count) if self._keeps_signs else []
            probes = spanning or [target_seeds(targets, rng=rng) for _ in range(count)]
        else:
            probes = [loss_seeds(self._loss, reference)]
            observations.saw_gradient |= any(np.any(seed) for seed in probes[0].values())
        decisions = {name: target.decision for name, target in targets.items() if target.decision}
        placed = [{name: _placed(seed) for name, seed in probe.items()} for probe in probes]
        impacts = self._recorder.tape.sweep(
            *placed, decisions=decisions, are_spanning=bool(spanning)
        )
        self._recorder.finish()
        observations.add_impacts(impacts, sample=sample, judged=_elements(probes[0]))


def _placed(seed: np.ndarray[Any, Any]) -> Any:
    device = current_device()
    return seed if device is None else device.array_from(seed)


def _elements(arrays: Sample) -> int:
    return sum(array.size for array in arrays.values())


class GainSpread:
    """Impacts from scalar gains, composed backwards after each sample."""

    def __init__(self, paths: ErrorPaths) -> None:
        self._paths = paths
        self._nodes: list[NodeGains] = []
        self._followed: list[tuple[Node, bool, NodePaths, list[str]]] = []
        self._introduced: dict[int, tuple[tuple[str, ...], float]] = {}

    def add(self, node_run: NodeRun) -> None:
        """Adds what one node did."""
        node = node_run.node
        layer = None if node_run.sums is None else node.index
        tensors = tensors_of(node_run)
        paths = self._paths.follow(node, tensors, is_layer=layer is not None)
        arriving = [*(node.inputs[i] for i in paths.wanted)]
        arriving += [node.captures[i] for i in paths.captured]
        # What no probe measures moves values, and keeps the norm of an error.
        gains = {**dict.fromkeys(arriving, 1.0), **node_run.gains}
        by_rule = {
            name: gain * node_run.step_gain
            for name, gain in gains_by_rule(node, paths, tensors).items()
        }
        # Beside integers there are scales and zero points, whose errors undo themselves.
        outputs = node.outputs[:1] if by_rule else node.outputs
        self._nodes.append(NodeGains({**gains, **by_rule}, outputs, layer))
        self._followed.append((node, layer is not None, paths, arriving))
        if node_run.sums is not None:
            self._introduced[node.index] = (node.outputs, node_run.sums.introduced_power)

    def add_impacts(
        self, observations: LayerObservations, reference: Sample, *, sample: int
    ) -> None:
        """As `AdjointSpread.add_impacts`."""
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
        judged = sum(math.prod(targets[name].shape) for name in scales)
        observations.add_impacts(impacts, sample=sample, judged=judged)
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
