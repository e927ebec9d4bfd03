"""The registry finds a rule for each operator that the adjoint promises to cover."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from polygraphy_layerprec.divergence import rules
from polygraphy_layerprec.divergence.rules import Application, Reads, find_rule, registry

# Lines of operators by family; elementwise ones have no rule before operator set 7, where
# broadcasting was still an attribute.
COVERED = """
MatMul Gemm Conv ConvTranspose Einsum
Add Sub Mul Div Pow Neg Abs Sqrt Exp Log Reciprocal Min Max Sum Mean Where Clip Mod
Sign Floor Ceil Round Sin Cos Tan Asin Acos Atan Sinh Cosh Asinh Acosh Atanh
Relu LeakyRelu PRelu Elu Selu Celu ThresholdedRelu Gelu Erf Tanh Sigmoid HardSigmoid HardSwish
Mish Swish Softplus Softsign Shrink Softmax LogSoftmax Hardmax
LayerNormalization BatchNormalization InstanceNormalization GroupNormalization RMSNormalization
LpNormalization LRN MeanVarianceNormalization
ReduceSum ReduceMean ReduceMax ReduceMin ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSum
ReduceLogSumExp ReduceProd CumSum
MaxPool AveragePool LpPool GlobalAveragePool GlobalMaxPool GlobalLpPool
Resize Upsample GridSample Pad
Concat Split Slice Gather GatherElements GatherND ScatterND ScatterElements Scatter Expand Tile
Transpose Reshape Flatten Squeeze Unsqueeze Identity Cast CastLike Dropout DepthToSpace SpaceToDepth
TopK Trilu Compress ReverseSequence CenterCropPad
QuantizeLinear DequantizeLinear DynamicQuantizeLinear
Attention RotaryEmbedding LSTM GRU RNN
""".split()

OLDEST_OPSET = 7


@pytest.mark.parametrize("op_type", COVERED)
def test_operator_has_a_rule_wherever_it_exists(op_type):
    for opset in range(OLDEST_OPSET, onnx.defs.onnx_opset_version() + 1):
        try:
            schema = onnx.defs.get_schema(op_type, opset)
        except onnx.defs.SchemaError:
            continue
        if not schema.deprecated:
            assert find_rule(op_type, "", opset) is not None, f"{op_type}-{opset}"


def test_operator_without_a_rule_is_told_so():
    assert find_rule("NonMaxSuppression", "", 13) is None
    assert find_rule("MatMul", "some.vendor", 1) is None


def test_newer_rule_takes_over_from_its_operator_set_on():
    assert find_rule("Clip", "", 10).reads_inputs is Reads.NONE
    assert find_rule("Clip", "", 11).reads_inputs is Reads.OTHERS
    assert find_rule("Gelu", "", 19) is None or find_rule("Gelu", "", 20) is not None


def test_absent_output_gradients_give_no_gradient():
    node = application("Add")

    assert find_rule("Add", "", 13).apply(node, [None]) == [None, None]


def test_only_wanted_gradients_are_given():
    node = application("Add", wanted={1})

    first, second = find_rule("Add", "", 13).apply(node, [np.ones(2)])

    assert first is None
    assert second.tolist() == [1, 1]


def test_gradient_takes_the_dtype_of_the_output_gradient():
    node = application("Mul", inputs=[np.ones(2), np.ones(2)])

    for dtype in (np.float16, np.float32, np.float64):
        gradients = find_rule("Mul", "", 13).apply(node, [np.ones(2, dtype)])
        assert [g.dtype for g in gradients] == [dtype, dtype]


def test_value_that_was_not_kept_is_named():
    node = application("Mul")

    with pytest.raises(ValueError, match="must be present, got no Mul input 1"):
        find_rule("Mul", "", 13).apply(node, [np.ones(2)])


def test_every_rule_names_the_source_of_its_formula():
    functions = {r.apply for found in registry._RULES.values() for r in found}

    assert all("ONNX" in (function.__doc__ or "") for function in functions)


def test_rules_import_numpy_and_the_standard_library_alone():
    allowed = {"numpy", "polygraphy_layerprec", *sys.stdlib_module_names}
    for path in Path(rules.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert {name.split(".")[0] for name in names} <= allowed, path.name
            assert all(
                name.startswith(("polygraphy_layerprec.divergence", "polygraphy_layerprec.arrays"))
                for name in names
                if name.startswith("polygraphy")
            )


def application(op_type, *, inputs=(None, None), wanted=(0, 1)):
    return Application(
        op_type=op_type,
        opset=13,
        attributes={},
        inputs=inputs,
        outputs=[None],
        input_shapes=[(2,), (2,)],
        output_shapes=[(2,)],
        wanted=frozenset(wanted),
    )
