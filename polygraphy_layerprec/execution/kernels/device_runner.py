"""Runs the nodes of a graph on a device, and those that it lacks on the host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from polygraphy_layerprec.arrays import on_host
from polygraphy_layerprec.execution.errors import NodeError
from polygraphy_layerprec.execution.kernels.device import current_device
from polygraphy_layerprec.execution.kernels.node_session import NodeRunner
from polygraphy_layerprec.execution.kernels.ort_tensors import placed, tensor_of, value_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnxruntime as ort

    from polygraphy_layerprec.execution.kernels.device import Device
    from polygraphy_layerprec.model import Graph, Node

__all__ = ["Runner", "fetched", "runner_of"]


_FLOAT_TYPES: Final = frozenset({"tensor(float)", "tensor(double)"})
_NO_MEMORY: Final = ("failed to allocate memory", "out of memory")
"""Of a device, in ONNX-Runtime's words."""


class Runner(Protocol):
    """Runs single nodes of a graph: see `NodeRunner`."""

    def run(self, node: Node, feeds: Mapping[str, ort.OrtValue]) -> list[ort.OrtValue | None]:
        """Returns the node's outputs, None for those that are absent."""
        ...


def runner_of(graph: Graph) -> Runner:
    """Returns what runs the nodes of a graph on what is chosen around the call."""
    device = current_device()
    return NodeRunner(graph) if device is None else _DeviceRunner(graph, device)


def fetched(tensor: ort.OrtValue) -> ort.OrtValue:
    """Returns a tensor that lies on the host: itself, or a copy."""
    device = current_device()
    if device is None or not _is_tensor(tensor) or not device.holds(tensor):
        return tensor
    return tensor_of(on_host(value_of(tensor)))


class _DeviceRunner:
    def __init__(self, graph: Graph, device: Device) -> None:
        self._device = device
        self._there = NodeRunner(graph, device)
        self._here = NodeRunner(graph)
        self._lacking: set[int] = set()

    def run(self, node: Node, feeds: Mapping[str, ort.OrtValue]) -> list[ort.OrtValue | None]:
        if node.index in self._lacking or not self._suits(feeds):
            return self._run_here(node, feeds)
        try:
            return self._run_there(node, feeds)
        except NodeError as error:
            outputs = self._run_here(node, feeds)  # where it fails for what is wrong with itself
            self._lacking.add(node.index)
            self._device.host_nodes[node.name] = str(error)
            return outputs

    def _run_there(
        self, node: Node, feeds: Mapping[str, ort.OrtValue]
    ) -> list[ort.OrtValue | None]:
        there = {name: placed(feed) for name, feed in feeds.items()}
        try:
            return self._there.run(node, there)
        except NodeError as error:
            if not any(words in str(error).lower() for words in _NO_MEMORY):
                raise
            self._device.release()
            return self._there.run(node, there)

    def _suits(self, feeds: Mapping[str, ort.OrtValue]) -> bool:
        """Whether a node takes tensors alone, and one that lies on the device."""
        if not all(_is_tensor(feed) for feed in feeds.values()):
            return False
        return any(
            feed.data_type() in _FLOAT_TYPES or self._device.holds(feed) for feed in feeds.values()
        )

    def _run_here(self, node: Node, feeds: Mapping[str, ort.OrtValue]) -> list[ort.OrtValue | None]:
        outputs = self._here.run(node, {name: fetched(feed) for name, feed in feeds.items()})
        return [None if output is None else placed(output) for output in outputs]


def _is_tensor(value: ort.OrtValue) -> bool:
    kind: str = value.data_type()
    return kind.startswith("tensor") and kind != "tensor(string)"
