"""Small models with a number that low precision takes for 0 or 1, and the input that meets it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper

from tests.model_parts import build_model, node, normal, scalar, tensor

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

    Case = tuple[ModelProto, dict[str, np.ndarray]]

__all__ = [
    "called_twice",
    "entropy",
    "in_a_branch",
    "in_a_scan",
    "inverse_sigmoid",
    "log_of_probabilities",
    "logit",
    "masked_row",
    "normalised_rows",
    "normalised_similarity",
    "phase",
    "random_guards",
    "repeated_normalisation",
    "shared_guard",
    "two_logarithms",
]

_ROWS, _SIZE = 6, 16


def _padded(seed: int = 1) -> np.ndarray:
    """Rows of which the last two are padding."""
    values = normal(seed, _ROWS, _SIZE)
    values[4:] = 0
    return values


def _rows(nodes: list[NodeProto], weights: dict[str, np.ndarray]) -> Case:
    """Nodes that take `y`, a projection of `x`, to `z`, and another projection."""
    model = build_model(
        [
            node("MatMul", ["x", "w1"], "y", name="/proj"),
            *nodes,
            node("MatMul", ["z", "w2"], "out", name="/head"),
        ],
        [tensor("x", [_ROWS, _SIZE])],
        [tensor("out", [_ROWS, 4])],
        {"w1": normal(2, _SIZE, _SIZE, scale=0.3), "w2": normal(3, _SIZE, 4, scale=0.3), **weights},
    )
    return model, {"x": _padded()}


def normalised_rows(guard: str) -> Case:
    """Rows over their norm or sum, with a guard for rows of zeros."""
    norm = node("ReduceL2", ["y"], "n", name="/norm", axes=[-1], keepdims=1)
    divide = node("Div", ["y", "g"], "z", name="/Div")
    if guard == "Clip":
        clip = node("Clip", ["n", "least", ""], "g", name="/guard")
        return _rows([norm, clip, divide], {"least": scalar(1e-12)})
    if guard == "Max":
        largest = node("Max", ["n", "least"], "g", name="/guard")
        return _rows([norm, largest, divide], {"least": scalar(1e-8)})
    if guard == "Where":
        nodes = [
            norm,
            node("Greater", ["n", "least"], "above", name="/above"),
            node("Where", ["above", "n", "least"], "w", name="/where"),
            node("Add", ["w", "least"], "g", name="/guard"),
            divide,
        ]
        return _rows(nodes, {"least": scalar(1e-9)})
    if guard == "Add":
        nodes = [
            node("Relu", ["y"], "r", name="/relu"),
            node("ReduceSum", ["r", "axis"], "n", name="/sum", keepdims=1),
            node("Add", ["n", "least"], "g", name="/guard"),
            node("Div", ["r", "g"], "z", name="/Div"),
        ]
        return _rows(nodes, {"axis": np.array([-1]), "least": scalar(1e-9)})
    nodes = [
        node("Mul", ["y", "y"], "s", name="/square"),
        node("ReduceMean", ["s"], "m", name="/mean", axes=[-1], keepdims=1),
        node("Add", ["m", "least"], "g", name="/guard"),
        node("Sqrt", ["g"], "root", name="/Sqrt"),
        node("Reciprocal", ["root"], "over", name="/Reciprocal"),
        node("Mul", ["y", "over"], "z", name="/Mul"),
    ]
    return _rows(nodes, {"least": scalar(1e-8)})


def normalised_similarity() -> Case:
    """Cosine similarities of rows, of which two are padding, and a softmax."""
    nodes = [
        node("MatMul", ["x", "w"], "y", name="/proj"),
        node("ReduceL2", ["y"], "n", name="/norm/ReduceL2", axes=[-1], keepdims=1),
        node("Clip", ["n", "least", ""], "g", name="/norm/Clip"),
        node("Div", ["y", "g"], "q", name="/norm/Div"),
        node("Transpose", ["q"], "k", perm=[1, 0]),
        node("MatMul", ["q", "k"], "s", name="/similarity"),
        node("Mul", ["s", "heat"], "t", name="/temperature"),
        node("Softmax", ["t"], "p", name="/softmax", axis=-1),
    ]
    weights = {
        "w": normal(2, _SIZE, _SIZE, scale=0.3),
        "least": scalar(1e-12),
        "heat": scalar(14.28),
    }
    model = build_model(
        nodes, [tensor("x", [_ROWS, _SIZE])], [tensor("p", [_ROWS, _ROWS])], weights
    )
    return model, {"x": _padded()}


def repeated_normalisation(count: int) -> Case:
    """The same guard again and again: of all but the first, the NaN before it hides the harm."""
    nodes, weights, last = [], {"least": scalar(1e-12)}, "x"
    for index in range(count):
        weights[f"w{index}"] = normal(index, _SIZE, _SIZE, scale=0.3)
        nodes += [
            node("MatMul", [last, f"w{index}"], f"y{index}", name=f"/{index}/proj"),
            node("Tanh", [f"y{index}"], f"a{index}", name=f"/{index}/act"),
            node("ReduceL2", [f"a{index}"], f"n{index}", name=f"/{index}/norm", axes=[-1]),
            node("Clip", [f"n{index}", "least", ""], f"g{index}", name=f"/{index}/guard"),
            node("Div", [f"a{index}", f"g{index}"], f"z{index}", name=f"/{index}/Div"),
        ]
        last = f"z{index}"
    model = build_model(
        nodes, [tensor("x", [_ROWS, _SIZE])], [tensor(last, [_ROWS, _SIZE])], weights
    )
    return model, {"x": _padded()}


def shared_guard() -> Case:
    """A guard whose other reader is none the worse for a 0."""
    case, sample = normalised_rows("Clip")
    case.graph.node.append(node("Mul", ["g", "g"], "squares", name="/other"))
    case.graph.output.append(tensor("squares", [_ROWS, 1]))
    return case, sample


def _guarded(prefix: str, source: str, result: str, least: str) -> list[NodeProto]:
    return [
        node("ReduceL2", [source], f"{prefix}n", name=f"{prefix}norm", axes=[-1], keepdims=1),
        node("Max", [f"{prefix}n", least], f"{prefix}g", name=f"{prefix}guard"),
        node("Div", [source, f"{prefix}g"], result, name=f"{prefix}Div"),
    ]


def called_twice() -> Case:
    """A local function with a guard, which takes in its second call what the first one gives."""
    body = [
        helper.make_node("Constant", [], ["least"], value_float=1e-12),
        *_guarded("", "y", "z", "least"),
    ]
    opset = helper.make_opsetid("", 17)
    function = helper.make_function("my.domain", "Norm", ["y"], ["z"], body, [opset])
    nodes = [
        node("MatMul", ["x", "w"], "y", name="/proj"),
        helper.make_node("Norm", ["y"], ["z"], domain="my.domain", name="first"),
        helper.make_node("Norm", ["z"], ["out"], domain="my.domain", name="second"),
    ]
    shape = [_ROWS, _SIZE]
    model = build_model(
        nodes,
        [tensor("x", shape)],
        [tensor("out", shape)],
        {"w": normal(2, _SIZE, _SIZE, scale=0.3)},
        functions=[function],
        domains=["my.domain"],
    )
    return model, {"x": _padded()}


def in_a_branch() -> Case:
    """A guard in the branch of an If that is taken, and one in the other."""
    branches = {
        f"{name}_branch": build_model(
            _guarded(f"/{name}/", "y", f"{name}_z", "least"),
            [],
            [tensor(f"{name}_z", [_ROWS, _SIZE])],
        ).graph
        for name in ("then", "else")
    }
    choose = node("If", ["yes"], "z", name="/If", **branches)
    model, sample = _rows([choose], {"least": scalar(1e-12)})
    model.graph.input.append(tensor("yes", [], TensorProto.BOOL))
    return model, {**sample, "yes": np.array(1, bool)}


def in_a_scan() -> Case:
    """A guard in the body of a Scan, which is one layer."""
    body = helper.make_graph(
        [
            node("Identity", ["state"], "same", name="/body/state"),
            node("ReduceL2", ["row"], "n", name="/body/norm", axes=[-1], keepdims=1),
            node("Max", ["n", "least"], "g", name="/body/guard"),
            node("Div", ["row", "g"], "result", name="/body/Div"),
        ],
        "body",
        [tensor("state", [1]), tensor("row", [_SIZE])],
        [tensor("same", [1]), tensor("result", [_SIZE])],
    )
    scan = node("Scan", ["zero", "y"], "last", "z", name="/scan", body=body, num_scan_inputs=1)
    return _rows([scan], {"least": scalar(1e-12), "zero": np.zeros(1, np.float32)})


def _probabilities() -> np.ndarray:
    """Rows that sum to 1, with zeros among them."""
    values = np.random.default_rng(0).dirichlet(np.ones(8), 6).astype(np.float32)
    values[:, ::3] = 0
    return values / values.sum(axis=1, keepdims=True)


def _elementwise(
    nodes: list[NodeProto], weights: dict[str, float], values: np.ndarray, result: str
) -> Case:
    """Nodes on `p`, weighted and summed up."""
    count = values.shape[1]
    model = build_model(
        [*nodes, node("MatMul", [result, "w"], "out", name="/head")],
        [tensor("p", list(values.shape))],
        [tensor("out", [values.shape[0], 4])],
        {"w": normal(4, count, 4, scale=0.3), **{k: scalar(v) for k, v in weights.items()}},
    )
    return model, {"p": values}


def log_of_probabilities() -> Case:
    """log(p + 1e-10)."""
    nodes = [
        node("Add", ["p", "least"], "g", name="/guard"),
        node("Log", ["g"], "z", name="/Log"),
    ]
    return _elementwise(nodes, {"least": 1e-10}, _probabilities(), "z")


def two_logarithms() -> tuple[ModelProto, np.ndarray, np.ndarray]:
    """log(p + 1e-10) and log(q + 1e-10), with values that need the guard, and that do not."""
    shape = [4, 8]
    nodes = [
        each
        for name in ("p", "q")
        for each in (
            node("Add", [name, "least"], f"{name}_g", name=f"/{name}/guard"),
            node("Log", [f"{name}_g"], f"{name}_z", name=f"/{name}/Log"),
        )
    ]
    model = build_model(
        nodes,
        [tensor("p", shape), tensor("q", shape)],
        [tensor("p_z", shape), tensor("q_z", shape)],
        {"least": scalar(1e-10)},
    )
    return model, np.zeros(shape, np.float32), np.full(shape, 0.3, np.float32)


def entropy() -> Case:
    """p log(max(p, 1e-9)): an infinity that a zero turns into NaN."""
    nodes = [
        node("Clip", ["p", "least", ""], "g", name="/guard"),
        node("Log", ["g"], "l", name="/Log"),
        node("Mul", ["p", "l"], "z", name="/Mul"),
    ]
    return _elementwise(nodes, {"least": 1e-9}, _probabilities(), "z")


def inverse_sigmoid(least: float) -> Case:
    """log(max(p, least) / max(1 - p, least)), as detectors refine boxes."""
    values = np.linspace(0, 1, 48, dtype=np.float32).reshape(6, 8)
    nodes = [
        node("Clip", ["p", "least", ""], "a", name="/above"),
        node("Sub", ["one", "p"], "q", name="/one_minus"),
        node("Clip", ["q", "least", ""], "b", name="/below"),
        node("Div", ["a", "b"], "odds", name="/Div"),
        node("Log", ["odds"], "z", name="/Log"),
    ]
    return _elementwise(nodes, {"one": 1.0, "least": least}, values, "z")


def logit(margin: float) -> Case:
    """log(p / (1 - p)) of numbers that were clipped to [margin, 1 - margin]."""
    values = np.linspace(0, 1, 48, dtype=np.float32).reshape(6, 8)
    nodes = [
        node("Clip", ["p", "least", "most"], "c", name="/guard"),
        node("Sub", ["one", "c"], "q", name="/one_minus"),
        node("Div", ["c", "q"], "odds", name="/Div"),
        node("Log", ["odds"], "z", name="/Log"),
    ]
    weights = {"one": 1.0, "least": margin, "most": 1.0 - margin}
    return _elementwise(nodes, weights, values, "z")


def phase() -> Case:
    """atan(im / (re + 1e-9)) of a spectrum with silence in it."""
    spectrum = normal(5, 2, 6, 8)
    spectrum[:, :, ::4] = 0
    model = build_model(
        [
            node("Add", ["re", "least"], "g", name="/guard"),
            node("Div", ["im", "g"], "ratio", name="/Div"),
            node("Atan", ["ratio"], "z", name="/Atan"),
            node("MatMul", ["z", "w"], "out", name="/head"),
        ],
        [tensor("re", [6, 8]), tensor("im", [6, 8])],
        [tensor("out", [6, 4])],
        {"least": scalar(1e-9), "w": normal(4, 8, 4, scale=0.3)},
    )
    return model, {"re": spectrum[0], "im": spectrum[1]}


def masked_row() -> Case:
    """A logit that is infinite in FP32 as well: the class is masked."""
    mask = np.zeros((6, 8), np.float32)
    mask[2, 5] = -np.inf
    model = build_model(
        [
            node("MatMul", ["x", "w"], "y", name="/fc"),
            node("Add", ["y", "mask"], "out", name="/mask"),
        ],
        [tensor("x", [6, 8])],
        [tensor("out", [6, 8])],
        {"w": normal(4, 8, 8, scale=0.3), "mask": mask},
    )
    return model, {"x": normal(5, 6, 8)}


class _RandomModel:
    """Nodes that are drawn one after the other, each taking what was made lately."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[NodeProto] = []
        self.weights = {"w": normal(seed, 8, 8, scale=0.4)}
        self.whole = ["x"]

    def make(self, operator: str, inputs: list[str], **attributes: object) -> str:
        name = f"{operator}_{len(self.nodes)}"
        self.nodes.append(node(operator, inputs, name, name=f"/{name}", **attributes))
        return name

    def tiny(self) -> str:
        name = f"tiny_{len(self.weights)}"
        self.weights[name] = scalar(10.0 ** -self.rng.integers(5, 14))
        return name

    def extend(self) -> None:
        x = self.whole[self.rng.integers(max(0, len(self.whole) - 4), len(self.whole))]
        y = self.whole[self.rng.integers(len(self.whole))]
        made = [self.plain, self.division, self.logarithm, self.normalisation]
        self.whole.append(made[self.rng.integers(len(made))](x, y))

    def plain(self, x: str, y: str) -> str:
        operator = str(self.rng.choice(["MatMul", "Add", "Mul", "Relu", "Tanh", "Softmax"]))
        second = {"MatMul": ["w"], "Add": [y], "Mul": [y]}.get(operator, [])
        return self.make(operator, [x, *second])

    def division(self, x: str, y: str) -> str:
        guard = str(self.rng.choice(["Add", "Max"]))
        return self.make("Div", [y, self.make(guard, [self.make("Abs", [x]), self.tiny()])])

    def logarithm(self, x: str, _: str) -> str:
        return self.make("Log", [self.make("Add", [self.make("Relu", [x]), self.tiny()])])

    def normalisation(self, x: str, _: str) -> str:
        squares = self.make("Mul", [x, x])
        mean = self.make("ReduceMean", [squares], axes=[-1], keepdims=1)
        root = self.make("Sqrt", [self.make("Add", [mean, self.tiny()])])
        return self.make("Div", [x, root])


def random_guards(seed: int) -> Case:
    """A model of random nodes, of which many guard or need to be guarded."""
    drawn = _RandomModel(seed)
    for _ in range(drawn.rng.integers(4, 12)):
        drawn.extend()
    outputs = [tensor(name, None) for name in dict.fromkeys(drawn.whole[-2:]) if name != "x"]
    model = build_model(drawn.nodes, [tensor("x", [8, 8])], outputs, drawn.weights)
    values = normal(seed + 1, 8, 8, scale=float(drawn.rng.choice([1, 10])))
    values[3:5] = 0
    return model, {"x": values}
