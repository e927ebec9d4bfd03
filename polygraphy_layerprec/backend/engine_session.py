"""Runs a model's engines on samples and compares them; each result is kept once it is there."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraphy_layerprec.backend.engine_spec import EngineSpec
from polygraphy_layerprec.backend.engine_store import digest_of
from polygraphy_layerprec.execution.tensor_comparison import TensorComparison

if TYPE_CHECKING:
    from polygraphy_layerprec.backend.engine_spec import Engines, Infer, Runtime, Sample
    from polygraphy_layerprec.backend.engine_store import EngineStore
    from polygraphy_layerprec.precision import Precision

__all__ = ["EngineSession", "MarkedResult", "OutputsResult"]


@dataclass(frozen=True, slots=True)
class OutputsResult:
    """The engines as they are deployed: without marks."""

    lowered: TensorComparison
    """Outputs of the lowered engine against those of the reference engine."""

    reference: TensorComparison | None
    """Outputs of the reference engine against FP32 elsewhere; None if that was not run."""


@dataclass(frozen=True, slots=True)
class MarkedResult:
    """A pair of engines with marked tensors."""

    tensors: TensorComparison
    """The marked tensors of the lowered engine against those of the reference engine."""

    outputs: TensorComparison
    """The same of the model's outputs."""

    reference_drift: TensorComparison
    """Outputs of the reference engine with marks against those of the one without."""


