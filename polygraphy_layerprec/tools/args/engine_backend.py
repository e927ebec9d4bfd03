"""Options about ranking on TensorRT engines."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from polygraphy.tools.args import TrtLoadEngineBytesArgs
from polygraphy.tools.args import util as args_util
from polygraphy.tools.args.base import BaseArgs

from polygraphy_layerprec._native import G_LOGGER, export
from polygraphy_layerprec.tools.args.measure import MeasureArgs
from polygraphy_layerprec.tools.args.model import OnnxGraphArgs
from polygraphy_layerprec.tools.args.output_path import check_output_path
from polygraphy_layerprec.tools.args.samples import SampleArgs
from polygraphy_layerprec.tools.engine_groups import given_options, make_engine_options
from polygraphy_layerprec.tools.progress import progress_bar

if TYPE_CHECKING:
    import argparse

    from polygraphy_layerprec.backend.engine_options import EngineOptions
    from polygraphy_layerprec.engine_pipeline import EngineRequest
    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.records import Ranking

__all__ = ["EngineBackendArgs"]

_ELSEWHERE: Final = {
    "--int8": "Quantize the model first: a ranking compares two floating-point formats.",
    "--fp8": "Quantize the model first: a ranking compares two floating-point formats.",
    "--precision-constraints": "The engines set it as they need it: leave it out.",
    "--layer-precisions": "It would change the reference as well: leave it out.",
    "--tensor-dtypes": "The reference keeps the types of the model: leave it out.",
    "--strip-plan": "An engine without its weights cannot run: leave it out.",
    "--save-tactics": "Each of several engines would replace what the last one saved.",
    "--mark-debug": "Use `--outputs-from`, or `--mark-unfused-tensors-as-debug-tensors`.",
}
"""Options of Polygraphy's that would change what is compared, and what to do instead."""


