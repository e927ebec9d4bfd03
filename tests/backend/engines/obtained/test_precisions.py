"""What each layer obtained, judged by kernels written by hand."""

from __future__ import annotations

import pytest

from polygraphy_layerprec.backend.engines.obtained.layers import EngineLayer, EngineTensor
from polygraphy_layerprec.backend.engines.obtained.precisions import (
    AskedLayer,
    NetworkTypes,
    compare_precisions,
)
from polygraphy_layerprec.records import Constraint


def tensors(types: str, prefix: str) -> tuple[EngineTensor, ...]:
    names = {"F": "FP32", "H": "FP16", "B": "BF16"}
    return tuple(EngineTensor(f"{prefix}{i}", names[x], (4, 4)) for i, x in enumerate(types))


def kernel(name, inputs, outputs, *nodes, weights="", factors="") -> EngineLayer:
    """An engine layer of tensors whose types are written as letters: `F`, `H`, `B`."""
    scalars = tuple(EngineTensor(f"factor{i}", "FP32", (1,)) for i, _ in enumerate(factors))
    return EngineLayer(
        name,
        "kgen",
        nodes,
        tensors(inputs, f"{name} in"),
        tensors(outputs, f"{name} out"),
        tensors(weights, f"{name} weight") + scalars,
    )


def asked(name="n", op="Add", *, in_fp32=True, outputs=("t",), **options) -> AskedLayer:
    return AskedLayer(Constraint(name, op, ("x",), outputs, ""), in_fp32, **options)


def obtained(layer, *kernels, **network) -> str:
    types = {0: NetworkTypes(frozenset(), frozenset(), **network)} if network else None
    (found,) = compare_precisions(kernels, [layer], types).layers
    return found.obtained


@pytest.mark.parametrize(
    ("name", "inputs", "outputs", "expected"),
    [
        ("__myl_Add_myl0_1", "FF", "F", "fp32"),
        ("__myl_Add_myl0_1", "HH", "H", "low"),
        ("__myl_Add_myl0_1", "BB", "B", "low"),
        ("__myl_CastCastAddCast_myl0_1", "HH", "H", "fp32"),
        ("__myl_AddCast_myl0_1", "FF", "H", "fp32"),
        ("__myl_CastAddCast_myl0_1", "FF", "F", "low"),
        ("__myl_ReshCastAddTanhCastTran_myl0_1", "H", "H", "fp32"),
        ("__myl_MulCastAddCast_myl0_1", "H", "H", "fused"),  # the Add may be either of the two
        ("__myl_CastMulAddEtc_myl0_1", "H", "H", "fused"),
        ("__myl_CastAdd_myl0_1", "HF", "F", "fused"),
        ("__myl_Cast_myl0_1", "H", "F", "fused"),
        ("avgpool", "H", "H", "low"),
        ("avgpool", "F", "F", "fp32"),
        ("avgpool", "F", "H", "fused"),
    ],
)
def test_a_kernel_shows_the_width_where_no_cast_is_in_between(name, inputs, outputs, expected):
    assert obtained(asked(), kernel(name, inputs, outputs, "n")) == expected


def test_a_kernel_whose_name_tells_no_steps_may_hold_fp32_unless_it_is_of_one_node():
    attention = kernel("_gemm_mha_v2_myl0_1", "HHH", "H", "q", "n", "v")

    assert obtained(asked(op="Softmax"), attention) == "fused"
    assert obtained(asked(op="Softmax", in_fp32=False), attention) == "low"


@pytest.mark.parametrize(
    ("name", "inputs", "weights", "expected"),
    [
        ("gemm", "H", "H", "low"),
        ("gemm", "F", "F", "fp32"),
        ("gemm", "HH", "", "low"),
        ("__myl_FcTanhCast_myl0_1", "H", "H", "low"),  # its casts were taken away, and its weights
        ("__myl_FcCastTanh_myl0_1", "F", "F", "fp32"),
        ("__myl_CastMulAddCast_myl0_1", "F", "H", "low"),  # a small product, written out
        ("__myl_CastFcCast_myl0_1", "F", "F", "fp32"),
        ("__myl_MulCastFcCast_myl0_1", "H", "F", "fused"),
        ("__myl_CorrCastAdd_myl0_1", "HF", "F", "fused"),
    ],
)
def test_a_product_is_judged_by_what_reaches_it(name, inputs, weights, expected):
    found = kernel(name, inputs, "F", "n", "next", weights=weights, factors="ab")

    assert obtained(asked(op="MatMul", has_weights=bool(weights)), found) == expected


