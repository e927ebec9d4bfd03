"""Checks a vector-Jacobian rule against central differences of a float64 evaluation.

The rule sees only the values that it declares to read: all others are None.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnx import ModelProto, helper
from onnx.reference import ReferenceEvaluator

from polygraphy_layerprec.divergence.rules import Application, Reads, Rule, find_rule
from tests.foreign_arrays import ForeignArray, foreign, foreign_arrays

Array = npt.NDArray[Any]
Evaluate = Callable[[Sequence[Array | None]], Sequence[Array]]

# A central difference in float64 is off by about step^2 and 2^-53 / step.
STEP = 1e-5
TOLERANCE = 2e-6
COMPUTED_ON_THE_HOST = {
    *(("", name) for name in ("GRU", "GridSample", "LSTM", "RNN", "Resize", "Upsample")),
    *(("", name) for name in ("DequantizeLinear", "QuantizeLinear")),
}
"""Domain and operator of the rules that bring what lies on a device to the host."""

# ONNX Runtime computes in float32: enough for piecewise linear operators and large steps.
COARSE_STEP = 2.0**-6
COARSE_TOLERANCE = 1e-4


def check_rule(  # noqa: PLR0913 - each says one thing about the case
    op_type: str,
    inputs: Sequence[Array | None],
    attributes: Mapping[str, Any] | None = None,
    *,
    opset: int = 22,
    domain: str = "",
    outputs: int = 1,
    wanted: Sequence[int] | None = None,
    evaluate: Evaluate | None = None,
    seed: int = 0,
    uses_onnxruntime: bool = False,
) -> None:
    """Asserts that the rule's gradients agree with finite differences, and what it promises.

    `wanted` defaults to all float inputs, and `evaluate` to ONNX's reference evaluator, or to
    ONNX Runtime where asked for.
    """
    attributes = dict(attributes or {})
    make = onnxruntime_evaluation if uses_onnxruntime else reference_evaluation
    function = evaluate or make(op_type, inputs, attributes, opset=opset, outputs=outputs)
    values = [np.asarray(y) for y in function(inputs)]
    # A stream of its own: a probe equal to the inputs hides errors, as in any normalization.
    generator = np.random.default_rng([seed, len(op_type), 7919])
    probes = [
        generator.standard_normal(y.shape) if is_float(y) else None for y in values[:outputs]
    ] + [None] * (len(values) - outputs)
    found = find_rule(op_type, domain, opset)
    assert found is not None, f"no rule for {op_type}-{opset}"
    if wanted is None:
        wanted = [i for i, x in enumerate(inputs) if x is not None and is_float(x)]
    assert wanted
    for position in wanted:
        application = visible_application(
            found, op_type, opset, attributes, inputs, values, {position}
        )
        gradient = apply_silently(found, application, probes)[position]
        assert gradient is not None, f"{op_type} has no gradient for input {position}"
        assert gradient.shape == np.shape(inputs[position])
        step, tolerance = (COARSE_STEP, COARSE_TOLERANCE) if uses_onnxruntime else (STEP, TOLERANCE)
        actual, expected, size = slopes(
            function, inputs, probes, gradient, position=position, generator=generator, step=step
        )
        assert abs(actual - expected) <= tolerance * max(1.0, size), f"input {position}"
        assert_keeps_float32(found, application, probes, position)
        stays = (domain, op_type) not in COMPUTED_ON_THE_HOST
        assert_serves_devices(found, application, probes, position, stays=stays)


def reference_evaluation(
    op_type: str,
    inputs: Sequence[Array | None],
    attributes: Mapping[str, Any],
    *,
    opset: int,
    outputs: int,
) -> Evaluate:
    """Returns ONNX's reference implementation of one node as a function of its inputs."""
    evaluator = ReferenceEvaluator(_one_node_model(op_type, inputs, attributes, opset, outputs))

    def evaluate(values: Sequence[Array | None]) -> Sequence[Array]:
        feed = {f"x{i}": x for i, x in enumerate(values) if x is not None}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [np.asarray(y) for y in evaluator.run(None, feed)]

    return evaluate


def onnxruntime_evaluation(
    op_type: str,
    inputs: Sequence[Array | None],
    attributes: Mapping[str, Any],
    *,
    opset: int,
    outputs: int,
) -> Evaluate:
    """Returns ONNX Runtime's float32 implementation of one node as a function of its inputs."""
    narrow = [_narrow(x) for x in inputs]
    model = _one_node_model(op_type, narrow, attributes, opset, outputs)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )

    def evaluate(values: Sequence[Array | None]) -> Sequence[Array]:
        feed = {f"x{i}": _narrow(x) for i, x in enumerate(values) if x is not None}
        return [y.astype(np.float64) if is_float(y) else y for y in session.run(None, feed)]

    return evaluate


