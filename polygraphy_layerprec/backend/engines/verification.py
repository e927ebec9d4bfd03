"""Verification on real engines: errors, latency, size, and the precisions that were obtained."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from polygraphy_layerprec.backend.engines.obtained.inspector import parse_layer_information
from polygraphy_layerprec.backend.engines.obtained.precisions import compare_precisions
from polygraphy_layerprec.backend.engines.proof import asked_layers
from polygraphy_layerprec.backend.engines.session import EngineSession
from polygraphy_layerprec.backend.engines.specs import EngineSpec, constrained_engine
from polygraphy_layerprec.divergence.judges import judges_for
from polygraphy_layerprec.execution.comparison.counted_outputs import outputs_that_count
from polygraphy_layerprec.execution.comparison.output_comparison import OutputComparison
from polygraphy_layerprec.execution.samples.given import check_samples
from polygraphy_layerprec.matching.constraint_matching import plan_of
from polygraphy_layerprec.precision import PRECISIONS
from polygraphy_layerprec.records import EngineMeasurement
from polygraphy_layerprec.verify import conclude

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from polygraphy_layerprec.backend.engines.obtained.precisions import AskedLayer
    from polygraphy_layerprec.backend.engines.session import EngineStack
    from polygraphy_layerprec.divergence.judges import Judge
    from polygraphy_layerprec.execution.comparison.candidate_runs import CandidateName
    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.records import ObtainedPrecisions, RequestedPrecisions, Verification

__all__ = ["AGREEMENT_LIMIT", "verify_on_engines"]

AGREEMENT_LIMIT: Final = 2.0**-11
"""Relative error up to which FP32 on TensorRT agrees with FP32 elsewhere: beyond it, it is further
from itself than rounding the outputs to FP16 would take it."""


def verify_on_engines(  # noqa: PLR0913 - what is verified, and how
    graph: Graph,
    samples: Sequence[Mapping[str, np.ndarray[Any, Any]]],
    asked: RequestedPrecisions,
    *,
    stack: EngineStack,
    mixed_path: str | None = None,
    timing_runs: int = 20,
    outputs: Sequence[str] | None = None,
    tolerance: float | None = None,
    judges: Sequence[Judge] = (),
    generated_inputs: bool = False,
) -> Verification:
    """Returns the output errors of the engines in FP32, all lowered, and constrained.

    If the engine in FP32 is not what the reference is, precision is not to blame, so that the
    others are not built and the verification fails.

    Args:
        graph: The model.
        samples: Input samples, each an array for every input by name.
        asked: Which layers stay in FP32.
        stack: Builds, keeps and runs the engines.
        mixed_path: A mixed-precision form of the model to make the constrained engine of.
        timing_runs: How many inferences of each engine to time.
        outputs: Names of the outputs that count, all by default.
        tolerance: As for `verify_model`.
        judges: As for `verify_model`.
        generated_inputs: Whether the samples were made up.

    Raises:
        SampleError: If a sample does not fit the model, has no elements, or holds a NaN.
        ExecutionError: If the reference cannot run, or an engine cannot be built as asked or run.
            What was finished is kept in the store.
    """
    samples = list(check_samples(samples, graph.inputs))
    judged_by = judges_for(PRECISIONS[asked.precision], tolerance=tolerance, others=judges)
    comparison = OutputComparison(outputs_that_count(graph, outputs), judged_by)
    comparison.sample_count = len(samples)
    references = [stack.run_fp32(sample) for sample in samples]
    wanted = asked_layers(graph, asked.constraints, plan_of(graph, asked))
    session = EngineSession(stack, samples, outputs=graph.outputs)
    measure = partial(_measure, session, references, comparison, timing_runs)
    measured = [measure("fp32", EngineSpec("reference"))]
    failures = _disagreement(comparison)
    if not failures:
        measured.append(measure("lowered", EngineSpec("lowered")))
        measured.append(measure("constrained", constrained_engine(asked, mixed_path), wanted))
    return conclude(
        graph,
        asked,
        comparison,
        backend="tensorrt",
        engines=measured,
        failures=failures,
        generated_inputs=generated_inputs,
    )


def _measure(
    session: EngineSession,
    references: Sequence[Mapping[str, Any]],
    comparison: OutputComparison,
    timing_runs: int,
    name: CandidateName,
    spec: EngineSpec,
    asked: Sequence[AskedLayer] = (),
) -> EngineMeasurement:
    def run() -> dict[str, Any]:
        plan = session.stack.plan(spec)
        with session.stack.engines.open(spec, plan) as engine:
            for index, sample in enumerate(session.samples):
                session.save_outputs(spec, index, engine.infer(sample))
            return {
                "size_bytes": len(plan),
                "latency_seconds": engine.latency_seconds(session.samples[0], runs=timing_runs),
                "layer_information": engine.layer_information(),
            }

    found = session.result(f"outputs, {timing_runs} runs timed", [spec], run)
    for index, reference in enumerate(references):
        values = session.load_outputs(spec, index)
        comparison.add(name, reference, values, session.samples[index])
    obtained = _obtained(found["layer_information"], asked)
    return EngineMeasurement(name, found["size_bytes"], found["latency_seconds"], obtained)


def _disagreement(comparison: OutputComparison) -> list[str]:
    error = comparison.error("fp32")
    what = "FP32 on TensorRT does not agree with FP32 on ONNX-Runtime"
    advice = "precision is not to blame, so nothing else was built"
    if comparison.missing:
        return [f"{what}: it gives no {next(iter(comparison.missing))!r}; {advice}"]
    for name, output in comparison.records("fp32").items():
        if output.nonfinite_count:
            return [f"{what}: {name!r} has NaN or infinities in TensorRT alone; {advice}"]
    if error is not None and not error <= AGREEMENT_LIMIT:
        return [f"{what}: their outputs differ by {error:.3g}; {advice}"]
    return []


def _obtained(information: str, asked: Sequence[AskedLayer]) -> ObtainedPrecisions | None:
    try:
        layers = parse_layer_information(information)
    except ValueError:
        return None
    return compare_precisions(layers, asked) if layers else None
