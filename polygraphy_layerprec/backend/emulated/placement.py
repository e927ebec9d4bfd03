"""Where the emulation runs, by the names of ONNX-Runtime's execution providers."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from polygraphy_layerprec._native import G_LOGGER
from polygraphy_layerprec.execution.kernels.device import on_device
from polygraphy_layerprec.records.numbers import count_of
from polygraphy_layerprec.terminal_output import wrapped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from polygraphy_layerprec.execution.kernels.device import Device

__all__ = ["open_device", "running_on", "tell_what_is_left", "unknown_providers", "wants_gpu"]

_CPU: Final = "cpuexecutionprovider"
_CUDA: Final = "cudaexecutionprovider"
_MOST_LISTED: Final = 200


def wants_gpu(providers: Sequence[str] | None) -> bool:
    """Returns whether CUDA comes before the CPU among providers, whose names may be cut."""
    for name in providers or ():
        if name.lower() in _CPU:
            return False
        if name.lower() in _CUDA:
            return True
    return False


def unknown_providers(providers: Sequence[str] | None) -> list[str]:
    """Returns the names that are none of those that the emulation runs on."""
    return [name for name in providers or () if not any(name.lower() in n for n in (_CPU, _CUDA))]


def open_device(
    providers: Sequence[str] | None, *, memory_bytes: int | None = None
) -> Device | None:
    """Returns what runs the model; None for the CPU.

    Args:
        providers: Names of execution providers.
        memory_bytes: Memory of a GPU for weights and activations; None for what is free.

    Raises:
        UserError: If there is no GPU that can be used.
    """
    if not wants_gpu(providers):
        return None
    from polygraphy_layerprec.execution.kernels.cuda_setup import open_gpu  # noqa: PLC0415 - CUDA

    return open_gpu(memory_bytes=memory_bytes)


@contextmanager
def running_on(device: Device | None) -> Iterator[None]:
    """Has the model run on a device within the block; on the CPU if it is None.

    Raises:
        UserError: If the device fails, or its memory does not suffice.
    """
    if device is None:
        yield
        return
    from polygraphy_layerprec.execution.kernels.cuda_setup import device_errors  # noqa: PLC0415

    with device_errors(device), on_device(device):
        yield


def tell_what_is_left(device: Device | None) -> None:
    """Says how many nodes the device could not run, and in the verbose log, which and why."""
    if device is None:
        return
    G_LOGGER.verbose(f"Ran on {device.name}.")
    left = device.host_nodes
    if not left:
        return
    G_LOGGER.info(
        wrapped(
            f"{count_of(len(left), 'node')} ran on the CPU, for {device.name} has no kernel; "
            f"`-v` lists {'it' if len(left) == 1 else 'them'}."
        )
    )
    for name, reason in list(left.items())[:_MOST_LISTED]:
        G_LOGGER.verbose(f"On the CPU: {name!r}: {reason}")
