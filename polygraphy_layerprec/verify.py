"""Does it hold? A constrained model against its FP32 reference, on samples."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraphy_layerprec.execution import ExecutionError, PlannedExecutor, check_emulation
from polygraphy_layerprec.execution.counted_outputs import outputs_that_count
from polygraphy_layerprec.execution.output_comparison import OutputComparison
from polygraphy_layerprec.execution.plain_session import PlainSession
from polygraphy_layerprec.execution.samples import check_samples
from polygraphy_layerprec.matching.constraint_matching import kept_layers_of
from polygraphy_layerprec.model import Graph, identify, load_graph
from polygraphy_layerprec.plan import Planner, Target
from polygraphy_layerprec.precision import PRECISIONS
from polygraphy_layerprec.records import (
    AskedPrecisions,
    EngineMeasurement,
    OutputDivergence,
    Verification,
    VerifiedOutput,
)

if TYPE_CHECKING:
    from polygraphy_layerprec.execution.comparison import Progress

__all__ = [
    "Runner",
    "conclude",
    "run_plainly",
    "verify_model",
]

Sample = Mapping[str, np.ndarray[Any, Any]]
Runner = Callable[[Sample], Mapping[str, np.ndarray[Any, Any]]]


def verify_model(  # noqa: PLR0913 - what is verified, and how
    model: str | os.PathLike[str] | Graph,
    samples: Iterable[Sample],
    asked: AskedPrecisions,
    *,
    outputs: Sequence[str] | None = None,
    tolerance: float | None = None,
    run_fp32: Runner | None = None,
    tf32: bool = False,
    generated_inputs: bool = False,
    progress: Progress | None = None,
) -> Verification:
    """Returns the output errors of the lowered and the constrained model, emulated on a CPU.

    Memory does not grow with the number of samples.

    Args:
        model: Path of an `.onnx` file, or a graph that was loaded.
        samples: Input samples, each an array for every input by name.
        asked: Which layers stay in FP32, and what the others are lowered to.
        outputs: Names of the outputs that count, all by default.
        tolerance: Largest error of the constrained model that passes, as for `rank_model`.
        run_fp32: Runs the FP32 model on the backend; by default, and unless `model` is a graph,
            as `run_plainly` does.
        tf32: Whether the factors of products in FP32 are rounded to TF32, as an engine does unless
            it is switched off.
        generated_inputs: Whether the samples were made up, which the verification then says.
        progress: Called with samples done, 0, and what is going on.

    Raises:
        ModelError: If the model cannot be read.
        SampleError: If a sample does not fit the model, has no elements, or holds a NaN.
        ExecutionError: If ONNX-Runtime cannot emulate low precision, there is no sample,
            a constraint matches no layer, or the model has no such output.
    """
    check_emulation()
    graph = model if isinstance(model, Graph) else load_graph(model)
    if run_fp32 is None and not isinstance(model, Graph):
        run_fp32 = run_plainly(model)
    comparison = OutputComparison(outputs_that_count(graph, outputs))
    emulation = _Emulation(graph, asked, run_fp32, tf32=tf32)
    for done, sample in enumerate(check_samples(samples, graph.inputs), start=1):
        emulation.compare(sample, comparison)
        if progress is not None:
            progress(done, 0, "samples")
    return conclude(
        graph,
        asked,
        comparison,
        backend="onnxruntime-emulated",
        tolerance=tolerance,
        warnings=[*emulation.notes, *_warnings(graph)],
        generated_inputs=generated_inputs,
    )


def run_plainly(
    model: str | os.PathLike[str], *, external_data_folder: str | None = None
) -> Runner:
    """Returns a function that runs `model` in an ordinary ONNX-Runtime session, made when needed.

    Args:
        model: Path of an `.onnx` file.
        external_data_folder: Where the files with external data are; beside the model by default.
    """
    sessions: list[PlainSession] = []

    def run(sample: Sample) -> Mapping[str, np.ndarray[Any, Any]]:
        if not sessions:
            sessions.append(PlainSession(model, external_data_folder=external_data_folder))
        return sessions[0].run(sample)

    return run


def conclude(  # noqa: PLR0913 - the parts of the record
    graph: Graph,
    asked: AskedPrecisions,
    comparison: OutputComparison,
    *,
    backend: str,
    tolerance: float | None,
    engines: Sequence[EngineMeasurement] = (),
    failures: Sequence[str] = (),
    warnings: Sequence[str] = (),
    generated_inputs: bool = False,
) -> Verification:
    """Returns the record of what was compared, judged by the tolerance.

    Args:
        graph: The model.
        asked: What was verified.
        comparison: All samples, compared.
        backend: What ran the candidates.
        tolerance: Largest error that passes; None to judge nothing.
        engines: What was built.
        failures: Reasons not to pass whatever the errors are.
        warnings: What the reader must know.
        generated_inputs: Whether the samples were made up.

    Raises:
        ExecutionError: If no sample was compared.
    """
    if not comparison.sample_count:
        raise ExecutionError("The input data hold no sample.\nGive at least one.")
    lowered, constrained = comparison.error("lowered"), comparison.error("constrained")
    if tolerance is not None and not failures:
        failures = _failures(comparison, tolerance)
    return Verification(
        model=identify(graph),
        precision=asked.precision,
        backend=backend,
        sample_count=comparison.sample_count,
        inputs="generated" if generated_inputs else "user",
        source=asked.source,
        kept_count=len(asked.constraints),
        layer_count=len(graph.layers),
        fp32_error=comparison.error("fp32"),
        lowered_error=lowered,
        constrained_error=constrained,
        recovered=_recovered(lowered, constrained),
        outputs=_verified_outputs(comparison),
        tolerance=tolerance,
        failures=tuple(failures),
        engines=tuple(engines),
        warnings=(
            *_made_up(generated_inputs=generated_inputs),
            *asked.warnings,
            *warnings,
            *_missing(comparison),
        ),
    )


class _Emulation:
    """Runs a sample through the reference and all candidates."""

    def __init__(
        self, graph: Graph, asked: AskedPrecisions, run_fp32: Runner | None, *, tf32: bool
    ) -> None:
        self.notes: list[str] = []
        precision = PRECISIONS[asked.precision]
        self._executor = PlannedExecutor(graph, precision, tf32=tf32)
        planner = Planner(graph, precision, Target(asked.target), schema_opset=asked.opset)
        self._lowered = planner.plan()
        self._constrained = planner.plan(kept_layers_of(graph, asked.constraints))
        self._run_fp32 = run_fp32

    def compare(self, sample: Sample, comparison: OutputComparison) -> None:
        reference = self._executor.run(sample)
        if self._run_fp32 is not None:
            try:
                comparison.add("fp32", reference, self._run_fp32(sample))
            except ExecutionError as error:
                self._run_fp32 = None
                self.notes.append(f"FP32 on ONNX-Runtime was not measured: {error}")
        lowered = self._executor.run(sample, self._lowered)
        comparison.add("lowered", reference, lowered)
        if self._constrained.kept.outputs:
            lowered = self._executor.run(sample, self._constrained)
        comparison.add("constrained", reference, lowered)
        comparison.sample_count += 1
        self._executor.forget_sample()


def _warnings(graph: Graph) -> list[str]:
    random = [node.name for node in graph.nodes if node.is_random]
    if not random:
        return []
    note = (
        f"{len(random)} nodes, {random[0]!r} the first, draw random numbers, anew in every run: "
        f"the errors hold these differences too."
    )
    return [note]


def _made_up(*, generated_inputs: bool) -> list[str]:
    if not generated_inputs:
        return []
    return [
        "The inputs were made up, and random data mislead: give real ones with `--load-inputs`."
    ]


def _missing(comparison: OutputComparison) -> list[str]:
    return [
        f"The output {name!r} was not compared: it could not be computed, or is no tensor."
        for name in comparison.missing
    ]


def _verified_outputs(comparison: OutputComparison) -> tuple[VerifiedOutput, ...]:
    fp32, lowered = comparison.records("fp32"), comparison.records("lowered")
    constrained = comparison.records("constrained")
    return tuple(
        VerifiedOutput(
            name,
            fp32.get(name),
            lowered.get(name),
            constrained.get(name),
            _recovered(_error_of(lowered.get(name)), _error_of(constrained.get(name))),
        )
        for name in comparison.outputs
    )


def _failures(comparison: OutputComparison, tolerance: float) -> list[str]:
    failures = [f"the output {name!r} was not compared" for name in comparison.missing]
    error = comparison.error("constrained")
    if error is not None and error != math.inf and not error <= tolerance:  # nor if it is NaN
        failures.append(f"the error {error:.3g} is above the tolerance {tolerance:.3g}")
    for name, output in comparison.records("constrained").items():
        if output.nonfinite_count:
            failures.append(
                f"{output.nonfinite_count} elements of {name!r}, finite in FP32, are NaN or "
                f"infinite"
            )
        if output.error is None and output.mismatch_fraction > tolerance:
            failures.append(
                f"{100 * output.mismatch_fraction:.3g} % of the elements of {name!r}, which is no "
                f"float tensor or changed its shape, are unequal"
            )
    return failures


def _error_of(output: OutputDivergence | None) -> float | None:
    return None if output is None else output.error


def _recovered(lowered: float | None, constrained: float | None) -> float | None:
    if not lowered or constrained is None:
        return None
    if constrained == lowered:  # which may be infinite
        return 0.0
    return 1.0 - constrained / lowered