def test_fp32_factors_make_no_product_fp32():
    found = kernel("gemm", "H", "H", "n", weights="H", factors="ab")

    assert obtained(asked(op="MatMul", has_weights=True), found) == "low"


def test_every_kernel_that_holds_a_layer_counts():
    wide, low = kernel("one", "F", "F", "n"), kernel("two", "H", "H", "n")

    assert obtained(asked(), wide, low) == "low"
    assert obtained(asked(in_fp32=False), wide, low) == "fused"


@pytest.mark.parametrize(
    ("in_fp32", "widths", "expected"),
    [
        (True, {"fp32"}, "fp32"),
        (True, {"low"}, "low"),
        (True, {"low", "fp32"}, "low"),
        (True, set(), "fp32"),  # weakly typed: the network does not decide
        (False, {"low"}, "fused"),
        (False, {"fp32"}, "fp32"),
        (False, set(), "fp32"),
    ],
)
def test_the_types_of_the_network_count_as_well(in_fp32, widths, expected):
    found = compare_precisions(
        [kernel("__myl_Add_myl0_1", "F", "F", "n")],
        [asked(in_fp32=in_fp32)],
        {0: NetworkTypes(frozenset(), frozenset(widths))},
    )

    assert found.layers[0].obtained == expected
    assert len(found.not_lowered) == (not in_fp32 and expected == "fp32")


def test_the_network_knows_how_the_engine_names_a_node():
    kernels = [kernel("a", "F", "F", "inner | call_0 (Block)")]
    kernels += [kernel("b", "H", "H", "inner | call_1 (Block)")]
    network = {
        0: NetworkTypes(frozenset({"inner | call_0 (Block)"}), frozenset()),
        1: NetworkTypes(frozenset({"inner | call_1 (Block)"}), frozenset()),
    }

    found = compare_precisions(kernels, [asked("inner__1"), asked("inner__2")], network)

    assert [layer.obtained for layer in found.layers] == ["fp32", "low"]


def test_names_are_found_with_and_without_where_they_are():
    found = kernel("a", "F", "F", "a | b | then (then_branch) | /If (If)")

    assert obtained(asked("a | b"), found) == "fp32"
    assert obtained(asked("a"), found) == "fp32"
    assert obtained(asked("b"), found) == "absent"


def test_a_node_without_a_name_goes_by_its_first_output():
    found = kernel("a", "H", "H", "node_of_t")

    (layer,) = compare_precisions([found], [asked("", outputs=("t", "u"))]).layers

    assert (layer.name, layer.obtained, layer.kernels) == ("t", "low", ("a",))
    assert layer.types == "FP16 -> FP16"


def test_tensors_under_their_onnx_names_tell_where_no_kernel_names_the_node():
    wide = EngineLayer("a + b", "", (), (), (EngineTensor("t", "FP32"),))
    low = EngineLayer("a + b", "", (), (), (EngineTensor("t", "FP16"),))

    assert obtained(asked(), wide) == "fp32"
    assert obtained(asked(), low) == "low"
    assert obtained(asked(outputs=("", "u")), low) == "absent"


def test_what_is_folded_or_computes_no_floats_is_absent():
    weight = kernel("__myl_Fc_myl0_1", "H", "H", "n", "reader")
    jump = EngineLayer("jump", "cjmp", ("n",), (), ())

    assert obtained(asked(is_folded=True), weight) == "absent"
    assert obtained(asked(), jump) == "absent"


def test_the_engine_is_counted():
    layers = [asked("a"), asked("b"), asked("c"), asked("d", in_fp32=False)]
    kernels = [kernel("a", "F", "F", "a"), kernel("b", "H", "H", "b"), kernel("d", "F", "F", "d")]

    found = compare_precisions(kernels, layers)

    assert (len(found.kept), found.kernel_count) == (3, 3)
    assert [found.count_kept(x) for x in ("fp32", "low", "fused", "absent")] == [1, 1, 0, 1]
    assert [layer.name for layer in found.failures] == ["b"]
    assert [layer.name for layer in found.not_lowered] == ["d"]
    assert found.low_tensor_fraction == pytest.approx(1 / 3)
