"""`polygraphy layerprec verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from polygraphy.tools.args import ModelArgs

from polygraphy_layerprec._native import G_LOGGER
from polygraphy_layerprec.terminal_output import log_width, wrapped
from polygraphy_layerprec.tools.args import (
    ComparisonArgs,
    CriterionArgs,
    OnnxGraphArgs,
    ReportFileArgs,
    SampleArgs,
)
from polygraphy_layerprec.tools.args.artefacts import show_left
from polygraphy_layerprec.tools.args.device import DeviceArgs
from polygraphy_layerprec.tools.args.distribution import ThreadArgs
from polygraphy_layerprec.tools.args.quantized import QDQ_NAME, QuantizedModelArgs
from polygraphy_layerprec.tools.args.verification import VerificationArgs
from polygraphy_layerprec.tools.args.verified_engines import VerifiedEngineArgs
from polygraphy_layerprec.tools.args.workers import WorkerArgs
from polygraphy_layerprec.tools.engine_groups import tensorrt_groups
from polygraphy_layerprec.tools.progress import progress_bar
from polygraphy_layerprec.tools.subtool.base import LayerprecSubtool

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from polygraphy_layerprec.distribution.worker_pool import WorkerPool
    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.records import RequestedPrecisions, Verification

__all__ = ["Verify"]


_DEFAULT_DECIDES = (
    "No criterion was given, so the default one decides about the exit code: see `--tolerance`.\n"
    "Note: Earlier versions judged nothing then."
)


class Verify(LayerprecSubtool):
    r"""
    Verify that a model holds a criterion with some of its layers in FP32, all others lowered.

    No GPU and no TensorRT are needed: layers are emulated with ONNX-Runtime on the CPU. With
    `--backend tensorrt`, engines are built and run instead.

    The typical usage of `verify` is:

        polygraphy layerprec verify model.onnx --script constraints.py \
            --load-inputs inputs.json --tolerance 1e-3

    To verify a mixed-precision model that was saved with `--save-onnx`:

        polygraphy layerprec verify model.onnx --mixed-onnx mixed.onnx --load-inputs inputs.json

    To verify on a GPU, with latency and size of each engine:

        polygraphy layerprec verify model.onnx --ranking ranking.json \
            --load-inputs inputs.json --tolerance 1e-3 --backend tensorrt

    To see on a machine without a GPU what an engine makes of it, layer by layer:

        POLYGRAPHY_USE_TENSORRT_RTX=1 polygraphy layerprec verify model.onnx \
            --script constraints.py --load-inputs inputs.json --build

    To verify a quantised model, whole or without the pairs of the layers that a ranking chose:

        polygraphy layerprec verify model_qdq.onnx --precision qdq --reference model.onnx \
            --load-inputs inputs.json --tolerance 0.05

    The exit code is 0 if the criteria are met, which by default is a relative L2 error of at most
    5e-3 (bf16: 4e-2, qdq: 0.1), and every layer is obtained as asked where an engine was built; it
    is 1 otherwise.
    """

    def __init__(self) -> None:
        super().__init__("verify")

    def get_subscriptions_impl(self) -> list[Any]:
        """Returns the argument groups."""
        return [
            ModelArgs(model_opt_required=True, required_model_type="onnx"),
            OnnxGraphArgs(),
            QuantizedModelArgs(),
            SampleArgs(),
            CriterionArgs(),
            ComparisonArgs(),
            VerificationArgs(),
            DeviceArgs(),
            ThreadArgs(),
            WorkerArgs(),
            ReportFileArgs(),
            *tensorrt_groups(),
            VerifiedEngineArgs(),
        ]

    def run_job(self, args: argparse.Namespace) -> int:  # noqa: ARG002 - parsed already
        """Measures, shows and judges."""
        uses_engines = self.arg_groups[VerifiedEngineArgs].is_wanted
        with self.arg_groups[DeviceArgs].running(uses_engines=uses_engines):
            return self._verify_and_show()

    def _verify_and_show(self) -> int:
        from polygraphy_layerprec.files.verdict_file import (
            format_verdict_json,
            verdict_on_verification,
        )
        from polygraphy_layerprec.report.obtained_precisions import format_all_layers
        from polygraphy_layerprec.report.summary import format_sentence
        from polygraphy_layerprec.report.verification import format_verdict, format_verification

        graph = self._load_graph()
        asked = self.arg_groups[VerificationArgs].load_asked(
            graph, self.arg_groups[CriterionArgs].tolerance
        )
        verification = self._verify(graph, asked)
        if verification.verdict is not None:
            G_LOGGER.info(
                format_sentence(
                    verification.sentence,
                    verification.verdict,
                    passed=verification.passed,
                    width=log_width(),
                )
            )
        self.tell_what_ran()
        if not self.arg_groups[CriterionArgs].is_given:
            G_LOGGER.info(wrapped(_DEFAULT_DECIDES))
        self.arg_groups[CriterionArgs].warn_of_criteria(verification.lowered)
        files = self.arg_groups[ReportFileArgs]
        if files.is_markdown:
            from polygraphy_layerprec.report.markdown import format_verification_markdown

            files.show_markdown(format_verification_markdown(verification))
        else:
            G_LOGGER.info("\n".join(format_verification(verification, width=log_width())))
            show_left("what was verified", verification.left_in_fp32)
            G_LOGGER.verbose("\n".join(format_all_layers(verification, width=log_width())))
        files.save_verification(verification)
        self.arg_groups[CriterionArgs].save_verdict(lambda: verdict_on_verification(verification))
        files.show_json(lambda: format_verdict_json(verdict_on_verification(verification)))
        for warning in verification.warnings:
            G_LOGGER.warning(wrapped(warning))
        verdict = "\n".join(format_verdict(verification, width=log_width()))
        if not verification.passed:
            G_LOGGER.error(verdict)
            return 1
        G_LOGGER.info(verdict)
        return 0

    def _load_graph(self) -> Graph:
        """Returns what is verified: of a quantised model, its float graph and its pairs."""
        precision = self.arg_groups[VerificationArgs].low_precision()
        if precision == QDQ_NAME:
            self.arg_groups[VerifiedEngineArgs].refuse_pairs()
        graph: Graph = self.arg_groups[OnnxGraphArgs].load_graph()
        quantized: QuantizedModelArgs = self.arg_groups[QuantizedModelArgs]
        return quantized.graph_for(graph, precision)

    def _verify(self, graph: Graph, asked: RequestedPrecisions) -> Verification:
        engines: VerifiedEngineArgs = self.arg_groups[VerifiedEngineArgs]
        model, workers = self.arg_groups[OnnxGraphArgs], self.arg_groups[WorkerArgs]
        judged = {
            "outputs": self.arg_groups[VerificationArgs].outputs,
            **self._criterion(graph, asked),
        }
        if engines.is_wanted:
            workers.refuse_beside("`--backend tensorrt`")
            return engines.verify(graph, asked, **judged)
        if engines.build:
            engines.check_usable(asked.precision)
        with workers.pool(
            graph,
            model.path,
            threads=self.arg_groups[ThreadArgs].threads,
            external_data_folder=model.external_data_dir,
            on_gpu=self.arg_groups[DeviceArgs].is_gpu,
        ) as pool:
            verification = self._emulate(graph, asked, judged, pool)
        return engines.prove(graph, asked, verification) if engines.build else verification

    def _emulate(
        self,
        graph: Graph,
        asked: RequestedPrecisions,
        judged: Mapping[str, Any],
        pool: WorkerPool | None,
    ) -> Verification:
        from polygraphy_layerprec.execution.comparison.plain_runs import run_fp32_of
        from polygraphy_layerprec.verify import verify_model

        samples, model = self.arg_groups[SampleArgs], self.arg_groups[OnnxGraphArgs]
        checked = samples.samples(graph)
        with progress_bar() as progress:
            options: dict[str, Any] = {
                **judged,
                "tf32": self.arg_groups[VerifiedEngineArgs].tf32,
                "generated_inputs": samples.is_using_random_data(),
                "sample_count": samples.known_count(),
                "progress": progress,
            }
            if pool is not None:
                from polygraphy_layerprec.distribution.distributed_verification import (
                    verify_in_pool,
                )

                return verify_in_pool(pool, graph, checked, asked, **options)
            run_fp32 = run_fp32_of(graph, model.path, external_data_folder=model.external_data_dir)
            return verify_model(graph, checked, asked, run_fp32=run_fp32, **options)

    def _criterion(self, graph: Graph, asked: RequestedPrecisions) -> dict[str, Any]:
        criterion = self.arg_groups[CriterionArgs]
        outputs = self.arg_groups[VerificationArgs].outputs or graph.outputs
        judges = criterion.judges(asked.precision, outputs)
        return {"tolerance": criterion.tolerance, "judges": judges}
