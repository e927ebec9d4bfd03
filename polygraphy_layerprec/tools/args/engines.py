"""Options about TensorRT engines, the same for whatever builds and runs them."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Final

from polygraphy.tools.args import TrtLoadEngineBytesArgs
from polygraphy.tools.args import util as args_util
from polygraphy.tools.args.base import BaseArgs

from polygraphy_layerprec._native import G_LOGGER
from polygraphy_layerprec.tools.args.model import OnnxGraphArgs
from polygraphy_layerprec.tools.args.output_path import check_output_path
from polygraphy_layerprec.tools.args.samples import SampleArgs
from polygraphy_layerprec.tools.engine_groups import given_options, make_engine_options

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping, Sequence

    from polygraphy_layerprec.backend.engines.session import EngineStack
    from polygraphy_layerprec.model import Graph

__all__ = ["EngineArgs"]

_QUANTISE_FIRST: Final = (
    "Two floating-point formats are compared on engines. Quantise the model first: what its pairs "
    "of QuantizeLinear and DequantizeLinear do is ranked without engines, by `--precision qdq`."
)


class EngineArgs(BaseArgs):
    """
    Engines: building and running TensorRT engines.
    """

    refused: ClassVar[Mapping[str, str]] = {
        "--int8": _QUANTISE_FIRST,
        "--fp8": _QUANTISE_FIRST,
        "--precision-constraints": "The engines set it as they need it: leave it out.",
        "--layer-precisions": "It would change the reference as well: leave it out.",
        "--tensor-dtypes": "The reference keeps the types of the model: leave it out.",
        "--strip-plan": "An engine without its weights cannot run: leave it out.",
        "--save-tactics": "Each of several engines would replace what the last one saved.",
        "--mark-debug": "Use `--outputs-from`, or `--mark-unfused-tensors-as-debug-tensors`.",
    }
    """Options of Polygraphy's that would change what is compared, and what to do instead."""

    ways_to_engines: ClassVar[str] = "`--backend tensorrt`"
    """What has engines built, in words."""

    def add_parser_args_impl(self) -> None:
        """Declares the options."""
        backend = self.group.add_mutually_exclusive_group()
        backend.add_argument(
            "--backend",
            help="What runs the model: {'emulated': ONNX-Runtime on the CPU, low precision "
            "emulated; 'tensorrt': engines that are built and run on a GPU}. "
            "For example: --backend tensorrt. Defaults to emulated.",
            choices=["emulated", "tensorrt"],
            default=None,
        )
        backend.add_argument(
            "--trt",
            help="Short for `--backend tensorrt`.",
            dest="backend",
            action="store_const",
            const="tensorrt",
        )
        self.group.add_argument(
            "--work-dir",
            metavar="PATH",
            help="Directory that keeps every engine and every result, so that a run that was "
            "stopped goes on from there, and `rank` and `verify` share their engines. It may grow "
            "to the size of all engines. For example: --work-dir engines. Defaults to a temporary "
            "one.",
            default=None,
        )

    def parse_impl(self, args: argparse.Namespace) -> None:
        """
        Parses command-line arguments and populates the following attributes:

        Attributes:
            is_wanted (bool): Whether engines are run.
            builds (bool): Whether engines are built.
            work_dir (str): Directory that keeps what was finished, or None.
        """
        self.is_wanted = args_util.get(args, "backend") == "tensorrt"
        self.work_dir = args_util.get(args, "work_dir")
        self.builds = self.is_wanted or bool(args_util.get(args, "build"))
        self._given = given_options(self.arg_groups, args)
        for option in self._given:
            if option in self.refused:
                G_LOGGER.critical(f"`{option}` cannot be used here.\n{self.refused[option]}")
        if not self.builds:
            self._check_unused(args)
            return
        path = self.arg_groups[TrtLoadEngineBytesArgs].save_timing_cache
        check_output_path(path, option="--save-timing-cache")

    def check_usable(self, precision: str) -> None:
        """Checks what engines need, before anything that takes long.

        Args:
            precision: What layers are lowered to.

        Raises:
            ExecutionError: If TensorRT is not installed, or there is no GPU to run engines on.
        """
        from polygraphy_layerprec.backend.engines.tensorrt_module import check_gpu, load_tensorrt

        for option in {"--fp16", "--bf16"}.intersection(self._given) - {f"--{precision}"}:
            G_LOGGER.critical(
                f"`{option}` asks for another precision than `--precision {precision}`.\n"
                f"Give `--precision {option[2:]}` instead."
            )
        load_tensorrt()
        if self.is_wanted:
            check_gpu()
        if self.arg_groups[OnnxGraphArgs].external_data_dir is not None:
            G_LOGGER.critical(
                "TensorRT finds external data beside the model only.\n"
                "Leave out `--external-data-dir`, and put the data files there."
            )

    @contextmanager
    def open_stack(
        self, graph: Graph, precision: str, samples: Sequence[Mapping[str, Any]] = ()
    ) -> Iterator[EngineStack]:
        """Gives what builds, keeps and runs engines; saves the timing cache in the end.

        Args:
            graph: The model.
            precision: What layers are lowered to.
            samples: What will be run. They must have gone by, for the shapes of a profile.

        Raises:
            ExecutionError: If no profile takes a sample, or the work folder cannot be used.
        """
        from polygraphy_layerprec.backend.engines.building import TensorrtEngines
        from polygraphy_layerprec.backend.engines.options import choose_profile
        from polygraphy_layerprec.backend.engines.session import EngineStack
        from polygraphy_layerprec.backend.engines.store import open_store
        from polygraphy_layerprec.verify import run_plainly

        path = self.arg_groups[OnnxGraphArgs].path
        ranges = self.arg_groups[SampleArgs].shape_ranges
        options = make_engine_options(self.arg_groups, path, ranges)
        for sample in samples:  # before anything is built that cannot take them
            choose_profile(options.profiles, sample)
        with open_store(self.work_dir) as store:
            cache = store.timing_cache_path
            engines = TensorrtEngines(graph, options, precision=precision, timing_cache_path=cache)
            yield EngineStack(engines, store, run_plainly(path))
            self._save_timing_cache(cache)

    def _check_unused(self, args: argparse.Namespace) -> None:
        own = {"--outputs-from": "outputs_from", "--work-dir": "work_dir"}
        unused = [option for option, name in own.items() if args_util.get(args, name)]
        unused += self._given
        if unused:
            G_LOGGER.critical(
                f"`{unused[0]}` is about engines, but layers are emulated.\n"
                f"Add {self.ways_to_engines}, or leave it out."
            )

    def _save_timing_cache(self, source: str) -> None:
        from polygraphy_layerprec.files.atomic_file import write_file

        path = self.arg_groups[TrtLoadEngineBytesArgs].save_timing_cache
        if path is None or not os.path.exists(source):
            return
        with open(source, "rb") as cache:
            write_file(path, lambda file: file.write(cache.read()))
        G_LOGGER.info(f"Saved the timing cache to {path}")
