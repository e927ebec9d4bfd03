"""A device whose memory the host cannot read and whose arrays are foreign: a GPU without one.

What lies on it is, to the host, a tensor of the same shape and type full of NaN.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

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
        self.name = "a stand-in"
        self._free_bytes = free_bytes
        self._lacks = lacks
        self._memory: WeakKeyDictionary[ort.OrtValue, ort.OrtValue] = WeakKeyDictionary()
        self.weights = DeviceWeights(free_bytes)
        self.host_nodes: dict[str, str] = {}
        self.runs = 0
        self.releases = 0

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
        return tensor in self._memory

    def array_of(self, tensor: ort.OrtValue) -> Any:
        array = ForeignArray(self._memory[tensor].numpy())
        array.owner = tensor  # type: ignore[attr-defined]
        return array

    def tensor_of(self, array: ForeignArray) -> ort.OrtValue:
        return self.hidden(ort.OrtValue.ortvalue_from_numpy(array.values))

    def array_from(self, values: np.ndarray[Any, Any]) -> Any:
        return ForeignArray(np.array(values, order="C"))

    def free_bytes(self) -> int:
        return self._free_bytes

    def release(self) -> None:
        self.releases += 1

    @contextmanager
    def entered(self) -> Iterator[None]:
        with foreign_arrays():
            yield

    def hidden(self, tensor: ort.OrtValue) -> ort.OrtValue:
        """What the host sees of a tensor that lies here."""
        dtype = tensor.numpy().dtype
        values = np.full(tensor.shape(), np.nan if dtype.kind == "f" else 1, dtype)
        seen = ort.OrtValue.ortvalue_from_numpy(values)
        self._memory[seen] = tensor
        return seen

    def shown(self, tensor: ort.OrtValue) -> ort.OrtValue:
        """What lies here, of what the host sees; a tensor of the host as it is."""
        return self._memory.get(tensor, tensor)


@contextmanager
def on_standin_device(device: StandInDevice) -> Iterator[None]:
    """Has nodes run on it within the block."""
    with on_device(device):
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
        self.real.bind_ortvalue_input(name, self._device.shown(tensor))

    def bind_output(self, name: str) -> None:
        self._names.append(name)
        self.real.bind_output(name)

    def get_outputs(self) -> list[ort.OrtValue]:
        return [
            self._device.hidden(output)
            if name in self.there and output.data_type().startswith("tensor")
            else output
            for name, output in zip(self._names, self.real.get_outputs(), strict=True)
        ]