def visible_application(
    rule: Rule,
    op_type: str,
    opset: int,
    attributes: Mapping[str, Any],
    inputs: Sequence[Array | None],
    outputs: Sequence[Array],
    wanted: set[int],
) -> Application:
    """Returns the node with None for each value that the rule does not declare to read."""

    def is_kept(position: int, value: Array) -> bool:
        if value.dtype.kind in "iu" or rule.reads_inputs is Reads.ALL:
            return True
        reads_others = rule.reads_inputs is Reads.OTHERS
        return position in rule.reads_always or (reads_others and bool(wanted - {position}))

    return Application(
        op_type=op_type,
        opset=opset,
        attributes=attributes,
        inputs=[x if x is not None and is_kept(i, x) else None for i, x in enumerate(inputs)],
        outputs=list(outputs) if rule.reads_outputs else [None] * len(outputs),
        input_shapes=[None if x is None else x.shape for x in inputs],
        output_shapes=[y.shape for y in outputs],
        wanted=frozenset(wanted),
    )


def apply_silently(
    rule: Rule, application: Application, probes: Sequence[Array | None]
) -> Sequence[Array | None]:
    """Returns the rule's gradients; a warning or a write to what it was given is an error."""
    given = [x for x in (*application.inputs, *application.outputs, *probes) if x is not None]
    before = [x.copy() for x in given]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gradients = rule.apply(application, probes)
    assert len(gradients) == len(application.input_shapes)
    for value, copy in zip(given, before, strict=True):
        np.testing.assert_array_equal(value, copy)
    return gradients


def slopes(
    function: Evaluate,
    inputs: Sequence[Array | None],
    probes: Sequence[Array | None],
    gradient: Array,
    *,
    position: int,
    generator: np.random.Generator,
    step: float,
) -> tuple[float, float, float]:
    """Returns the slope of the probed outputs along a random direction.

    First by the gradient, then by differences, then the scale that errors are relative to.
    """
    value = inputs[position]
    assert value is not None
    direction = generator.standard_normal(value.shape)
    changed = []
    for sign in (1, -1):
        moved = list(inputs)
        moved[position] = value + sign * step * direction
        changed.append(
            sum(
                float(np.sum(v * y))
                for v, y in zip(probes, function(moved), strict=False)
                if v is not None
            )
        )
    size = float(np.linalg.norm(gradient) * np.linalg.norm(direction))
    return float(np.sum(gradient * direction)), (changed[0] - changed[1]) / (2 * step), size


def assert_keeps_float32(
    rule: Rule, application: Application, probes: Sequence[Array | None], position: int
) -> None:
    """Checks the dtype of what the rule itself computes, before it is cast to the promised one."""
    narrow = Application(
        op_type=application.op_type,
        opset=application.opset,
        attributes=application.attributes,
        inputs=[_narrow(x) for x in application.inputs],
        outputs=[_narrow(y) for y in application.outputs],
        input_shapes=application.input_shapes,
        output_shapes=application.output_shapes,
        wanted=application.wanted,
    )
    computed: Any = getattr(rule.apply, "__wrapped__")  # noqa: B009
    with np.errstate(all="ignore"):
        gradient = computed(narrow, [_narrow(v) for v in probes])[position]
    assert gradient.dtype == np.float32


def assert_serves_devices(
    rule: Rule,
    application: Application,
    probes: Sequence[Array | None],
    position: int,
    *,
    stays: bool,
) -> None:
    """Checks that arrays of another library than numpy are served, and computed by that alone."""
    computed: Any = getattr(rule.apply, "__wrapped__")  # noqa: B009
    expected = rule.apply(application, probes)[position]
    for kinds in ("fcb", "fcbiu"):  # integers are on the host where a model brings them

        def moved(values: Array | None, kinds: str = kinds) -> Any:
            goes = values is not None and values.dtype.kind in kinds
            return foreign(values) if goes else values

        away = replace(
            application,
            inputs=[moved(x) for x in application.inputs],
            outputs=[moved(y) for y in application.outputs],
        )
        gradients = [moved(v) for v in probes]
        with foreign_arrays(), np.errstate(all="ignore"):
            if stays:  # an error here is a call of numpy that the array's library should get
                assert isinstance(computed(away, gradients)[position], ForeignArray)
            found = rule.apply(away, gradients)[position]
        assert isinstance(found, ForeignArray)
        np.testing.assert_allclose(found.values, expected, rtol=1e-12, atol=1e-12)


def is_float(value: Array) -> bool:
    """Tells whether an array holds floats."""
    return value.dtype.kind == "f"


def _one_node_model(
    op_type: str,
    inputs: Sequence[Array | None],
    attributes: Mapping[str, Any],
    opset: int,
    outputs: int,
) -> ModelProto:
    results = [f"y{i}" for i in range(outputs)]
    names = ["" if x is None else f"x{i}" for i, x in enumerate(inputs)]
    graph = helper.make_graph(
        [helper.make_node(op_type, names, results, **attributes)],
        "one_node",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(x.dtype), list(x.shape)
            )
            for name, x in zip(names, inputs, strict=True)
            if x is not None
        ],
        [helper.make_empty_tensor_value_info(y) for y in results],
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _narrow(value: Array | None) -> Array | None:
    return value.astype(np.float32) if value is not None and is_float(value) else value
