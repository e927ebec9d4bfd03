"""Weak typing, with a TensorRT that consists of what the rewriter reads and sets."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from polygraphy_layerprec.emit.name_bridge import LayerConstraint
from polygraphy_layerprec.emit.network_rewriter import constrain_network
from polygraphy_layerprec.emit.network_view import NetworkError


class FakeLayer:
    """Layer of a weakly typed network."""

    precision = None

    def __init__(self, name, kind, inputs, outputs):
        self.name, self.type = name, SimpleNamespace(name=kind)
        self.inputs, self.outputs = inputs, outputs
        self.num_inputs, self.num_outputs = len(inputs), len(outputs)
        self.output_types = {}

    def get_input(self, index):
        return self.inputs[index]

    def get_output(self, index):
        return self.outputs[index]

    def set_output_type(self, index, dtype):
        self.output_types[index] = dtype


class FakeNetwork:
    """Weakly typed network; its class pretends to be of a TensorRT."""

    __module__ = "fake_tensorrt.bindings"

    def __init__(self, layers, inputs, outputs):
        self.layers, self.inputs, self.outputs = layers, inputs, outputs
        self.num_layers, self.num_inputs = len(layers), len(inputs)
        self.num_outputs = len(outputs)

    def get_layer(self, index):
        return self.layers[index]

    def get_input(self, index):
        return self.inputs[index]

    def get_output(self, index):
        return self.outputs[index]


@pytest.fixture
def fake_tensorrt(monkeypatch):
    """A package that has what its submodule lacks, as in some versions."""
    module = ModuleType("fake_tensorrt")
    module.ILayer, module.NetworkDefinitionCreationFlag = FakeLayer, SimpleNamespace()
    module.float32, module.float16 = "float32", "float16"
    monkeypatch.setitem(sys.modules, "fake_tensorrt", module)
    monkeypatch.setitem(sys.modules, "fake_tensorrt.bindings", ModuleType("bindings"))
    return module


def tensor(name, dtype="float32", *, is_shape=False):
    return SimpleNamespace(name=name, dtype=dtype, is_shape_tensor=is_shape, shape=(2, 4))


def constraint(layer):
    inputs = tuple(source.name for source in layer.inputs)
    return LayerConstraint(layer.name, "Op", inputs, (layer.outputs[0].name,), "a test")


def test_float_outputs_of_chosen_layers_are_typed(fake_tensorrt):
    del fake_tensorrt
    x, values, indices = tensor("x"), tensor("values"), tensor("indices", "int32")
    top, other = FakeLayer("top", "TOPK", [x], [values, indices]), tensor("other")
    layers = [top, FakeLayer("exp", "UNARY", [x], [other])]

    summary = constrain_network(
        FakeNetwork(layers, [x], [values, other]), [constraint(top)], precision="fp16"
    )

    assert (top.precision, top.output_types) == ("float32", {0: "float32"})
    assert (layers[1].precision, layers[1].output_types) == (None, {})
    assert "1 layers kept in FP32, the others left to the builder" in summary


@pytest.mark.parametrize("kind", ["CAST", "CONSTANT", "QUANTIZE", "RECURRENCE", "SHAPE"])
def test_layers_that_compute_nothing_get_no_precision(fake_tensorrt, kind):
    del fake_tensorrt
    x, y = tensor("x"), tensor("y")
    layer = FakeLayer("layer", kind, [x], [y])

    summary = constrain_network(
        FakeNetwork([layer], [x], [y]), [constraint(layer)], precision="fp16"
    )

    assert layer.precision is None
    assert summary.startswith("[layerprec] 0 layers kept")


def test_shape_arithmetic_and_integer_layers_get_no_precision(fake_tensorrt):
    del fake_tensorrt
    x, shape, i = tensor("x"), tensor("shape", is_shape=True), tensor("i", "int32")
    floats = FakeLayer("floats", "ELEMENTWISE", [x], [shape])
    integers = FakeLayer("integers", "ELEMENTWISE", [i], [tensor("j", "int32")])
    network = FakeNetwork([floats, integers], [x, i], [shape])

    constrain_network(network, [constraint(floats), constraint(integers)], precision="fp16")

    assert floats.precision is None
    assert integers.precision is None


def test_low_precision_inputs_and_outputs_are_typed_on_request(fake_tensorrt):
    del fake_tensorrt
    x, i, y = tensor("x"), tensor("i", "int32"), tensor("y")
    layer = FakeLayer("layer", "GATHER", [x, i], [y])

    network = FakeNetwork([layer], [x, i], [y])
    summary = constrain_network(network, [], precision="fp16", io_precision="low")

    assert (x.dtype, i.dtype, y.dtype) == ("float16", "int32", "float16")
    assert "left to the builder; 1 inputs and 1 outputs in fp16; 0 of 0" in summary


def test_float_shape_tensors_of_the_interface_stay_in_fp32_and_are_named(fake_tensorrt):
    del fake_tensorrt
    x, shape, y = tensor("x"), tensor("shape", is_shape=True), tensor("y")
    layer = FakeLayer("layer", "RESIZE", [x, shape], [y])

    network = FakeNetwork([layer], [x, shape], [y])
    summary = constrain_network(network, [], precision="fp16", io_precision="low")

    assert (x.dtype, shape.dtype, y.dtype) == ("float16", "float32", "float16")
    assert "; in FP32 since they carry shapes: 'shape'; " in summary


def test_a_network_with_a_cycle_is_refused(fake_tensorrt):
    del fake_tensorrt
    a, b = tensor("a"), tensor("b")
    layers = [FakeLayer("one", "UNARY", [b], [a]), FakeLayer("two", "UNARY", [a], [b])]

    with pytest.raises(NetworkError, match=r"got one through \['one', 'two'\]"):
        constrain_network(FakeNetwork(layers, [], [b]), [], precision="fp16")
