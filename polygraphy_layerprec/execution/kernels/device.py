"""Where nodes run and tensors lie: on the host, or on a device that was chosen around the call.

On a device every tensor of FP32 and FP64 lies there; others lie where they were made. So a node is
run on the device where it takes such a tensor, and shapes and indices stay on the host.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from polygraphy_layerprec.divergence.activation_store import half_of_free_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnxruntime as ort

    from polygraphy_layerprec.execution.kernels.device_weights import DeviceWeights

__all__ = [
    "Device",
    "current_device",
    "is_placed_there",
    "memory_for_activations",
    "on_device",
    "on_the_host",
]

_SHARE: Final = 0.4
"""Of a device, on which as much is set aside for weights."""
_FLOATS: Final = (np.dtype(np.float32), np.dtype(np.float64))


class Device(Protocol):
    """What runs nodes and holds tensors."""

    weights: DeviceWeights
    """Constants that lie there."""

    def create_session(self, model: bytes) -> ort.InferenceSession:
        """Returns a session that runs all of a small model on the device, or raises."""
        ...

    def bind_output(self, binding: ort.IOBinding, name: str) -> None:
        """Has a session leave an output on the device."""
        ...

    def holds(self, tensor: ort.OrtValue) -> bool:
        """Whether a value lies on the device."""
        ...

    def array_of(self, tensor: ort.OrtValue) -> Any:
        """Returns the elements of a tensor that lies there, in its own memory."""
        ...

    def tensor_of(self, array: Any) -> ort.OrtValue:
        """Returns ONNX-Runtime's view of an array that lies there."""
        ...

    def array_from(self, values: np.ndarray[Any, Any]) -> Any:
        """Returns a copy of a numpy array on the device."""
        ...

    def free_bytes(self) -> int:
        """Returns how much memory it has left."""
        ...

    def ran_on_host(self, node_name: str, reason: str) -> None:
        """Notes a node that the device cannot run."""
        ...


_CURRENT: Final[ContextVar[Device | None]] = ContextVar("device", default=None)


def current_device() -> Device | None:
    """Returns the device that nodes run on here; None for the host."""
    return _CURRENT.get()


def memory_for_activations() -> int | None:
    """Returns the bytes that activations may take where nodes run: some half of what is free."""
    device = _CURRENT.get()
    return half_of_free_memory() if device is None else int(device.free_bytes() * _SHARE)


@contextmanager
def on_device(device: Device | None) -> Iterator[None]:
    """Has nodes run on a device within the block; on the host if it is None."""
    before = _CURRENT.set(device)
    try:
        yield
    finally:
        _CURRENT.reset(before)


def on_the_host() -> Any:
    """Has nodes run on the host within the block, whatever is chosen around it."""
    return on_device(None)


def is_placed_there(dtype: np.dtype[Any]) -> bool:
    """Whether tensors of a type always lie on the device, where there is one."""
    return dtype in _FLOATS
