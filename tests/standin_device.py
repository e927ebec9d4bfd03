"""A device whose memory is the host's and whose arrays are foreign: a GPU's path without one."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np
import onnxruntime as ort

from polygraphy_layerprec.execution.kernels.device import on_device
from polygraphy_layerprec.execution.kernels.device_weights import DeviceWeights
from polygraphy_layerprec.execution.kernels.sessions import create_session
from tests.foreign_arrays import ForeignArray, foreign_arrays

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["StandInDevice", "on_standin_device"]


class StandInDevice:
    """Runs nodes by ONNX-Runtime's CPU kernels, and knows which tensors lie on it."""

    def __init__(self, *, free_bytes: int = 1 << 30, lacks: tuple[str, ...] = ()) -> None:
        self._free_bytes = free_bytes
        self._lacks = lacks
        self._there: WeakSet[ort.OrtValue] = WeakSet()
        self.weights = DeviceWeights(free_bytes)
        self.host_nodes: dict[str, str] = {}
        self.runs = 0

    def create_session(self, model: bytes) -> Any:
        import onnx

        operator = onnx.load_from_string(model).graph.node[0].op_type
        if operator in self._lacks:
            raise RuntimeError(f"no kernel for {operator}")
        return _Session(create_session(model), self)

    def bind_output(self, binding: Any, name: str) -> None:
        binding.bind_output(name)
        binding.there.append(name)

    def holds(self, tensor: ort.OrtValue) -> bool:
        return tensor in self._there

    def array_of(self, tensor: ort.OrtValue) -> Any:
        array = ForeignArray(tensor.numpy())
        array.owner = tensor  # type: ignore[attr-defined]
        return array

    def tensor_of(self, array: ForeignArray) -> ort.OrtValue:
        tensor = ort.OrtValue.ortvalue_from_numpy(array.values)
        self._there.add(tensor)
        return tensor

    def array_from(self, values: np.ndarray[Any, Any]) -> Any:
        return ForeignArray(np.array(values, order="C"))

    def free_bytes(self) -> int:
        return self._free_bytes

    def ran_on_host(self, node_name: str, reason: str) -> None:
        self.host_nodes[node_name] = reason

    def mark(self, tensor: ort.OrtValue) -> None:
        self._there.add(tensor)


@contextmanager
def on_standin_device(device: StandInDevice) -> Iterator[None]:
    """Has nodes run on it within the block."""
    with foreign_arrays(), on_device(device):
        yield


class _Session:
    def __init__(self, session: ort.InferenceSession, device: StandInDevice) -> None:
        self._session, self._device = session, device

    def io_binding(self) -> _Binding:
        return _Binding(self._session.io_binding(), self._device)

    def run_with_iobinding(self, binding: _Binding, options: ort.RunOptions) -> None:
        self._device.runs += 1
        self._session.run_with_iobinding(binding.real, options)


class _Binding:
    def __init__(self, real: ort.IOBinding, device: StandInDevice) -> None:
        self.real, self._device = real, device
        self.there: list[str] = []
        self._names: list[str] = []

    def bind_ortvalue_input(self, name: str, tensor: ort.OrtValue) -> None:
        self.real.bind_ortvalue_input(name, tensor)

    def bind_output(self, name: str) -> None:
        self._names.append(name)
        self.real.bind_output(name)

    def get_outputs(self) -> list[ort.OrtValue]:
        outputs = self.real.get_outputs()
        for name, output in zip(self._names, outputs, strict=True):
            if name in self.there and output.data_type().startswith("tensor"):
                self._device.mark(output)
        return outputs
