"""Random models of all kinds of operators: fan-out, shared weights, islands of other types,
branches, loops, quantisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    import onnx

__all__ = ["ALL_KINDS", "PLAIN_KINDS", "ROWS", "random_model", "random_sample"]

ROWS: Final = (2, 8)
"""Shape of every float value that operators hand on."""

_UNARY = (
    *("Abs", "Elu", "Erf", "HardSigmoid", "HardSwish", "LeakyRelu", "LogSoftmax", "Neg", "Relu"),
    *("Selu", "Sigmoid", "Sin", "Softmax", "Softplus", "Softsign", "Tanh", "ThresholdedRelu"),
)
_BINARY = ("Add", "Max", "Mean", "Min", "Mul", "Sub", "Sum")
_REDUCTIONS = ("ReduceL2", "ReduceMax", "ReduceMean", "ReduceSum")


class _Writer:
    """A graph in the making: what operators may read, and what was written."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray[Any, Any]] = {}
        self.values = ["x"]
        self._count = 0

    def name(self) -> str:
        self._count += 1
        return f"t{self._count}"

    def pick(self) -> str:
        """A value, a late one more likely than an early one."""
        place = int(len(self.values) * self.rng.random() ** 0.5)
        return self.values[min(place, len(self.values) - 1)]

    def weight(self, shape: Sequence[int], scale: float = 0.4) -> str:
        """A weight of this shape, now and then one that is there already."""
        known = [n for n, w in self.weights.items() if w.shape == tuple(shape) and n[0] == "w"]
        if known and self.rng.random() < 0.4:
            return str(self.rng.choice(known))
        values = self.rng.normal(0.0, scale, shape).astype(np.float32)
        return self.constant(values, prefix="w")

    def constant(self, values: Any, prefix: str = "c") -> str:
        name = f"{prefix}{len(self.weights)}"
        self.weights[name] = np.asarray(values)
        return name

    def node(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        made = [self.name() for _ in range(outputs)]
        self.nodes.append(
            helper.make_node(op, list(inputs), made, name=f"{op}_{made[0]}", **attributes)
        )
        return made[0] if outputs == 1 else made


def _unary(w: _Writer) -> str:
    return str(w.node(str(w.rng.choice(_UNARY)), w.pick()))


def _binary(w: _Writer) -> str:
    return str(w.node(str(w.rng.choice(_BINARY)), w.pick(), w.pick()))


def _quotient(w: _Writer) -> str:
    positive = w.node("Sigmoid", w.pick())
    return str(w.node("Div", w.pick(), w.node("Add", positive, w.constant(np.float32(0.5)))))


def _root(w: _Writer) -> str:
    return str(w.node("Sqrt", w.node("Softplus", w.pick())))


def _product(w: _Writer) -> str:
    return str(w.node("MatMul", w.pick(), w.weight((8, 8))))


def _gemm(w: _Writer) -> str:
    return str(w.node("Gemm", w.pick(), w.weight((8, 8)), w.weight((8,)), transB=1))


def _convolution(w: _Writer) -> str:
    axis = w.constant(np.array([1], np.int64))
    image = w.node("Unsqueeze", w.pick(), axis)
    return str(w.node("Squeeze", w.node("Conv", image, w.weight((1, 1, 3)), pads=[1, 1]), axis))


def _layer_norm(w: _Writer) -> str:
    return str(w.node("LayerNormalization", w.pick(), w.weight((8,)), w.weight((8,))))


def _batch_norm(w: _Writer) -> str:
    variance = w.constant(w.rng.uniform(0.5, 2.0, 8).astype(np.float32))
    parameters = [w.weight((8,)), w.weight((8,)), w.weight((8,)), variance]
    return str(w.node("BatchNormalization", w.pick(), *parameters))


def _reduction(w: _Writer) -> str:
    op = str(w.rng.choice(_REDUCTIONS))
    axes = [w.constant(np.array([1], np.int64))] if op == "ReduceSum" else []
    attributes = {} if axes else {"axes": [1]}
    return str(w.node("Sub", w.pick(), w.node(op, w.pick(), *axes, keepdims=1, **attributes)))


def _movement(w: _Writer) -> str:
    turned = w.node("Reshape", w.pick(), w.constant(np.array([8, 2], np.int64)))
    return str(w.node("Transpose", turned, perm=[1, 0]))


def _parts(w: _Writer) -> str:
    first, second = w.node("Split", w.pick(), outputs=2, axis=1)
    return str(w.node("Concat", second, w.node("Tanh", first), axis=1))


def _gather(w: _Writer) -> str:
    return str(w.node("Gather", w.pick(), w.constant(w.rng.permutation(8)), axis=1))


def _choice(w: _Writer) -> str:
    first, second = w.pick(), w.pick()
    return str(w.node("Where", w.node("Greater", first, second), first, second))


def _clip(w: _Writer) -> str:
    bounds = w.constant(np.float32(-0.25)), w.constant(np.float32(0.75))
    return str(w.node("Clip", w.pick(), *bounds))


def _mask(w: _Writer) -> str:
    mask = w.constant(w.rng.random(ROWS) < 0.3)
    masked = w.node("Where", mask, w.constant(np.float32(-1e9)), w.pick())
    return str(w.node("Softmax", masked))


def _computed_weight(w: _Writer) -> str:
    made = w.node("Mul", w.weight((8,)), w.weight((8,)))
    return str(w.node("Add", w.pick(), made))


def _double_island(w: _Writer) -> str:
    wide = w.node("Cast", w.pick(), to=TensorProto.DOUBLE)
    third = w.constant(np.float64(1 / 3))
    return str(w.node("Cast", w.node("Mul", wide, third), to=TensorProto.FLOAT))


def _half_island(w: _Writer) -> str:
    half = w.node("Cast", w.node("Tanh", w.pick()), to=TensorProto.FLOAT16)
    third = w.constant(np.float16(1 / 3))
    return str(w.node("Cast", w.node("Add", half, third), to=TensorProto.FLOAT))


def _integer_island(w: _Writer) -> str:
    whole = w.node("Cast", w.node("Floor", w.pick()), to=TensorProto.INT32)
    next_one = w.node("Add", whole, w.constant(np.int32(1)))
    return str(w.node("Add", w.node("Cast", next_one, to=TensorProto.FLOAT), w.pick()))


def _quantized(w: _Writer) -> str:
    scale, zero = w.constant(np.float32(0.0625)), w.constant(np.int8(0))
    return str(
        w.node("DequantizeLinear", w.node("QuantizeLinear", w.pick(), scale, zero), scale, zero)
    )


def _branches(w: _Writer) -> str:
    around, other = w.pick(), w.pick()
    limit = w.constant(np.float32(w.rng.normal()))
    largest = w.node("ReduceMax", w.pick(), keepdims=0)
    condition = w.node("Greater", largest, limit)
    bodies = [_body(w, around, other, op) for op in ("Mul", "Add")]
    return str(w.node("If", condition, then_branch=bodies[0], else_branch=bodies[1]))


def _body(w: _Writer, around: str, other: str, op: str) -> onnx.GraphProto:
    inner, result = w.name(), w.name()
    nodes = [
        helper.make_node("Tanh", [around], [inner], name=f"Tanh_{inner}"),
        helper.make_node(op, [inner, other], [result], name=f"{op}_{result}"),
    ]
    output = helper.make_tensor_value_info(result, TensorProto.FLOAT, list(ROWS))
    return helper.make_graph(nodes, f"body_{result}", [], [output])


def _recurrent(w: _Writer) -> str:
    op, gates = (("RNN", 1), ("GRU", 3), ("LSTM", 4))[w.rng.integers(3)]
    axis = w.constant(np.array([1], np.int64))
    steps = w.node("Unsqueeze", w.pick(), axis)  # a batch of one
    weights = [w.weight((1, gates * 8, 8), 0.3) for _ in range(2)]
    made = w.node(op, steps, *weights, hidden_size=8, outputs=2)
    axes = w.constant(np.array([1, 2], np.int64))
    return str(w.node("Squeeze", made[0], axes))


def _loop(w: _Writer) -> str:
    around = w.pick()
    count, condition, state, going, moved, result = (w.name() for _ in range(6))
    nodes = [
        helper.make_node("Identity", [condition], [going], name=f"Identity_{going}"),
        helper.make_node("Tanh", [state], [moved], name=f"Tanh_{moved}"),
        helper.make_node("Add", [moved, around], [result], name=f"Add_{result}"),
    ]
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        nodes,
        f"body_{result}",
        [
            info(count, TensorProto.INT64, []),
            info(condition, TensorProto.BOOL, []),
            info(state, TensorProto.FLOAT, list(ROWS)),
        ],
        [info(going, TensorProto.BOOL, []), info(result, TensorProto.FLOAT, list(ROWS))],
    )
    trips, going_on = w.constant(np.int64(3)), w.constant(np.ones((), np.bool_))
    return str(w.node("Loop", trips, going_on, w.pick(), body=body))


