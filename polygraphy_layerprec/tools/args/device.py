"""Options about what runs the emulation: the CPU, or a GPU."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from polygraphy.tools.args import util as args_util
from polygraphy.tools.args.base import BaseArgs

from polygraphy_layerprec._native import G_LOGGER, export
from polygraphy_layerprec.backend.emulated.placement import (
    open_device,
    running_on,
    tell_what_is_left,
    unknown_providers,
    wants_gpu,
)
from polygraphy_layerprec.backend.engines.tensorrt_module import count_gpus
from polygraphy_layerprec.terminal_output import wrapped

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

__all__ = ["DeviceArgs"]

_UNUSED: Final = (
    "A GPU is there and was not used: `--providers cuda` has it run the model, which is faster for "
    "large models and batches. It needs onnxruntime-gpu in place of onnxruntime, and CuPy."
)


@export()
class DeviceArgs(BaseArgs):
    """
    Device: choosing what runs the model in FP32 and in emulated low precision.
    """

    def add_parser_args_impl(self) -> None:
        """Declares the options."""
        self.group.add_argument(
            "--providers",
            "--execution-providers",
            dest="providers",
            metavar="NAME",
            help="What runs the model, by the names of ONNX-Runtime's execution providers or parts "
            "of them: {'cpu'; 'cuda': a GPU, with onnxruntime-gpu and CuPy; what it lacks is run "
            "on the CPU}. For example: --providers cuda. Defaults to cpu.",
            nargs="+",
            default=None,
        )

    def parse_impl(self, args: argparse.Namespace) -> None:
        """
        Parses command-line arguments and populates the following attributes:

        Attributes:
            providers (List[str]): Names of execution providers, or None.
        """
        self.providers = args_util.get(args, "providers")

        unknown = unknown_providers(self.providers)
        if unknown:
            G_LOGGER.critical(
                f"`--providers` takes cpu and cuda here, got: {unknown[0]!r}.\n"
                f"Note: Engines of TensorRT are run by `--backend tensorrt`."
            )

    @property
    def is_gpu(self) -> bool:
        """Whether a GPU is to run the model."""
        return wants_gpu(self.providers)

    def refuse_without_model(self) -> None:
        """Stops where the option was given and there is no model to run."""
        if self.providers is not None:
            G_LOGGER.critical(
                "`--providers` says what runs the model, and no model was given.\n"
                "Give it with `--model`, and its inputs, or leave out `--providers`."
            )

    @contextlib.contextmanager
    def running(
        self, *, memory_bytes: int | None = None, uses_engines: bool = False
    ) -> Iterator[None]:
        """Has the model run where it was asked for within the block.

        At the end of it, says what did not run on a GPU; or that a GPU is there, unused.

        Args:
            memory_bytes: Memory of a GPU for weights and activations; None for what is free.
            uses_engines: Whether engines use the GPU.

        Raises:
            UserError: If there is no GPU that can be used, or its memory does not suffice.
        """
        device = open_device(self.providers, memory_bytes=memory_bytes)
        with running_on(device):
            yield
        tell_what_is_left(device)
        if self.providers is None and not uses_engines and count_gpus():
            G_LOGGER.info(wrapped(_UNUSED))
