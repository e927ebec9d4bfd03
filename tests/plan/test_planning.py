"""Plans of every model of the zoo, for every target: one width for each tensor, or a cast."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from polygraphy_layerprec.model import Graph, Role, load_graph
from polygraphy_layerprec.plan import KeptLayers, Planner, Target, Verdict, Width
from polygraphy_layerprec.precision import BF16, FP16, Precision
from tests.emit.onnx_zoo import ZOO
from tests.models import build_model, if_with_capture, node, normal, tensor

PRECISIONS = {precision.name: precision for precision in (FP16, BF16)}


@functools.cache
def graph_of(case: str) -> Graph:
    return load_graph(ZOO[case]())


@functools.cache
def planner_of(case: str, precision: str, target: Target, io_width: Width) -> Planner:
    return Planner(graph_of(case), PRECISIONS[precision], target, io_width=io_width)


def plan_of(model, *kept: str, precision: Precision = FP16, target: Target = Target.STRONG):
    planner = Planner(load_graph(model), precision, target)
    return planner.plan(KeptLayers.of_outputs(kept))


def verdicts(plan):
    return {n.outputs[0]: plan.of(n).verdict for n in plan.graph.nodes}


@settings(max_examples=8)
@given(
    data=st.data(),
    precision=st.sampled_from(sorted(PRECISIONS)),
    target=st.sampled_from(Target),
    io_width=st.sampled_from([Width.FP32, Width.LOW]),
)
@pytest.mark.parametrize("case", sorted(ZOO))
def test_both_ends_of_every_edge_have_one_width_or_a_cast_between(
    case, data, precision, target, io_width
):
    graph = graph_of(case)
    outputs = [layer.outputs[0] for layer in graph.layers if layer.outputs[0]]
    kept = data.draw(st.sets(st.sampled_from(outputs))) if outputs else set()

    plan = planner_of(case, precision, target, io_width).plan(KeptLayers.of_outputs(kept))

    for found, taken in zip(graph.nodes, plan.nodes, strict=True):
        for name, width in zip(found.inputs, taken.inputs, strict=True):
            assert (width is not None) == graph.is_fp32(name)
            made = plan.natives.get(name)
            if width not in (None, Width.EITHER) and made is not Width.EITHER:
                assert made is width or (name, width) in plan.casts
        for name, width in zip(found.outputs, taken.outputs, strict=True):
            assert (width is not None) == graph.is_fp32(name)
    # No cast is without a reason: it changes something, and somebody reads it.
    read = {
        (n, w)
        for f, t in zip(graph.nodes, plan.nodes, strict=True)
        for n, w in zip(f.inputs, t.inputs, strict=True)
    }
    for name, width in plan.casts:
        assert plan.natives[name] is not width
        inside = any(name in (*n.captures, *sum(n.branches, ())) for n in graph.nodes)
        assert (name, width) in read or name in graph.outputs or inside
    for name in graph.outputs:
        if graph.is_fp32(name) and name in plan.natives:
            native = plan.natives[name]
            assert native in (io_width, Width.EITHER) or (name, io_width) in plan.casts


@settings(max_examples=5)
@given(
    data=st.data(),
    precision=st.sampled_from(sorted(PRECISIONS)),
    target=st.sampled_from(Target),
)
@pytest.mark.parametrize("case", sorted(ZOO))
def test_what_is_kept_is_kept_and_nothing_else_is(case, data, precision, target):
    graph = graph_of(case)
    outputs = [layer.outputs[0] for layer in graph.layers if layer.outputs[0]]
    kept = data.draw(st.sets(st.sampled_from(outputs))) if outputs else set()
    planner = planner_of(case, precision, target, Width.FP32)

    plan, free = planner.plan(KeptLayers.of_outputs(kept)), planner.plan()

    for found in graph.nodes:
        verdict = plan.of(found).verdict
        if found.is_layer and set(found.outputs) & kept:
            assert verdict is Verdict.KEPT
            assert Width.LOW not in (*plan.of(found).inputs, *plan.of(found).outputs)
        elif found.is_layer:
            assert verdict is free.of(found).verdict
        if found.role is Role.APART or found.role is Role.SHAPES:
            assert verdict is not Verdict.LOWERED
    assert plan.graph is graph


@pytest.mark.parametrize("target", [Target.STRONG, Target.ONNX])
def test_a_graph_with_every_layer_kept_has_no_cast(target):
    for case in ("multilayer perceptron", "convolutional, opset 11", "conditional", "loop"):
        graph = graph_of(case)

        plan = Planner(graph, FP16, target).plan(KeptLayers.of_nodes(graph.layers))

        assert plan.casts == frozenset()
        assert Width.LOW not in plan.natives.values()


def test_a_weakly_typed_builder_may_lower_what_moves_values_between_kept_layers():
    graph = graph_of("multilayer perceptron")

    plan = Planner(graph, FP16, Target.WEAK).plan(KeptLayers.of_nodes(graph.layers))

    assert {n.role for n in graph.nodes if plan.is_lowered(n)} == {Role.EXACT}


def test_what_moves_values_between_lowered_layers_is_lowered_and_between_kept_ones_follows():
    nodes = [
        node("Exp", ["x"], "a"),
        node("Transpose", ["a"], "b"),
        node("Relu", ["b"], "c"),
        node("MatMul", ["c", "w"], "y"),
    ]
    model = build_model(nodes, [tensor("x", [2, 4])], [tensor("y", [4, 3])], {"w": normal(0, 2, 3)})

    lowered = plan_of(model)
    kept = plan_of(model, "a", "y")
    half = plan_of(model, "a")

    assert set(verdicts(lowered).values()) == {Verdict.LOWERED}
    assert lowered.casts == {("x", Width.LOW), ("y", Width.FP32)}
    assert verdicts(kept) == {
        "a": Verdict.KEPT,
        "b": Verdict.FOLLOWS,
        "c": Verdict.FOLLOWS,
        "y": Verdict.KEPT,
    }
    assert kept.casts == frozenset()
    # All that becomes of it is rounded anyway: moving half the bytes is cheaper.
    assert verdicts(half)["b"] is verdicts(half)["c"] is Verdict.LOWERED
    assert half.casts == {("a", Width.LOW), ("y", Width.FP32)}


@pytest.mark.parametrize(("kept", "cast"), [((), True), (("then_out",), False)])
def test_an_if_hands_on_fp32(kept, cast):
    plan = plan_of(if_with_capture(), *kept)

    assert plan.natives["chosen"] is Width.FP32
    assert (("then_out", Width.FP32) in plan.casts) is cast
    assert ("chosen", Width.LOW) in plan.casts
    assert plan.is_lowered(plan.graph.producers["then_out"]) is cast


def test_double_is_computed_apart_and_said():
    plan = Planner(graph_of("double part"), FP16).plan()

    doubles = [n for n in plan.graph.nodes if n.role is Role.APART]
    assert doubles
    made = {plan.graph.element_type(n.outputs[0]) for n in doubles}
    assert made == {TensorProto.DOUBLE}
    assert {plan.of(n).reason for n in doubles} == {"it computes in DOUBLE"}


def test_a_planner_gives_the_same_plan_for_the_same_layers():
    planner = Planner(graph_of("u-net"), FP16)
    some = KeptLayers.of_nodes(planner.plan().graph.layers[::2])

    first, _, again = planner.plan(some), planner.plan(), planner.plan(some)

    assert (first.nodes, first.natives, first.casts) == (again.nodes, again.natives, again.casts)


def test_a_saved_model_says_what_it_reads_otherwise_than_a_network():
    model = build_model(
        [node("DequantizeLinear", ["q", "s"], "w"), node("MatMul", ["x", "w"], "y")],
        [tensor("x", [2, 4])],
        [tensor("y", [2, 4])],
        {"q": np.eye(4, dtype=np.int8), "s": np.float32(0.013)},
    )
    model.opset_import[0].version = 21
    graph = load_graph(model)

    saved = Planner(graph, FP16, Target.ONNX).plan().deviating
    network = Planner(graph, FP16).plan().deviating

    assert [(each.op, each.reason) for each in saved] == [
        ("DequantizeLinear", "'s' is rounded, which a network reads as it is")
    ]
    assert network == ()


@pytest.mark.parametrize("op_type", ["Floor", "Ceil", "Round", "Sign", "Hardmax"])
@pytest.mark.parametrize("kept", [(), ("h",)])
def test_what_jumps_is_of_the_width_of_what_it_takes(op_type, kept):
    model = build_model(
        [
            node("Exp", ["x"], "h", name="exp"),
            node(op_type, ["h"], "whole", name="jump"),
            node("Tanh", ["whole"], "y", name="last"),
        ],
        [tensor("x", [2, 4])],
        [tensor("y", [2, 4])],
    )
    plan = plan_of(model, *kept)

    assert plan.natives.get("whole") is (Width.FP32 if kept else Width.LOW)


@pytest.mark.parametrize(
    ("kept", "count"), [((), 0), (("h",), 1), (("h", "y"), 3), (("h", "y", "z"), 4)]
)
def test_nodes_in_fp32_are_counted_with_what_moves_values_between_them(kept, count):
    model = build_model(
        [
            node("Exp", ["x"], "h", name="exp"),
            node("Transpose", ["h"], "turned", name="move", perm=[1, 0]),
            node("Tanh", ["turned"], "y", name="tanh"),
            node("Sigmoid", ["x"], "z", name="sigmoid"),
        ],
        [tensor("x", [2, 4])],
        [tensor("y", [4, 2]), tensor("z", [2, 4])],
    )

    assert plan_of(model, *kept).fp32_node_count == count


@pytest.mark.parametrize(
    ("scale", "verdict"),
    [
        (2.0**-14, Verdict.LOWERED),
        (2.0**-14 - 2.0**-24, Verdict.LEFT),
        (65504.0, Verdict.LOWERED),
        (65536.0, Verdict.LEFT),
    ],
)
def test_a_scale_is_rounded_with_its_node_where_it_is_a_normal_number(scale, verdict):
    model = build_model(
        [
            node("DequantizeLinear", ["q", "scale"], "d", name="scale"),
            node("Exp", ["d"], "y", name="exp"),
        ],
        [tensor("q", [4], TensorProto.INT8)],
        [tensor("y", [4])],
        {"scale": np.float32(scale)},
        opset=21,
    )

    assert verdicts(plan_of(model, target=Target.ONNX))["d"] is verdict
