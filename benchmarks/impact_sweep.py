"""Each layer's impact against the exact one, over ONNX's backend suite and the test models.

Usage: python benchmarks/impact_sweep.py [--only SUBSTRING] [--suite | --corpus]

Prints the layers whose impact is more than three times off the error that their rounding alone
causes, and whether the record says why: an operator without a rule, a decision, steps, few numbers,
or overflow, which is no rounding error. Fails if one does not.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from polygraphy_layerprec.execution import ExecutionError
from polygraphy_layerprec.execution.samples.given import SampleError
from polygraphy_layerprec.model import ModelError, load_graph
from polygraphy_layerprec.pipeline import measure_exact_impacts, rank_model
from polygraphy_layerprec.ranking.order import first_output

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from polygraphy_layerprec.records import RankedLayer

__all__ = ["Comparison", "compare", "main", "suite_models"]

Sample = dict[str, "npt.NDArray[Any]"]

_KINDS: Final = ("node", "simple", "pytorch-converted", "pytorch-operator")
_MOST_RATIO: Final = 3.0
# FP32 itself is no better at an output.
_NEGLIGIBLE: Final = 1e-6
_BUILDERS: Final = tuple(
    """
    additive_mask cancellation constant_nodes custom_domain decomposed_layer_norm
    dynamic_shapes float16_part float64_part harmless_large_values if_with_capture
    infinity_minus_infinity integer_output local_function long_reduction loop_with_capture odd_names
    optional_tensors overflow_then_recovery quantize_dequantize random_numbers scan_with_capture
    sequences shared_weight small_cnn small_transformer underflow unsorted_nodes
    """.split()
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One layer's impact beside the exact one."""

    model: str
    """Which model."""

    layer: RankedLayer
    """The layer, with its impact."""

    exact: float
    """The relative output error that it alone causes."""

    @property
    def agrees(self) -> bool:
        """Whether the two are within three times of each other, or both are negligible."""
        low, high = sorted((self.layer.impact, self.exact))
        return high <= _NEGLIGIBLE or high <= _MOST_RATIO * low

    @property
    def is_explained(self) -> bool:
        """Whether the record says why the impact may be off."""
        return self.layer.overflow or self.layer.keeps_finite or bool(self.layer.caveat)


def compare(name: str, model: onnx.ModelProto, samples: Sequence[Sample]) -> list[Comparison]:
    """Returns the layers of one model with both impacts; none where nothing can be ranked."""
    try:
        graph = load_graph(model)
        ranking = rank_model(graph, samples)
        exact = measure_exact_impacts(graph, samples)
    except (ExecutionError, ModelError, SampleError):
        return []
    return [Comparison(name, layer, exact[first_output(layer.outputs)]) for layer in ranking.layers]


def suite_models(only: str = "") -> Iterator[tuple[str, onnx.ModelProto, list[Sample]]]:
    """Yields name, model and samples of ONNX's backend suite, as far as inputs are tensors."""
    for kind in _KINDS:
        for case in load_model_tests(kind=kind):
            if only not in case.name or case.name.removesuffix("_cuda").endswith("_training_mode"):
                continue
            if case.model is None:
                folder = Path(case.model_dir)
                model = onnx.load(folder / "model.onnx")
                sets = [_read_inputs(each) for each in sorted(folder.glob("test_data_set_*"))]
            else:
                model, sets = case.model, [list(inputs) for inputs, _ in case.data_sets]
            names = [value.name for value in model.graph.input]
            samples = [dict(zip(names, arrays, strict=False)) for arrays in sets]
            if all(_is_numeric(array) for sample in samples for array in sample.values()):
                yield case.name, model, samples


def _is_numeric(array: object) -> bool:
    return isinstance(array, np.ndarray) and array.dtype.kind not in "OUS"


def _read_inputs(folder: Path) -> list[npt.NDArray[Any]]:
    arrays = []
    for index in range(len(list(folder.glob("input_*.pb")))):
        tensor = onnx.TensorProto()
        tensor.ParseFromString((folder / f"input_{index}.pb").read_bytes())
        arrays.append(numpy_helper.to_array(tensor))
    return arrays


def corpus_models(only: str = "") -> Iterator[tuple[str, onnx.ModelProto, list[Sample]]]:
    """Yields name, model and samples of the models that the tests are made with."""
    zoo = importlib.import_module("tests.emit.onnx_zoo")
    for name, build in zoo.ZOO.items():
        if only in name:
            model = build()
            yield name, model, [zoo.feeds(model)]
    models = importlib.import_module("tests.models")
    for name in _BUILDERS:
        if only in name:
            model = getattr(models, name)()
            yield name, model, [models.sample_inputs(model)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the sweep; returns 1 if a layer is off and does not say why."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="models whose name contains this")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--suite", action="store_true", help="the backend suite alone")
    group.add_argument("--corpus", action="store_true", help="the test models alone")
    options = parser.parse_args(arguments)
    found: list[Comparison] = []
    if not options.corpus:
        for suite_model in suite_models(options.only):
            found += compare(*suite_model)
    if not options.suite:
        for corpus_model in corpus_models(options.only):
            found += compare(*corpus_model)
    off = [comparison for comparison in found if not comparison.agrees]
    for comparison in off:
        layer = comparison.layer
        print(
            f"{'why said ' if comparison.is_explained else 'UNSAID   '} {comparison.model} "
            f"{layer.name} ({layer.op}): impact {layer.impact:.2g}, exact {comparison.exact:.2g}, "
            f"by {layer.impact_method}: {layer.reason}"
        )
    unsaid = sum(not comparison.is_explained for comparison in off)
    print(f"{len(found)} layers, {len(off)} off by more than 3x, {unsaid} do not say why")
    return int(unsaid > 0)


if __name__ == "__main__":
    sys.exit(main())
