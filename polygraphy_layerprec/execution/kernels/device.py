"""Where nodes run and tensors lie: on the host, or on a device that was chosen around the call.

On a device every tensor of FP32 and FP64 lies there; others lie where they were made. So a node is
run on the device where it takes such a tensor, and shapes and indices stay on the host.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from polygraphy_layerprec.divergence.activation_store import half_of_free_memory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    import onnxruntime as ort

    from polygraphy_layerprec.execution.kernels.device_weights import DeviceWeights

__all__ = [
    "Device",
    "current_device",
    "device_name",
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

    name: str
    """What its driver calls it."""

    host_nodes: dict[str, str]
    """Names of the nodes that it cannot run, and why."""

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
        """Returns how much memory it has left, of what may be used."""
        ...

    def release(self) -> None:
        """Hands back memory that is kept for later, where another allocator ran out of it."""
        ...

    def entered(self) -> AbstractContextManager[None]:
        """Returns a context in which arrays are computed as its kernels run: in one order."""
        ...


_CURRENT: Final[ContextVar[Device | None]] = ContextVar("device", default=None)


def current_device() -> Device | None:
    """Returns the device that nodes run on here; None for the host."""
    return _CURRENT.get()


def device_name() -> str:
    """Returns the name of the device that nodes run on here; empty for the host."""
    device = _CURRENT.get()
    return "" if device is None else device.name


def memory_for_activations(limit_bytes: int | None = None) -> int | None:
    """Returns the bytes that activations may take where nodes run: some half of what is free.

    Args:
        limit_bytes: What they may take on the host, instead; a device has its own limit.
    """
    device = _CURRENT.get()
    if device is None:
        return limit_bytes or half_of_free_memory()
    return int(device.free_bytes() * _SHARE)


@contextmanager
def on_device(device: Device | None) -> Iterator[None]:
    """Has nodes run on a device within the block; on the host if it is None."""
    before = _CURRENT.set(device)
    try:
        with nullcontext() if device is None else device.entered():
            yield
    finally:
        _CURRENT.reset(before)


def on_the_host() -> Any:
    """Has nodes run on the host within the block, whatever is chosen around it."""
    return on_device(None)


def is_placed_there(dtype: np.dtype[Any]) -> bool:
    """Whether tensors of a type always lie on the device, where there is one."""
    return dtype in _FLOATS