class EngineSession:
    """Measures with engines on a set of samples, or finds what an earlier run measured."""

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        outputs: Sequence[str],
        counted: Sequence[str],
        precision: Precision,
        engines: Engines,
        runtime: Runtime,
        store: EngineStore,
    ) -> None:
        """Prepares to measure.

        Args:
            samples: Input samples, each an array for every input by name.
            outputs: Names of the model's outputs.
            counted: Those that count towards the output error.
            precision: The low precision.
            engines: Builds engines.
            runtime: Runs them.
            store: Keeps engines and results.
        """
        self._samples = samples
        self._outputs = tuple(outputs)
        self._counted = tuple(counted)
        self._precision = precision
        self._engines = engines
        self._runtime = runtime
        self._store = store
        self._samples_digest = _digest_of_samples(samples)

    def compare_outputs(self, run_fp32: Callable[[Sample], Sample] | None) -> OutputsResult:
        """Returns how far the outputs are apart, and keeps those of the reference engine.

        Args:
            run_fp32: Runs the FP32 model elsewhere, as a check of the reference engine.

        Raises:
            EngineError: If an engine cannot be built or run.
        """
        specs = EngineSpec("reference"), EngineSpec("lowered")
        key = self._reference_key()

        def measure() -> dict[str, Any]:
            lowered, reference = self._new_comparison(), self._new_comparison()
            with ExitStack() as stack:
                run_reference, run_lowered = self._open(stack, *specs)
                for index, sample in enumerate(self._samples):
                    exact = self._only_outputs(run_reference(sample))
                    self._store.save_outputs(key, index, exact)
                    lowered.add_sample(exact, self._only_outputs(run_lowered(sample)))
                    if run_fp32 is not None:
                        reference.add_sample(self._only_outputs(run_fp32(sample)), exact)
            return {"lowered": lowered.to_json_value(), "reference": reference.to_json_value()}

        what = "outputs" if run_fp32 is None else "outputs, FP32 elsewhere"
        found = self._store.result(self._identity(what, *specs), measure)
        reference = self._read_comparison(found["reference"])
        return OutputsResult(
            self._read_comparison(found["lowered"]), reference if run_fp32 else None
        )

    def compare_marked(
        self, tensors: Sequence[str] = (), *, with_debug_tensors: bool = False
    ) -> MarkedResult:
        """Returns how far marked tensors are apart; `compare_outputs` comes first.

        Args:
            tensors: Names of the tensors to mark.
            with_debug_tensors: Whether to take what is not fused away instead.

        Raises:
            EngineError: If an engine cannot be built or run.
        """
        marked = tuple(tensors)
        specs = (
            EngineSpec("reference", marked, with_debug_tensors=with_debug_tensors),
            EngineSpec("lowered", marked, with_debug_tensors=with_debug_tensors),
        )

        def measure() -> dict[str, Any]:
            found = MarkedResult(*(self._new_comparison() for _ in range(3)))
            with ExitStack() as stack:
                run_reference, run_lowered = self._open(stack, *specs)
                for index, sample in enumerate(self._samples):
                    exact, low = run_reference(sample), run_lowered(sample)
                    inner = marked or self._inner_names(exact, low)
                    found.tensors.add_sample(_only(exact, inner), _only(low, inner))
                    found.outputs.add_sample(self._only_outputs(exact), self._only_outputs(low))
                    unmarked = self._store.load_outputs(self._reference_key(), index)
                    found.reference_drift.add_sample(unmarked, self._only_outputs(exact))
            return {
                "tensors": found.tensors.to_json_value(),
                "outputs": found.outputs.to_json_value(),
                "reference_drift": found.reference_drift.to_json_value(),
            }

        found = self._store.result(self._identity("marked tensors", *specs), measure)
        return MarkedResult(
            self._read_comparison(found["tensors"]),
            self._read_comparison(found["outputs"]),
            self._read_comparison(found["reference_drift"]),
        )

    def measure_impact(self, output: str) -> float:
        """Returns the output error with one layer lowered; `compare_outputs` comes first.

        Args:
            output: An output tensor of the layer.

        Raises:
            EngineError: If the engine cannot be built or run.
        """
        spec = EngineSpec("one layer", layer=output)

        def measure() -> dict[str, Any]:
            comparison = self._new_comparison()
            with ExitStack() as stack:
                (run,) = self._open(stack, spec)
                for index, sample in enumerate(self._samples):
                    exact = self._store.load_outputs(self._reference_key(), index)
                    comparison.add_sample(exact, self._only_outputs(run(sample)))
            return comparison.to_json_value()

        identity = self._identity("one layer", EngineSpec("reference"), spec)
        return self.output_error(self._read_comparison(self._store.result(identity, measure)))

    def output_error(self, comparison: TensorComparison) -> float:
        """Returns the relative L2 error, root mean square over outputs that count and samples."""
        found = [comparison[name] for name in self._counted]
        count = sum(divergence.compared_count for divergence in found)
        total = math.fsum(divergence.squared_error for divergence in found)
        return math.sqrt(total / count) if count else 0.0

    def _open(self, stack: ExitStack, *specs: EngineSpec) -> list[Infer]:
        return [stack.enter_context(self._runtime.open(s, self._plan(s))) for s in specs]

    def _plan(self, spec: EngineSpec) -> bytes:
        return self._store.engine(self._engines.identity(spec), lambda: self._engines.build(spec))

    def _identity(self, what: str, *specs: EngineSpec) -> dict[str, Any]:
        engines = [self._engines.identity(spec) for spec in specs]
        return {
            "what": what,
            "engines": engines,
            "samples": self._samples_digest,
            "outputs": list(self._outputs),
        }

    def _reference_key(self) -> str:
        return digest_of(self._identity("outputs of the reference", EngineSpec("reference")))

    def _inner_names(self, *sides: Mapping[str, object]) -> tuple[str, ...]:
        names = dict.fromkeys(name for side in sides for name in side)
        return tuple(name for name in names if name not in self._outputs)

    def _only_outputs(self, values: Sample) -> dict[str, np.ndarray[Any, Any]]:
        return _only(values, self._outputs)

    def _new_comparison(self) -> TensorComparison:
        return TensorComparison(self._precision)

    def _read_comparison(self, value: Mapping[str, Any]) -> TensorComparison:
        return TensorComparison.from_json_value(value, self._precision)


def _only(values: Sample, names: Collection[str]) -> dict[str, np.ndarray[Any, Any]]:
    return {name: values[name] for name in names if name in values}


def _digest_of_samples(samples: Sequence[Sample]) -> str:
    digest = hashlib.sha256()
    for sample in samples:
        for name, values in sorted(sample.items()):
            digest.update(repr((name, str(values.dtype), values.shape)).encode())
            digest.update(_bytes_of(values))
        digest.update(b"\0end of sample\0")
    return digest.hexdigest()


def _bytes_of(values: np.ndarray[Any, Any]) -> bytes:
    # Text has no bytes of its own in an array of objects.
    return repr(values.tolist()).encode() if values.dtype.hasobject else values.tobytes()