PLAIN_KINDS: Final[tuple[Callable[[_Writer], str], ...]] = (
    *(_unary, _binary, _product, _unary, _binary, _product),
    *(_quotient, _root, _gemm, _convolution, _layer_norm, _batch_norm, _reduction, _movement),
    *(_parts, _gather, _choice, _clip, _mask, _computed_weight, _double_island, _half_island),
    _branches,
)
"""What a random model is made of; what is common stands more than once."""

STEPPED_KINDS: Final = (_integer_island, _quantized)
"""Where the last bit of a value may move a result by a whole step."""

ITERATING_KINDS: Final = (_recurrent, _loop)
"""Units that are rounded inside, at every step."""

ALL_KINDS: Final = (*PLAIN_KINDS, *STEPPED_KINDS, *ITERATING_KINDS)


def random_model(
    seed: int, kinds: Sequence[Callable[[_Writer], str]] = ALL_KINDS
) -> onnx.ModelProto:
    """Returns a model with one input and one to three float outputs; the same for the same seed."""
    rng = np.random.default_rng(seed)
    w = _Writer(rng)
    for _ in range(rng.integers(3, 14)):
        w.values.append(kinds[rng.integers(len(kinds))](w))
    outputs = list(dict.fromkeys([w.values[-1], w.pick(), w.pick()]))
    outputs = [name for name in outputs if name != "x"]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        w.nodes,
        f"random_{seed}",
        [info("x", TensorProto.FLOAT, list(ROWS))],
        [info(name, TensorProto.FLOAT, list(ROWS)) for name in outputs],
        [numpy_helper.from_array(values, name) for name, values in w.weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def random_sample(seed: int) -> dict[str, np.ndarray[Any, Any]]:
    """Returns an input for a random model."""
    rng = np.random.default_rng(seed)
    return {"x": rng.normal(0.0, 1.0, ROWS).astype(np.float32)}
