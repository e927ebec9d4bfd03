"""Models of which the builder's listing is on file, each with the nodes that stay in FP32."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tests.emit.networks import make_model

if TYPE_CHECKING:
    import onnx

__all__ = ["HOSTILE", "PROVEN_MODELS", "ProvenModel"]


HOSTILE = "a]b | c\nName: d, LayerType: e"
"""A name that looks like the text around it."""


class ProvenModel(NamedTuple):
    """One model and what became of its layers."""

    model: onnx.ModelProto
    """The FP32 model."""

    kept: tuple[str, ...]
    """Names of the nodes that stay in FP32."""

    obtained: dict[str, str]
    """What the nodes that stay in FP32, and some others, obtain in TensorRT-RTX 1.7."""


def _rows(body: str, declared: str = "w[64,64] v[64,64]", **options) -> onnx.ModelProto:
    graph = f"(float[16,64] x) => (float[16,64] y) {{ {body} }}"
    return make_model(graph, declared, **options)


def _named(model: onnx.ModelProto, names: dict[str, str]) -> onnx.ModelProto:
    for node in model.graph.node:
        node.name = names.get(node.name, node.name)
    return model


PROVEN_MODELS = {
    "product_unfenced": ProvenModel(
        _rows("a = Tanh(x)  m = MatMul(a, w)  y = Tanh(m)"),
        ("MatMul_m",),
        {"MatMul_m": "low", "Tanh_a": "low"},
    ),
    "product_alone": ProvenModel(
        _rows("a = Tanh(x)  m = MatMul(a, w)  y = Tanh(m)"),
        ("MatMul_m",),
        {"MatMul_m": "fp32", "Tanh_a": "fused"},
    ),
    "product_and_reader": ProvenModel(
        _rows("a = Tanh(x)  m = MatMul(a, w)  s = Softmax(m)  n = MatMul(s, v)  y = Tanh(n)"),
        ("MatMul_m", "Softmax_s"),
        {"MatMul_m": "fp32", "Softmax_s": "fp32", "MatMul_n": "low"},
    ),
    "exponential_in_an_epilogue": ProvenModel(
        _rows("a = MatMul(x, w)  e = Exp(a)  y = MatMul(e, v)"),
        ("Exp_e",),
        {"Exp_e": "fused", "MatMul_a": "low", "MatMul_y": "low"},
    ),
    "convolution_alone": ProvenModel(
        make_model(
            """(float[1,8,8,8] x) => (float[1,8,4,4] y) {
                a = Tanh(x)
                c = Conv(a, k)
                d = Conv(c, l)
                y = Sigmoid(d)
            }""",
            "k[8,8,3,3] l[8,8,3,3]",
        ),
        ("Conv_d",),
        {"Conv_d": "fp32", "Conv_c": "low"},
    ),
    "folded": ProvenModel(
        _rows("k = Exp(w)  m = MatMul(x, k)  y = Tanh(m)", "w[64,64]"),
        ("Exp_k", "Tanh_y"),
        {"Exp_k": "absent", "Tanh_y": "fused"},
    ),
    "hostile_names": ProvenModel(
        _named(
            _rows("a = MatMul(x, w)  b = Exp(a)  y = MatMul(b, v)"),
            {"MatMul_a": "Metadata: }], Outputs: [", "Exp_b": HOSTILE},
        ),
        (HOSTILE,),
        {HOSTILE: "fused", "Metadata: }], Outputs: [": "low", "MatMul_y": "low"},
    ),
}
