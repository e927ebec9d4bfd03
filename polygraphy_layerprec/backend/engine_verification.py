"""Verification on real engines: errors, latency, size, and the precisions that were obtained."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from polygraphy_layerprec.backend.engine_inspection import parse_layer_information
from polygraphy_layerprec.backend.engine_proof import asked_layers
from polygraphy_layerprec.backend.obtained_precisions import compare_precisions
from polygraphy_layerprec.divergence.judges import judges_for
from polygraphy_layerprec.execution.counted_outputs import outputs_that_count
from polygraphy_layerprec.execution.output_comparison import OutputComparison
from polygraphy_layerprec.execution.samples import check_samples
from polygraphy_layerprec.precision import PRECISIONS
from polygraphy_layerprec.records import EngineMeasurement
from polygraphy_layerprec.verify import conclude

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from polygraphy_layerprec.backend.engines import EngineName, EngineRun
    from polygraphy_layerprec.backend.obtained_precisions import AskedLayer
    from polygraphy_layerprec.divergence.judges import Judge
    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.records import AskedPrecisions, ObtainedPrecisions, Verification
    from polygraphy_layerprec.verify import Runner

__all__ = ["AGREEMENT_LIMIT", "Engines", "verify_engines"]

AGREEMENT_LIMIT: Final = 2.0**-11
"""Relative error up to which FP32 on TensorRT agrees with FP32 elsewhere: beyond it, it is further
from itself than rounding the outputs to FP16 would take it."""


class Engines(Protocol):
    """Makes engines and runs them."""

    def build(self, name: EngineName) -> bytes:
        """Returns a serialised engine."""

    def run(self, plan: bytes, samples: Sequence[Mapping[str, Any]]) -> EngineRun:
        """Returns what it makes of the samples."""


def verify_engines(  # noqa: PLR0913 - what is verified, and how
    graph: Graph,
    samples: Sequence[Mapping[str, np.ndarray[Any, Any]]],
    asked: AskedPrecisions,
    *,
    engines: Engines,
    run_reference: Runner,
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
        engines: Builds and runs the engines.
        run_reference: Runs the FP32 model elsewhere: an ordinary ONNX-Runtime session.
        outputs: Names of the outputs that count, all by default.
        tolerance: As for `verify_model`.
        judges: As for `verify_model`.
        generated_inputs: Whether the samples were made up.

    Raises:
        SampleError: If a sample does not fit the model, has no elements, or holds a NaN.
        ExecutionError: If the reference cannot run, or an engine cannot be built as asked.
    """
    samples = list(check_samples(samples, graph.inputs))
    judged_by = judges_for(PRECISIONS[asked.precision], tolerance=tolerance, others=judges)
    comparison = OutputComparison(outputs_that_count(graph, outputs), judged_by)
    comparison.sample_count = len(samples)
    references = [run_reference(sample) for sample in samples]
    wanted = asked_layers(graph, asked.constraints)
    measure = partial(_measure, engines, samples, references, wanted, comparison)
    measured = [measure("fp32")]
    failures = _disagreement(comparison)
    if not failures:
        measured += [measure("lowered"), measure("constrained")]
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
    engines: Engines,
    samples: Sequence[Mapping[str, Any]],
    references: Sequence[Mapping[str, Any]],
    asked: Sequence[AskedLayer],
    comparison: OutputComparison,
    name: EngineName,
) -> EngineMeasurement:
    plan = engines.build(name)
    run = engines.run(plan, samples)
    for sample, reference, values in zip(samples, references, run.outputs, strict=True):
        comparison.add(name, reference, values, sample)
    obtained = _obtained(run.layer_information, asked if name == "constrained" else ())
    return EngineMeasurement(name, len(plan), run.latency_seconds, obtained)


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