@export()
class EngineBackendArgs(BaseArgs):
    """
    Engine Backend: measuring layers on TensorRT engines.

    Depends on:

        - ModelArgs
        - OnnxGraphArgs
        - SampleArgs
        - MeasureArgs
        - TrtConfigArgs
        - TrtOnnxFlagArgs
        - TrtLoadPluginsArgs
        - TrtLoadNetworkArgs
        - TrtLoadEngineBytesArgs
    """

    def add_parser_args_impl(self) -> None:
        """Declares the options."""
        backend = self.group.add_mutually_exclusive_group()
        backend.add_argument(
            "--backend",
            help="What measures how far layers diverge: {'emulated': ONNX-Runtime on the CPU, low "
            "precision emulated; 'tensorrt': engines that are built and run on a GPU}. "
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
            "--outputs-from",
            metavar="CHOICE",
            help="Which layers to measure on engines: `regex:PATTERN` for those whose name holds a "
            "match, `op:TYPE` for an ONNX operator, `top:NUM` for the first of the emulated "
            "ranking, `top:NUM:PATH` for the first of a ranking on file. Several choices add up. "
            "For example: --outputs-from 'regex:.*norm.*' op:MatMul top:20:ranking.json. "
            "Defaults to all layers.",
            nargs="+",
            default=None,
        )
        self.group.add_argument(
            "--work-dir",
            metavar="PATH",
            help="Directory that keeps every engine and every result, so that a run that was "
            "stopped goes on from there. It may grow to the size of all engines. "
            "For example: --work-dir ranking_work. Defaults to a temporary one.",
            default=None,
        )

    def parse_impl(self, args: argparse.Namespace) -> None:
        """
        Parses command-line arguments and populates the following attributes:

        Attributes:
            is_wanted (bool): Whether layers are measured on engines.
            choices (Tuple[str]): Which layers to measure; none for all.
            work_dir (str): Directory that keeps what was finished, or None.
        """
        self.is_wanted = args_util.get(args, "backend") == "tensorrt"
        self.choices = tuple(args_util.get(args, "outputs_from") or ())
        self.work_dir = args_util.get(args, "work_dir")
        given = given_options(self.arg_groups, args)
        if not self.is_wanted:
            self._check_unused(given)
            return
        for option in given:
            if option in _ELSEWHERE:
                G_LOGGER.critical(f"`{option}` cannot be used here.\n{_ELSEWHERE[option]}")
        self._check_precision(given)
        if self.choices and "--mark-unfused-tensors-as-debug-tensors" in given:
            G_LOGGER.critical(
                "`--outputs-from` chooses tensors to mark, but debug tensors are not marked one by "
                "one.\nLeave out one of the two."
            )
        path = self.arg_groups[TrtLoadEngineBytesArgs].save_timing_cache
        check_output_path(path, option="--save-timing-cache")

    def rank(self, graph: Graph) -> Ranking:
        """Returns the ranking, measured on engines.

        Raises:
            ExecutionError: If TensorRT, a GPU or an engine cannot be used.
        """
        from polygraphy_layerprec.backend.engine_options import choose_profile
        from polygraphy_layerprec.backend.engine_plan import check_choices
        from polygraphy_layerprec.backend.engine_store import open_store
        from polygraphy_layerprec.backend.tensorrt_module import check_gpu, load_tensorrt
        from polygraphy_layerprec.report.ranking_file import load_ranking

        check_choices(self.choices, load_ranking)  # before what takes long
        load_tensorrt()
        check_gpu()
        request = self._request()
        model = self.arg_groups[OnnxGraphArgs]
        if model.external_data_dir is not None:
            G_LOGGER.critical(
                "TensorRT finds external data beside the model only.\n"
                "Leave out `--external-data-dir`, and put the data files there."
            )
        samples = list(self.arg_groups[SampleArgs].samples(graph))  # which notes their shapes
        ranges = self.arg_groups[SampleArgs].shape_ranges
        options = make_engine_options(self.arg_groups, model.path, ranges)
        for sample in samples:  # before anything is built that cannot take them
            choose_profile(options.profiles, sample)
        with open_store(self.work_dir) as store, progress_bar() as progress:
            from polygraphy_layerprec.engine_pipeline import rank_on_engines

            backend = self._backend(graph, options, request, store)
            ranking = rank_on_engines(graph, samples, request, backend=backend, progress=progress)
            self._save_timing_cache(store.timing_cache_path)
        return ranking

    def _check_unused(self, given: list[str]) -> None:
        own = {"--outputs-from": self.choices, "--work-dir": self.work_dir}
        unused = [*(option for option, value in own.items() if value), *given]
        if unused:
            G_LOGGER.critical(
                f"`{unused[0]}` is about engines, but layers are emulated.\n"
                f"Add `--backend tensorrt`, or leave it out."
            )

    def _check_precision(self, given: list[str]) -> None:
        precision = self.arg_groups[MeasureArgs].precision
        for option in {"--fp16", "--bf16"}.intersection(given) - {f"--{precision}"}:
            G_LOGGER.critical(
                f"`{option}` asks for another precision than `--precision {precision}`.\n"
                f"Give `--precision {option[2:]}` instead."
            )

    def _request(self) -> EngineRequest:
        from polygraphy_layerprec.backend.tensorrt_module import gpu_memory_bytes
        from polygraphy_layerprec.engine_pipeline import DEFAULT_MEMORY_BYTES, EngineRequest

        measure = self.arg_groups[MeasureArgs].to_arguments()
        if measure["loss"] is not None:
            G_LOGGER.critical(
                "`--loss-script` needs the emulation's gradients.\nLeave out `--backend tensorrt`."
            )
        # Weights and the engines' own memory take the rest of the GPU.
        room = (gpu_memory_bytes() or DEFAULT_MEMORY_BYTES) // 4
        return EngineRequest(
            precision=measure["precision"],
            impact=measure["impact"],
            exact_count=measure["exact_count"],
            outputs=measure["outputs"],
            choices=self.choices,
            uses_debug_tensors=self._uses_debug_tensors(),
            max_memory_bytes=measure["max_memory_bytes"] or min(room, DEFAULT_MEMORY_BYTES),
            generated_inputs=self.arg_groups[SampleArgs].is_using_random_data(),
        )

    def _uses_debug_tensors(self) -> bool:
        from polygraphy.tools.args import TrtLoadNetworkArgs

        from polygraphy_layerprec.backend.tensorrt_module import load_tensorrt

        name = "mark_unfused_tensors_as_debug_tensors"
        wanted = bool(getattr(self.arg_groups[TrtLoadNetworkArgs], name, None))
        trt = load_tensorrt()
        if wanted and not hasattr(trt.INetworkDefinition, name):
            G_LOGGER.critical(
                f"{trt.__name__} {trt.__version__} cannot hand out tensors that are not fused.\n"
                f"Leave out `--mark-unfused-tensors-as-debug-tensors`, to mark outputs instead."
            )
        return wanted

    def _backend(
        self, graph: Graph, options: EngineOptions, request: EngineRequest, store: Any
    ) -> Any:
        from polygraphy_layerprec.backend.engine_building import (
            EngineBuilder,
            digest_of_model,
            tensorrt_versions,
        )
        from polygraphy_layerprec.backend.engine_running import EngineRuntime
        from polygraphy_layerprec.engine_pipeline import EngineBackend
        from polygraphy_layerprec.verify import run_plainly

        path = self.arg_groups[OnnxGraphArgs].path
        engines = EngineBuilder(
            graph,
            options,
            precision=request.precision.name,
            model_digest=digest_of_model(graph, path),
            timing_cache_path=store.timing_cache_path,
        )
        return EngineBackend(
            engines,
            EngineRuntime(options.profiles),
            store,
            versions=tensorrt_versions(),
            run_fp32=run_plainly(path),
        )

    def _save_timing_cache(self, source: str) -> None:
        from polygraphy_layerprec.report.atomic_file import write_file

        path = self.arg_groups[TrtLoadEngineBytesArgs].save_timing_cache
        if path is None or not os.path.exists(source):
            return
        with open(source, "rb") as cache:
            write_file(path, lambda file: file.write(cache.read()))
        G_LOGGER.info(f"Saved the timing cache to {path}")
