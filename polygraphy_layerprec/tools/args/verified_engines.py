"""Options about verification on TensorRT engines, that run or are only built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from polygraphy.tools.args import TrtConfigArgs
from polygraphy.tools.args import util as args_util

from polygraphy_layerprec._native import G_LOGGER, export
from polygraphy_layerprec.tools.args.engines import EngineArgs
from polygraphy_layerprec.tools.args.samples import SampleArgs
from polygraphy_layerprec.tools.args.verification import VerificationArgs

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.records import RequestedPrecisions, Verification

__all__ = ["VerifiedEngineArgs"]

_RANK_ALONE: Final = "Only `rank` measures tensors within the model: leave it out."
_TF32_HELP: Final = (
    "Allow TF32 for products that stay in FP32: their factors are rounded to 10 bits of mantissa, "
    "as in an engine unless TF32 is switched off, which a script does with "
    "`--trt-config-postprocess-script`. It is emulated, and allowed in engines that are built. "
    "Defaults to false."
)


@export()
class VerifiedEngineArgs(EngineArgs):
    """
    Engines: verifying on TensorRT engines, or building one without a GPU.

    Depends on:

        - ModelArgs
        - OnnxGraphArgs
        - SampleArgs
        - VerificationArgs
        - TrtConfigArgs
        - TrtOnnxFlagArgs
        - TrtLoadPluginsArgs
        - TrtLoadNetworkArgs
        - TrtLoadEngineBytesArgs
    """

    refused: ClassVar[Mapping[str, str]] = {
        **EngineArgs.refused,
        "--mark-debug": _RANK_ALONE,
        "--mark-unfused-tensors-as-debug-tensors": _RANK_ALONE,
    }
    ways_to_engines: ClassVar[str] = "`--backend tensorrt` or `--build`"

    def add_parser_args_impl(self) -> None:
        """Declares the options."""
        super().add_parser_args_impl()
        self.group.add_argument(
            "--build",
            help="Also build an engine with TensorRT or TensorRT-RTX, and show what each layer "
            "obtained, read from the log of the build; needs no GPU. If a layer that was to stay "
            "in FP32 does not, the exit code is 1.",
            action="store_true",
            default=None,
        )
        self.group.add_argument(
            "--timing-runs",
            metavar="NUM",
            help="How many inferences of each engine to time. For example: --timing-runs 100. "
            "Defaults to 20.",
            type=int,
            default=None,
        )
        self._adopt_tf32()

    def _adopt_tf32(self) -> None:
        """Takes over Polygraphy's option, which knows engines alone, into this group's help."""
        options = self.arg_groups[TrtConfigArgs].group._group_actions  # noqa: SLF001 - argparse has no other way to find one
        for action in [action for action in options if action.dest == "tf32"]:
            action.help = _TF32_HELP
            options.remove(action)
            self.group._group_actions.append(action)  # noqa: SLF001 - as above

    def parse_impl(self, args: argparse.Namespace) -> None:
        """
        Parses command-line arguments and populates the attributes of `EngineArgs`, and:

        Attributes:
            build (bool): Whether to build an engine that shows what layers obtained.
            tf32 (bool): Whether products in FP32 may be in TF32.
            timing_runs (int): How many inferences of each engine to time.
        """
        self.build = bool(args_util.get(args, "build"))
        self.tf32 = bool(args_util.get(args, "tf32"))
        timing_runs = args_util.get(args, "timing_runs")
        self.timing_runs = 20 if timing_runs is None else timing_runs
        super().parse_impl(args)
        if self.build and self.is_wanted:
            G_LOGGER.critical(
                "`--build` is for machines without a GPU: with `--backend tensorrt`, engines are "
                "built and tell of their layers anyway.\nLeave out one of the two."
            )
        if self.timing_runs < 1:
            G_LOGGER.critical(f"`--timing-runs` must be at least 1, got: {self.timing_runs}.")

    def refuse_pairs(self) -> None:
        """Stops at engines, and at what they compute in, where pairs are verified."""
        wishes = {
            "`--backend tensorrt`": self.is_wanted,
            "`--build`": self.build,
            "`--tf32`": self.tf32,
        }
        for what, is_wanted in wishes.items():
            if is_wanted:
                G_LOGGER.critical(
                    f"{what} is about engines in FP16 or BF16; the pairs of a quantised model are "
                    f"emulated.\nLeave it out."
                )

    def verify(self, graph: Graph, asked: RequestedPrecisions, **criteria: Any) -> Verification:
        """Returns what engines in FP32, all lowered, and constrained give.

        Args:
            graph: The model.
            asked: Which layers stay in FP32.
            criteria: What is judged, as for `verify_on_engines`.

        Raises:
            ExecutionError: If TensorRT, a GPU or an engine cannot be used.
        """
        self.check_usable(asked.precision)
        from polygraphy_layerprec.backend.engines.verification import verify_on_engines

        samples = self.arg_groups[SampleArgs]
        checked = list(samples.samples(graph))
        with self.open_stack(graph, asked.precision, checked) as stack:
            return verify_on_engines(
                graph,
                checked,
                asked,
                stack=stack,
                mixed_path=self.arg_groups[VerificationArgs].mixed_onnx,
                timing_runs=self.timing_runs,
                generated_inputs=samples.is_using_random_data(),
                **criteria,
            )

    def prove(
        self, graph: Graph, asked: RequestedPrecisions, verification: Verification
    ) -> Verification:
        """Returns a verification with what the layers obtain in an engine that is built.

        Args:
            graph: The model.
            asked: Which layers stay in FP32.
            verification: What the emulation found; its samples have gone by.

        Raises:
            ExecutionError: If no engine can be built as asked, or it does not tell of its layers.
        """
        from polygraphy_layerprec.backend.engines.proof import prove_precisions, with_proof

        mixed_path = self.arg_groups[VerificationArgs].mixed_onnx
        with self.open_stack(graph, asked.precision) as stack:
            proof = prove_precisions(graph, asked, stack=stack, mixed_path=mixed_path)
        return with_proof(verification, proof)
