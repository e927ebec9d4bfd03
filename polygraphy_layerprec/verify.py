"""Does it hold? A constrained model against its FP32 reference, on samples."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraphy_layerprec.divergence.judges import judges_for
from polygraphy_layerprec.execution import ExecutionError
from polygraphy_layerprec.execution.comparison.candidate_runs import CandidateRuns, Runner
from polygraphy_layerprec.execution.comparison.counted_outputs import outputs_that_count
from polygraphy_layerprec.execution.comparison.output_comparison import OutputComparison
from polygraphy_layerprec.execution.comparison.plain_runs import run_plainly
from polygraphy_layerprec.execution.samples.given import check_samples
from polygraphy_layerprec.model import Graph, identify, load_graph
from polygraphy_layerprec.model.quantized.records import decisions_of
from polygraphy_layerprec.plan import Plan, Verdict
from polygraphy_layerprec.plan.network_widths import constraint_of
from polygraphy_layerprec.precision import precision_named
from polygraphy_layerprec.ranking.quantized_units import pair_warnings
from polygraphy_layerprec.records import (
    Constraint,
    EngineMeasurement,
    Outcome,
    OutputDivergence,
    RequestedPrecisions,
    Verification,
    VerifiedOutput,
)
from polygraphy_layerprec.records.numbers import count_of
from polygraphy_layerprec.selection.verdict import KeptInWords, verdict_of

if TYPE_CHECKING:
    from polygraphy_layerprec.divergence.judges import Judge
    from polygraphy_layerprec.execution.comparison.side_by_side import Progress

__all__ = [
    "Runner",
    "conclude",
    "conclude_emulation",
    "run_plainly",
    "verify_model",
]

Sample = Mapping[str, np.ndarray[Any, Any]]


def verify_model(  # noqa: PLR0913 - what is verified, and how
    model: str | os.PathLike[str] | Graph,
    samples: Iterable[Sample],
    asked: RequestedPrecisions,
    *,
    outputs: Sequence[str] | None = None,
    tolerance: float | None = None,
    judges: Sequence[Judge] = (),
    run_fp32: Runner | None = None,
    tf32: bool = False,
    generated_inputs: bool = False,
    sample_count: int | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Returns the output errors of the lowered and the constrained model, emulated on a CPU.

    Memory does not grow with the number of samples.

    Args:
        model: Path of an `.onnx` file, or a graph that was loaded.
        samples: Input samples, each an array for every input by name.
        asked: Which layers stay in FP32, and what the others are lowered to.
        outputs: Names of the outputs that count, all by default.
        tolerance: Largest relative L2 error of any output and sample that passes, by default
            that of the default criterion.
        judges: What judges the outputs instead, besides that no element may become NaN or infinite.
        run_fp32: Runs the FP32 model on the backend; by default, and unless `model` is a graph,
            as `run_plainly` does.
        tf32: Whether the factors of products in FP32 are rounded to TF32, as an engine does unless
            it is switched off.
        generated_inputs: Whether the samples were made up, which the verification then says.
        sample_count: How many samples there are, if that is known.
        progress: Called with samples done, samples in all (0 if unknown), and what is going on.

    Raises:
        ModelError: If the model cannot be read.
        SampleError: If a sample does not fit the model, has no elements, or holds a NaN.
        ExecutionError: If ONNX-Runtime cannot emulate low precision, there is no sample,
            a constraint matches no layer, or the model has no such output.
    """
    graph = model if isinstance(model, Graph) else load_graph(model)
    if run_fp32 is None and not isinstance(model, Graph):
        run_fp32 = run_plainly(model)
    judged_by = judges_for(precision_named(asked.precision), tolerance=tolerance, others=judges)
    comparison = OutputComparison(outputs_that_count(graph, outputs), judged_by)
    runs = CandidateRuns(graph, asked, run_fp32, tf32=tf32)
    note = ""
    for done, sample in enumerate(check_samples(samples, graph.inputs), start=1):
        found = runs.run(sample, with_fp32=not note)
        note = note or found.note
        comparison.add_sample(found, sample)
        if progress is not None:
            progress(done, sample_count or 0, "samples")
    return conclude_emulation(
        graph, asked, comparison, runs.constrained, note, generated_inputs=generated_inputs
    )


