"""Options about ranking on TensorRT engines."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from polygraphy.tools.args import TrtLoadNetworkArgs
from polygraphy.tools.args import util as args_util

from polygraphy_layerprec._native import G_LOGGER, export
from polygraphy_layerprec.tools.args.engines import EngineArgs
from polygraphy_layerprec.tools.args.measure import MeasureArgs
from polygraphy_layerprec.tools.args.samples import SampleArgs
from polygraphy_layerprec.tools.progress import progress_bar

if TYPE_CHECKING:
    import argparse

    from polygraphy_layerprec.engine_pipeline import EngineRequest
    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.records import Ranking

__all__ = ["RankedEngineArgs"]

_DEBUG_TENSORS: Final = "mark_unfused_tensors_as_debug_tensors"


@export()
class RankedEngineArgs(EngineArgs):
    """
    Engines: measuring layers on TensorRT engines.

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
        super().add_parser_args_impl()
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

    def parse_impl(self, args: argparse.Namespace) -> None:
        """
        Parses command-line arguments and populates the attributes of `EngineArgs`, and:

        Attributes:
            choices (Tuple[str]): Which layers to measure; none for all.
        """
        self.choices = tuple(args_util.get(args, "outputs_from") or ())
        super().parse_impl(args)
        if self.is_wanted and self.choices and self._wants_debug_tensors():
            G_LOGGER.critical(
                "`--outputs-from` chooses tensors to mark, but debug tensors are not marked one by "
                "one.\nLeave out one of the two."
            )

    def rank(self, graph: Graph) -> Ranking:
        """Returns the ranking, measured on engines.

        Raises:
            ExecutionError: If TensorRT, a GPU or an engine cannot be used.
        """
        from polygraphy_layerprec.backend.engines.marking import check_choices
        from polygraphy_layerprec.files.ranking_file import load_ranking

        check_choices(self.choices, load_ranking)  # before what takes long
        precision = self.arg_groups[MeasureArgs].precision
        self.check_usable(precision)
        request = self._request()
        samples = list(self.arg_groups[SampleArgs].samples(graph))
        with self.open_stack(graph, precision, samples) as stack, progress_bar() as progress:
            from polygraphy_layerprec.engine_pipeline import rank_on_engines

            return rank_on_engines(graph, samples, request, stack=stack, progress=progress)

    def _request(self) -> EngineRequest:
        from polygraphy_layerprec.backend.engines.tensorrt_module import gpu_memory_bytes
        from polygraphy_layerprec.engine_pipeline import DEFAULT_MEMORY_BYTES, EngineRequest

        generated = self.arg_groups[SampleArgs].is_using_random_data()
        request = self.arg_groups[MeasureArgs].request(generated_inputs=generated)
        if request.loss is not None:
            G_LOGGER.critical(
                "`--loss-script` needs the emulation's gradients.\nLeave out `--backend tensorrt`."
            )
        # Weights and the engines' own memory take the rest of the GPU.
        room = (gpu_memory_bytes() or DEFAULT_MEMORY_BYTES) // 4
        memory_bytes = request.max_memory_bytes or min(room, DEFAULT_MEMORY_BYTES)
        return EngineRequest(
            replace(request, max_memory_bytes=memory_bytes),
            choices=self.choices,
            uses_debug_tensors=self._uses_debug_tensors(),
            max_marked_bytes=memory_bytes,
        )

    def _uses_debug_tensors(self) -> bool:
        from polygraphy_layerprec.backend.engines.tensorrt_module import load_tensorrt

        trt = load_tensorrt()
        wanted = self._wants_debug_tensors()
        if wanted and not hasattr(trt.INetworkDefinition, _DEBUG_TENSORS):
            G_LOGGER.critical(
                f"{trt.__name__} {trt.__version__} cannot hand out tensors that are not fused.\n"
                f"Leave out `--mark-unfused-tensors-as-debug-tensors`, to mark outputs instead."
            )
        return wanted

    def _wants_debug_tensors(self) -> bool:
        return bool(getattr(self.arg_groups[TrtLoadNetworkArgs], _DEBUG_TENSORS, None))
