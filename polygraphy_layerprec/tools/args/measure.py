"""Options about what is measured, and how."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from polygraphy.tools.args import util as args_util
from polygraphy.tools.args.base import BaseArgs

from polygraphy_layerprec._native import G_LOGGER, export
from polygraphy_layerprec.tools.args.precision_name import read_precision_name
from polygraphy_layerprec.tools.user_script import load_function

if TYPE_CHECKING:
    import argparse

    from polygraphy_layerprec.divergence.judges import Judge
    from polygraphy_layerprec.observing import RankRequest
    from polygraphy_layerprec.records import ImpactMethod

__all__ = ["MeasureArgs"]


@export()
class MeasureArgs(BaseArgs):
    """
    Measurement: measuring what low precision does to each layer.
    """

    def add_parser_args_impl(self) -> None:
        """Declares the options."""
        self._declare_measurement()
        self._declare_judgement()

    def _declare_measurement(self) -> None:
        self.group.add_argument(
            "--precision",
            metavar="NAME",
            help="What to compare with FP32: fp16 (float16, half), bf16 (bfloat16), or qdq, the "
            "pairs of QuantizeLinear and DequantizeLinear that stand in a quantised model, INT8 or "
            "FP8, which `--int8` and `--fp8` would allow an engine. Of a quantised model, fp16 "
            "ranks what FP16 does to its float parts. "
            "For example: --precision bf16. Defaults to fp16.",
            default=None,
        )
        self.group.add_argument(
            "--impact",
            help="How to find what a layer does to the outputs: {'adjoint': by a backward pass, "
            "accurate; 'gain': by how much later layers amplify errors, cheaper; 'exact': by one "
            "forward pass for each layer, slow}. Defaults to adjoint.",
            choices=["adjoint", "gain", "exact"],
            default=None,
        )
        self.group.add_argument(
            "--exact",
            metavar="NUM",
            help="Measure the impact of this many layers, the worst first, by a forward pass each. "
            "For example: --exact 10. Defaults to 0.",
            type=int,
            default=None,
        )
        self.group.add_argument(
            "--max-memory",
            metavar="BYTES",
            help="Memory for the activations of a sample that wait for the backward sweep; beyond "
            "it they are kept on disk. With workers that of each, and as much for samples that it "
            "remembers. Weights in use, what the node that runs takes, up to 512 MiB that measured "
            "sets share, and ONNX-Runtime itself are not counted. Optionally, use "
            "a `K`, `M`, or `G` suffix to indicate KiB, MiB, or GiB respectively. "
            "For example: --max-memory 4G. Defaults to what the machine allows.",
            default=None,
        )

    def _declare_judgement(self) -> None:
        self.group.add_argument(
            "--outputs",
            metavar="NAME",
            help="Name(s) of the model output(s) by which to judge layers, or of tensors within "
            "the model, up to which it is then ranked. "
            "For example: --outputs logits. Defaults to all outputs.",
            nargs="+",
            default=None,
        )

        self.group.add_argument(
            "--loss-script",
            metavar="PATH[:FUNCTION]",
            help="Python script with a function that takes the outputs by name and returns a "
            "number, or a number and its gradients by output name. Layers are ranked by what they "
            "do to it. For example: --loss-script loss.py:top_logit. Defaults to the relative "
            "error of the outputs; the function to `loss`.",
            default=None,
        )

        self.group.add_argument(
            "--loss-tolerance",
            metavar="CHANGE",
            help="Largest change of that loss, relative to what it is in FP32, in any sample: sets "
            "of layers are judged by it. For example: --loss-tolerance 1e-3. Defaults to none: "
            "they are judged by the other criteria.",
            type=float,
            default=None,
        )

    def parse_impl(self, args: argparse.Namespace) -> None:
        """
        Parses command-line arguments and populates the following attributes:

        Attributes:
            precision (str): Name of the low precision.
            impact (str): How impacts are found.
            exact_count (int): How many layers to measure by a forward pass each.
            max_memory_bytes (int): Memory for activations, or None.
            outputs (Tuple[str]): Names of the outputs to judge by, or None for all.
            loss_script (str): Path to a script with a loss, or None.
            loss_function_name (str): Name of the function in it.
            loss_tolerance (float): Largest relative change of the loss, or None.
        """
        self.precision = read_precision_name(
            args_util.get(args, "precision") or "fp16", option="--precision", also=("qdq",)
        )
        self.impact: ImpactMethod = args_util.get(args, "impact") or "adjoint"
        self.exact_count = args_util.get(args, "exact") or 0
        self.max_memory_bytes = args_util.parse_num_bytes(args_util.get(args, "max_memory"))
        outputs = args_util.get(args, "outputs")
        self.outputs = None if outputs is None else tuple(outputs)
        loss_script, loss_function_name = args_util.parse_script_and_func_name(
            args_util.get(args, "loss_script"), default_func_name="loss"
        )
        self.loss_script = loss_script
        self.loss_function_name = loss_function_name
        if self.loss_script is not None and not os.path.isfile(self.loss_script):
            G_LOGGER.critical(f"No such script with a loss: {self.loss_script!r}.\nCheck the path.")
        self.loss_tolerance = args_util.get(args, "loss_tolerance")
        self._check_loss_tolerance()
        if self.exact_count < 0:
            G_LOGGER.critical(f"`--exact` must be at least 0, got: {self.exact_count}.")
        if self.max_memory_bytes is not None and self.max_memory_bytes <= 0:
            G_LOGGER.critical(f"`--max-memory` must be positive, got: {args.max_memory}.")

    def _check_loss_tolerance(self) -> None:
        if self.loss_tolerance is None:
            return
        if self.loss_script is None:
            G_LOGGER.critical(
                "`--loss-tolerance` is about a loss: give one with `--loss-script`.\n"
                "For the relative error of the outputs, it is `--tolerance`."
            )
        if not 0 < self.loss_tolerance < float("inf"):  # NaN as well
            G_LOGGER.critical(f"`--loss-tolerance` must be positive, got: {self.loss_tolerance}.")

    def judges(self) -> tuple[Judge, ...]:
        """Returns the judge of the loss, if it has a tolerance."""
        if self.loss_tolerance is None:
            return ()
        from polygraphy_layerprec.divergence.loss import LossJudge

        return (LossJudge(self._load_loss(), self.loss_tolerance),)

    def request(self, *, generated_inputs: bool) -> RankRequest:
        """Returns what is asked of the ranking.

        Args:
            generated_inputs: Whether the samples are made up.
        """
        from polygraphy_layerprec.observing import RankRequest
        from polygraphy_layerprec.precision import precision_named

        return RankRequest(
            precision=precision_named(self.precision),
            impact=self.impact,
            exact_count=self.exact_count,
            outputs=self.outputs,
            loss=self._load_loss(),
            max_memory_bytes=self.max_memory_bytes,
            generated_inputs=generated_inputs,
        )

    def _load_loss(self) -> Any:
        if self.loss_script is None:
            return None
        return load_function(self.loss_script, self.loss_function_name, option="--loss-script")