def conclude_emulation(
    graph: Graph,
    asked: RequestedPrecisions,
    comparison: OutputComparison,
    plan: Plan,
    note: str = "",
    *,
    generated_inputs: bool = False,
) -> Verification:
    """Returns the record of what was emulated, and the verdict.

    Args:
        graph: As for `conclude`, as all others but plan and note.
        asked: As there.
        comparison: As there.
        plan: What was emulated.
        note: Why FP32 was not run on the backend; empty if it was.
        generated_inputs: As there.

    Raises:
        ExecutionError: If no sample was compared.
    """
    found = conclude(
        graph,
        asked,
        comparison,
        backend="onnxruntime-emulated",
        warnings=[*([note] if note else []), *_warnings(graph)],
        generated_inputs=generated_inputs,
    )
    return replace(
        found,
        left_in_fp32=_left_by_rule(plan),
        node_count=plan.fp32_node_count,
        cast_count=len(plan.casts),
        pair_count=plan.removed_pair_count,
    )


def conclude(
    graph: Graph,
    asked: RequestedPrecisions,
    comparison: OutputComparison,
    *,
    backend: str,
    engines: Sequence[EngineMeasurement] = (),
    failures: Sequence[str] = (),
    warnings: Sequence[str] = (),
    generated_inputs: bool = False,
) -> Verification:
    """Returns the record of what was compared, and the verdict.

    Args:
        graph: The model.
        asked: What was verified.
        comparison: All samples, compared.
        backend: What ran the candidates.
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
    found = Verification(
        model=identify(graph),
        precision=asked.precision,
        backend=backend,
        sample_count=comparison.sample_count,
        inputs="generated" if generated_inputs else "user",
        source=asked.source,
        kept_count=len(asked.constraints),
        layer_count=len(decisions_of(graph)),
        constraints=asked.constraints,
        fp32_error=comparison.error("fp32"),
        lowered_error=lowered,
        constrained_error=constrained,
        recovered=_recovered(lowered, constrained),
        outputs=_verified_outputs(comparison),
        failures=tuple(failures),
        engines=tuple(engines),
        warnings=(
            *_made_up(generated_inputs=generated_inputs),
            *asked.warnings,
            *warnings,
            *_missing(comparison),
        ),
        lowered=comparison.outcome("lowered"),
        outcome=comparison.outcome("constrained"),
    )
    return _with_verdict(found, comparison)


def _with_verdict(found: Verification, comparison: OutputComparison) -> Verification:
    """The record with what both candidates decide; without where only FP32 was measured."""
    before, after = found.lowered, found.outcome
    if before is None or after is None:
        return found
    kept = KeptInWords(found.kept_count, found.layer_count)
    verdict, sentence = verdict_of(
        before, after, kept, precision=found.precision, was_searched=False
    )
    failures = (*found.failures, *_failures(comparison, after))
    return replace(found, verdict=verdict, sentence=sentence, failures=failures)


def _left_by_rule(plan: Plan) -> tuple[Constraint, ...]:
    return tuple(
        constraint_of(node, plan.of(node).reason)
        for node in plan.graph.nodes
        if node.is_layer and plan.of(node).verdict is Verdict.LEFT
    )


def _warnings(graph: Graph) -> list[str]:
    warnings = pair_warnings(graph)
    random = [node.name for node in graph.nodes if node.is_random]
    if not random:
        return warnings
    note = (
        f"{count_of(len(random), 'node')}, {random[0]!r} the first, "
        f"{'draws' if len(random) == 1 else 'draw'} random numbers, anew in every run: "
        f"the errors hold these differences too."
    )
    return [note, *warnings]


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


def _failures(comparison: OutputComparison, outcome: Outcome) -> list[str]:
    failures = [f"the output {name!r} was not compared" for name in comparison.missing]
    return failures + [found.text for found in outcome.judgements if not found.passed]


def _error_of(output: OutputDivergence | None) -> float | None:
    return None if output is None else output.error


def _recovered(lowered: float | None, constrained: float | None) -> float | None:
    if not lowered or constrained is None:
        return None
    if constrained == lowered:  # which may be infinite
        return 0.0
    return 1.0 - constrained / lowered
