"""How far the tensors of engines are apart; each comparison is kept once it is there."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from polygraphy_layerprec.backend.engines.session import only
from polygraphy_layerprec.backend.engines.specs import EngineSpec
from polygraphy_layerprec.execution.comparison.tensor_comparison import TensorComparison

if TYPE_CHECKING:
    from polygraphy_layerprec.backend.engines.session import EngineSession
    from polygraphy_layerprec.precision import Precision

__all__ = ["EngineComparisons", "MarkedResult", "OutputsResult"]

_REFERENCE: Final = EngineSpec("reference")
_Comparisons = dict[str, TensorComparison]


@dataclass(frozen=True, slots=True)
class OutputsResult:
    """The engines as they are deployed: without marks."""

    lowered: TensorComparison
    """Outputs of the lowered engine against those of the reference engine."""

    reference: TensorComparison
    """Outputs of the reference engine against FP32 elsewhere."""


@dataclass(frozen=True, slots=True)
class MarkedResult:
    """A pair of engines with marked tensors."""

    tensors: TensorComparison
    """The marked tensors of the lowered engine against those of the reference engine."""

    outputs: TensorComparison
    """The same of the model's outputs."""

    reference_drift: TensorComparison
    """Outputs of the reference engine with marks against those of the one without."""


class EngineComparisons:
    """Compares engines of a model in FP32 with lowered ones."""

    def __init__(
        self, session: EngineSession, *, counted: Sequence[str], precision: Precision
    ) -> None:
        """Prepares to compare.

        Args:
            session: The engines, and the samples they run on.
            counted: Names of the outputs that count towards the output error.
            precision: The low precision.
        """
        self._session = session
        self._open = session.stack.open
        self._outputs = session.outputs
        self._counted = tuple(counted)
        self._precision = precision

    def compare_outputs(self) -> OutputsResult:
        """Returns how far the outputs are apart, and keeps those of the reference engine.

        Raises:
            EngineError: If an engine cannot be built or run.
        """
        specs = _REFERENCE, EngineSpec("lowered")

        def measure() -> _Comparisons:
            lowered, reference = self._new_comparison(), self._new_comparison()
            with self._open(specs[0]) as reference_engine, self._open(specs[1]) as lowered_engine:
                for index, sample in enumerate(self._session.samples):
                    exact = only(reference_engine.infer(sample), self._outputs)
                    self._session.save_outputs(_REFERENCE, index, exact)
                    lowered.add_sample(exact, only(lowered_engine.infer(sample), self._outputs))
                    elsewhere = self._session.stack.run_fp32(sample)
                    reference.add_sample(only(elsewhere, self._outputs), exact)
            return {"lowered": lowered, "reference": reference}

        return OutputsResult(**self._result("outputs, FP32 elsewhere", specs, measure))

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

        def measure() -> _Comparisons:
            tensors, outputs, drift = (self._new_comparison() for _ in range(3))
            with self._open(specs[0]) as reference_engine, self._open(specs[1]) as lowered_engine:
                for index, sample in enumerate(self._session.samples):
                    exact, low = reference_engine.infer(sample), lowered_engine.infer(sample)
                    inner = marked or self._inner_names(exact, low)
                    tensors.add_sample(only(exact, inner), only(low, inner))
                    outputs.add_sample(only(exact, self._outputs), only(low, self._outputs))
                    unmarked = self._session.load_outputs(_REFERENCE, index)
                    drift.add_sample(unmarked, only(exact, self._outputs))
            return {"tensors": tensors, "outputs": outputs, "reference_drift": drift}

        return MarkedResult(**self._result("marked tensors", specs, measure))

    def measure_impact(self, output: str) -> float:
        """Returns the output error with one layer lowered; `compare_outputs` comes first.

        Args:
            output: An output tensor of the layer.

        Raises:
            EngineError: If the engine cannot be built or run.
        """
        spec = EngineSpec("one layer", layer=output)

        def measure() -> _Comparisons:
            comparison = self._new_comparison()
            with self._open(spec) as engine:
                for index, sample in enumerate(self._session.samples):
                    exact = self._session.load_outputs(_REFERENCE, index)
                    comparison.add_sample(exact, only(engine.infer(sample), self._outputs))
            return {"outputs": comparison}

        found = self._result("outputs, one layer", (_REFERENCE, spec), measure)
        return self.output_error(found["outputs"])

    def output_error(self, comparison: TensorComparison) -> float:
        """Returns the relative L2 error, root mean square over outputs that count and samples."""
        found = [comparison[name] for name in self._counted]
        count = sum(divergence.compared_count for divergence in found)
        total = math.fsum(divergence.squared_error for divergence in found)
        return math.sqrt(total / count) if count else 0.0

    def _inner_names(self, *sides: Mapping[str, object]) -> tuple[str, ...]:
        names = dict.fromkeys(name for side in sides for name in side)
        return tuple(name for name in names if name not in self._outputs)

    def _new_comparison(self) -> TensorComparison:
        return TensorComparison(self._precision)

    def _result(
        self, what: str, specs: Sequence[EngineSpec], measure: Callable[[], _Comparisons]
    ) -> _Comparisons:
        found = self._session.result(
            what, specs, lambda: {name: c.to_json_value() for name, c in measure().items()}
        )
        return {
            name: TensorComparison.from_json_value(value, self._precision)
            for name, value in found.items()
        }
