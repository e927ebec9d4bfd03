"""Small models in ONNX's textual syntax: one for each construct that the rewriter must know.

Weights come from seeds, so that a model is the same in every run.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
from onnx import helper, numpy_helper

__all__ = ["MODELS", "make_model", "weights"]

Arrays = dict[str, npt.NDArray[Any]]


def weights(*shape: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Returns positive numbers around one, float32, different for each seed."""
    rng = np.random.default_rng([seed, *shape])
    return rng.uniform(0.5, 1.5, shape).astype(np.float32)


def make_model(
    graph: str, declared: str = "", arrays: Arrays | None = None, *, opset: int = 18, rest: str = ""
) -> onnx.ModelProto:
    """Returns the model of a graph in textual syntax.

    Args:
        graph: `(inputs) => (outputs) { nodes }`.
        declared: Initialisers with random values, for example `w[8,8] b[8]`.
        arrays: Further initialisers.
        opset: Version of ONNX's own operators.
        rest: Local functions, of the domain `local`.
    """
    header = f'<ir_version: 10, opset_import: ["" : {opset}, "local" : 1]>\n'
    model = onnx.parser.parse_model(f"{header} main {graph}\n{rest}")
    initializers = dict(arrays or {})
    for seed, (name, shape) in enumerate(re.findall(r"(\w+)\[([\d,]*)\]", declared)):
        initializers[name] = weights(*map(int, filter(None, shape.split(","))), seed=seed)
    for name, array in initializers.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    _name_nodes(model.graph)
    return model


def _name_nodes(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        node.name = node.name or f"{node.op_type}_{node.output[0]}"
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _name_nodes(attribute.g)


def _int64(*values: int) -> npt.NDArray[np.int64]:
    return np.array(values, np.int64)


def _scalar(value: float) -> npt.NDArray[np.float32]:
    return np.array(value, np.float32)


def _cnn(opset: int) -> onnx.ModelProto:
    return make_model(
        """(float[1,3,8,8] x) => (float[1,5] y) {
            a = Conv <pads=[1,1,1,1]> (x, k0, c0)
            n = BatchNormalization (a, s, b, m, v)
            r = Relu (n)
            p = MaxPool <kernel_shape=[2,2], strides=[2,2]> (r)
            c = Conv <group=2> (p, k1)
            d = Add (c, p1)
            e = Clip (d, lo, hi)
            h = AveragePool <kernel_shape=[2,2]> (e)
            g = GlobalAveragePool (h)
            f = Flatten (g)
            y = Gemm (f, w, z)
        }""",
        "k0[4,3,3,3] c0[4] s[4] b[4] m[4] v[4] k1[6,2,1,1] p1[1,6,1,1] w[6,5] z[5]",
        {"lo": _scalar(0), "hi": _scalar(6)},
        opset=opset,
    )


def _chain(operators: str, *, opset: int, arguments: str = "") -> onnx.ModelProto:
    nodes, previous = [], "x"
    for operator in operators.split():
        nodes.append(f"t{operator} = {operator} ({previous}{arguments})")
        previous = f"t{operator}"
    body = "\n".join(nodes)
    text = f"(float[3,4] x) => (float[3,4] {previous}) {{ {body} }}"
    return make_model(text, "c[1,4]" if arguments else "", opset=opset)


def _transformer() -> onnx.ModelProto:
    heads = "".join(
        f"""m{p} = MatMul (n, w{p})
            a{p} = Add (m{p}, b{p})
            r{p} = Reshape (a{p}, heads)
            {p} = Transpose <perm=[0,2,1,3]> (r{p})
        """
        for p in "qkv"
    )
    return make_model(
        """(int64[b,5] ids, int64[b,5] mask) => (float[b,5,8] y) {
            e = Gather (table, ids)
            x = Add (e, pos)
            n = LayerNormalization (x, s, bs)
        """
        + heads
        + """
            kt = Transpose <perm=[0,1,3,2]> (k)
            qk = MatMul (q, kt)
            scores = Div (qk, root)
            maskf = Cast <to=1> (mask)
            hidden = Sub (one, maskf)
            penalty = Mul (hidden, lowest)
            penalty4 = Unsqueeze (penalty, axes)
            masked = Add (scores, penalty4)
            p = Softmax (masked)
            o = MatMul (p, v)
            ot = Transpose <perm=[0,2,1,3]> (o)
            of = Reshape (ot, flat)
            proj = MatMul (of, wo)
            res = Add (proj, x)
            up = MatMul (res, w1)
            g0 = Div (up, root)
            g1 = Erf (g0)
            g2 = Add (g1, one)
            g3 = Mul (up, g2)
            down = MatMul (g3, w2)
            y = Add (down, res)
        }""",
        "table[20,8] pos[1,5,8] s[8] bs[8] wq[8,8] wk[8,8] wv[8,8] wo[8,8] bq[8] bk[8] bv[8]"
        " w1[8,16] w2[16,8]",
        {
            "heads": _int64(0, 0, 2, 4),
            "flat": _int64(0, 0, 8),
            "root": _scalar(2),
            "one": _scalar(1),
            "lowest": _scalar(-3.4028235e38),
            "axes": _int64(1, 2),
        },
        opset=17,
    )


def _recurrent(operator: str, gates: int, *, bidirectional: bool) -> onnx.ModelProto:
    directions = 2 if bidirectional else 1
    states = "yh, yc" if operator == "LSTM" else "yh"
    initial = "h0, c0" if operator == "LSTM" else "h0"
    direction = "bidirectional" if bidirectional else "forward"
    extra = ", linear_before_reset=1" if operator == "GRU" else ""
    return make_model(
        f"""(float[3,2,4] x) => (float[3,{directions},2,5] z, float[{directions},2,5] yh) {{
            s = Mul (x, c)
            y, {states} = {operator} <hidden_size=5, direction="{direction}"{extra}>
                (s, w, r, b, , {initial})
            z = Mul (y, c)
        }}""",
        f"c[1] w[{directions},{5 * gates},4] r[{directions},{5 * gates},5]"
        f" b[{directions},{10 * gates}] h0[{directions},2,5] c0[{directions},2,5]",
    )


def _two_lstms() -> onnx.ModelProto:
    return make_model(
        """(float[t,b,4] x) => (float[t,b,5] z) {
            s = Mul (x, c)
            y, yh, yc = LSTM <hidden_size=5> (s, w, r, b)
            y2 = Squeeze (y, one)
            q = Relu (y2)
            y3, yh3, yc3 = LSTM <hidden_size=5> (q, w2, r, b)
            y4 = Squeeze (y3, one)
            z = Mul (y4, c)
        }""",
        "c[1] w[1,20,4] w2[1,20,5] r[1,20,5] b[1,40]",
        {"one": _int64(1)},
    )


def _if(*, nested: bool) -> onnx.ModelProto:
    inner = """d = If (q) <
        then_branch = t2 () => (float[3,4] i) { h2 = Mul (s, w)
                                               i = Add (h2, shared) },
        else_branch = e2 () => (float[3,4] j) { j = Sub (s, shared) }>"""
    other = inner if nested else "d = Mul (s, s)"
    return make_model(
        f"""(float[3,4] x, bool p, bool q) => (float[3,4] y, float[3,4] extra) {{
            s = Mul (x, w)
            o = If (p) <
                then_branch = t1 () => (float[3,4] b) {{ a = Add (s, shared)
                                                        b = Mul (a, w) }},
                else_branch = e1 () => (float[3,4] f) {{ {other}
                                                        e = Exp (s)
                                                        f = Mul (d, e) }}>
            extra = Exp (s)
            y = Add (o, shared)
        }}""",
        "w[1,4] shared[1,4]",
    )


def _loop() -> onnx.ModelProto:
    return make_model(
        """(float[3,4] x) => (float[3,4] y, float[5,3,4] ys) {
            s = Mul (x, w)
            u = Exp (x)
            last, ys = Loop (trips, forever, s) <body = step (int64 i, bool keep, float[3,4] state)
                => (bool go, float[3,4] next, float[3,4] seen) {
                    go = Identity (keep)
                    grown = Mul (state, u)
                    next = Add (grown, w)
                    seen = Sub (next, u)
                }>
            y = Add (last, u)
        }""",
        "w[1,4]",
        {"trips": np.array(5, np.int64), "forever": np.array(1, np.bool_)},
    )


def _quantized_in_blocks() -> onnx.ModelProto:
    model = make_model(
        """(float[4,8] x) => (float[4,8] y) {
            d = DequantizeLinear <axis=0, block_size=4> (w, s)
            e = DequantizeLinear <axis=0, block_size=4> (v, s)
            m = MatMul (x, d)
            y = MatMul (m, e)
        }""",
        "s[2,8]",
        opset=21,
    )
    for name, step in (("w", 3), ("v", 5)):
        values = [step * i % 7 for i in range(64)]
        weight = helper.make_tensor(name, onnx.TensorProto.INT4, [8, 8], values)
        model.graph.initializer.append(weight)
    return model


def _quantized_to_fp8() -> onnx.ModelProto:
    model = make_model(
        """(float[4,8] x) => (float[4,8] y) {
            q = QuantizeLinear (x, s, z)
            d = DequantizeLinear (q, s, z)
            y = MatMul (d, w)
        }""",
        "s[] w[8,8]",
        opset=19,
    )
    zero = helper.make_tensor("z", onnx.TensorProto.FLOAT8E4M3FN, [], [0.0])
    model.graph.initializer.append(zero)
    return model


def _scan() -> onnx.ModelProto:
    return make_model(
        """(float[4] x, float[6,4] rows) => (float[4] y, float[6,4] ys) {
            s = Mul (x, w)
            r = Mul (rows, w)
            y, ys = Scan <num_scan_inputs=1, body = step (float[4] state, float[4] row)
                => (float[4] next, float[4] seen) {
                    sum = Add (state, row)
                    next = Mul (sum, w)
                    seen = Add (next, w)
                }> (s, r)
        }""",
        "w[4]",
    )


def _quantized(*, per_channel: bool) -> onnx.ModelProto:
    shape, axis = ((4,), "axis=0") if per_channel else ((), "")
    return make_model(
        f"""(float[1,3,6,6] x) => (float[1,4,4,4] y) {{
            h = Mul (x, c)
            q = QuantizeLinear (h, sx, zx)
            d = DequantizeLinear (q, sx, zx)
            dk = DequantizeLinear <{axis or "axis=1"}> (k, sk, zk)
            a = Conv (d, dk, b)
            r = Relu (a)
            q2 = QuantizeLinear (r, sx, zx)
            d2 = DequantizeLinear (q2, sx, zx)
            y = Mul (d2, c)
        }}""",
        "b[4] c[1]",
        {
            "sx": _scalar(0.05),
            "zx": np.array(0, np.int8),
            "k": np.arange(108, dtype=np.int8).reshape(4, 3, 3, 3),
            "sk": np.full(shape, 0.01, np.float32),
            "zk": np.zeros(shape, np.int8),
        },
        opset=13,
    )


MODELS = {
    "mlp": lambda: make_model(
        """(float[n,8] x) => (float[n,4] y) {
            h = Gemm <transB=1> (x, w0, b0)
            r = Relu (h)
            y = Gemm (r, w1, b1)
        }""",
        "w0[16,8] b0[16] w1[16,4] b1[4]",
    ),
    "cnn": lambda: _cnn(18),
    "cnn_opset_11": lambda: _cnn(11),
    "cnn_opset_14": lambda: _cnn(14),
    "convolutions_1d_and_3d": lambda: make_model(
        """(float[1,3,16] x, float[1,2,4,4,4] u) => (float[1,4,12] y, float[1,3,3,3,3] v) {
            y = Conv <dilations=[2]> (x, k)
            v = Conv (u, q)
        }""",
        "k[4,3,3] q[3,2,2,2,2]",
    ),
    "deconvolution": lambda: make_model(
        """(float[1,3,4,4] x) => (float[1,2,10,10] y) {
            h = ConvTranspose <strides=[2,2]> (x, k, b)
            l = LeakyRelu <alpha=0.1> (h)
            y = ConvTranspose (l, q)
        }""",
        "k[3,4,2,2] b[4] q[4,2,3,3]",
    ),
    "kernel_is_a_tensor": lambda: make_model(
        """(float[1,3,6,6] x, float[4,3,3,3] k) => (float[1,4,4,4] y) {
            k2 = Mul (k, two)
            y = Conv (x, k2, b)
        }""",
        "b[4] two[1]",
    ),
    "batch_normalization": lambda: make_model(
        """(float[2,4,3,3] x) => (float[2,4,3,3] y) {
            t = Tanh (x)
            n = BatchNormalization (t, s, b, m, v)
            y = Sigmoid (n)
        }""",
        "s[4] b[4] m[4] v[4]",
    ),
    "layer_normalization": lambda: make_model(
        """(float[n,6,8] x) => (float[n,6,8] y) {
            h = Mul (x, x)
            n = LayerNormalization <epsilon=1e-5> (h, s, b)
            y = LayerNormalization (n, s)
        }""",
        "s[8] b[8]",
    ),
    "decomposed_normalization": lambda: make_model(
        """(float[2,8] x) => (float[2,8] y) {
            mean = ReduceMean <axes=[-1]> (x)
            d = Sub (x, mean)
            sq = Pow (d, two)
            var = ReduceMean <axes=[-1]> (sq)
            ve = Add (var, eps)
            std = Sqrt (ve)
            n = Div (d, std)
            ns = Mul (n, s)
            y = Add (ns, b)
        }""",
        "s[8] b[8]",
        {"two": _scalar(2), "eps": _scalar(1e-12)},
        opset=17,
    ),
    "instance_normalization": lambda: make_model(
        """(float[1,4,5,5] x) => (float[1,4,5,5] y) {
            e = Exp (x)
            n = InstanceNormalization (e, s, b)
            y = Relu (n)
        }""",
        "s[4] b[4]",
    ),
    "group_normalization": lambda: make_model(
        """(float[1,3,5,5] x) => (float[1,4,5,5] y) {
            c = Conv (x, k)
            y = GroupNormalization <num_groups=2> (c, s, b)
        }""",
        "k[4,3,1,1] s[4] b[4]",
        opset=21,
    ),
    "rms_normalization": lambda: make_model(
        """(float[2,8] x) => (float[2,8] y) {
            m = MatMul (x, w)
            y = RMSNormalization (m, s)
        }""",
        "w[8,8] s[8]",
        opset=23,
    ),
    "local_response_normalization": lambda: make_model(
        """(float[1,4,5,5] x) => (float[1,4,5,5] y) {
            h = Mul (x, x)
            y = LRN <size=3> (h)
        }"""
    ),
    "transformer": _transformer,
    "attention": lambda: make_model(
        """(float[1,8,128] x) => (float[1,8,128] y) {
            q = MatMul (x, wq)
            k = MatMul (x, wk)
            v = MatMul (x, wv)
            a = Attention <q_num_heads=2, kv_num_heads=2> (q, k, v)
            y = MatMul (a, wo)
        }""",
        "wq[128,128] wk[128,128] wv[128,128] wo[128,128]",
        opset=23,
    ),
    "rotary_embedding": lambda: make_model(
        """(float[1,2,4,8] x) => (float[1,2,4,8] y) {
            h = Mul (x, x)
            y = RotaryEmbedding (h, cos, sin)
        }""",
        "cos[1,4,4] sin[1,4,4]",
        opset=23,
    ),
    "shared_weights": lambda: make_model(
        """(float[8,8] x, int64[8] ids) => (float[8,8] y) {
            a = MatMul (x, w)
            b = MatMul (a, w)
            alias = Identity (w)
            c = MatMul (b, alias)
            d = Gather (w, ids)
            y = Add (c, d)
        }""",
        "w[8,8]",
    ),
    "shared_kernels": lambda: make_model(
        """(float[1,4,5,5] x) => (float[1,4,5,5] y) {
            a = Conv (x, k, b)
            c = Conv (a, k, b)
            alias = Identity (k)
            y = Conv (c, alias, b)
        }""",
        "k[4,4,1,1] b[4]",
    ),
    "elementwise": lambda: _chain(
        "Add Sub Mul Div Pow Max Min PRelu Sum Mean", opset=18, arguments=", c"
    ),
    "unary": lambda: _chain(
        "Abs Neg Exp Log Sqrt Reciprocal Sin Cos Tan Erf Floor Ceil Round Sign Sigmoid Tanh Elu"
        " Selu Softplus Softsign HardSigmoid HardSwish ThresholdedRelu Asin Acos Atan Sinh Cosh"
        " Asinh Acosh Atanh Celu LeakyRelu Mish",
        opset=18,
    ),
    "activations": lambda: _chain("Gelu Relu Softmax LogSoftmax", opset=20),
    "softmax_opset_11": lambda: _chain("Exp Softmax Hardmax", opset=11),
    "comparison_and_select": lambda: make_model(
        """(float[3,4] x) => (float[3,4] y, bool[3,4] same) {
            h = Mul (x, x)
            g = Greater (h, c)
            l = LessOrEqual (h, x)
            both = And (g, l)
            w = Where (both, h, c)
            nan = IsNaN (w)
            y = Where (nan, c, w)
            same = Equal (y, x)
        }""",
        "c[1]",
    ),
    "movement": lambda: make_model(
        """(float[1,4,6] x) => (float[2,6,7] y) {
            h = Mul (x, c)
            s0, s1 = Split <axis=1, num_outputs=2> (h)
            cat = Concat <axis=1> (s1, s0, x)
            sl = Slice (cat, from, to, axis)
            pad = Pad (sl, pads, fill)
            tr = Transpose <perm=[1,0,2]> (pad)
            sq = Squeeze (tr, axis)
            ex = Expand (sq, shape)
            ti = Tile (ex, tiles)
            un = Unsqueeze (ti, axis)
            re = Reshape (un, target)
            y = Trilu (re)
        }""",
        "c[1,4,1]",
        {
            "from": _int64(1),
            "to": _int64(7),
            "axis": _int64(1),
            "pads": _int64(0, 0, 0, 0, 0, 1),
            "fill": _scalar(0.1),
            "shape": _int64(6, 7),
            "tiles": _int64(2, 1),
            "target": _int64(2, 6, 7),
        },
    ),
    "depth_and_space": lambda: make_model(
        """(float[1,8,2,2] x) => (float[1,8,2,2] y, float[2,2] z) {
            h = Mul (x, x)
            d = DepthToSpace <blocksize=2> (h)
            s = SpaceToDepth <blocksize=2> (d)
            y = Exp (s)
            f = Flatten (h)
            g = Slice (f, from, to)
            r = ReverseSequence <time_axis=0, batch_axis=1> (g, lengths)
            e = EyeLike (r)
            z = Add (r, e)
        }""",
        "",
        {"from": _int64(0, 0), "to": _int64(1, 2), "lengths": _int64(1, 1)},
    ),
    "gather_and_scatter": lambda: make_model(
        """(float[4,4] x, int64[4,4] at) => (float[4,4] y) {
            h = Mul (x, x)
            a = GatherElements (h, at)
            b = ScatterElements (a, at, h)
            c = GatherND (b, where)
            d = ScatterND (b, where, c)
            y = Exp (d)
        }""",
        "",
        {"where": np.array([[0], [2]], np.int64)},
    ),
    "einsum": lambda: make_model(
        """(float[2,3,4] x) => (float[2,3,3] y) {
            h = Einsum <equation="bij,jk->bik"> (x, w)
            y = Einsum <equation="bij,bkj->bik"> (h, h)
        }""",
        "w[4,4]",
    ),
    "reductions": lambda: make_model(
        """(float[3,4] x) => (float[3,1] y, int64[3,1] i, float[3,2] v, int64[3,2] j) {
            h = Mul (x, x)
            a = ReduceSum (h, axis)
            b = ReduceMax (h, axis)
            c = ReduceL2 (h, axis)
            d = ReduceLogSumExp (h, axis)
            e = ReduceProd (h, axis)
            y = Sum (a, b, c, d, e)
            i = ArgMax <axis=1> (h)
            v, j = TopK (h, two)
        }""",
        "",
        {"axis": _int64(1), "two": _int64(2)},
    ),
    "cumulative": lambda: make_model(
        """(float[3,4] x) => (float[3,4] y) {
            h = Mul (x, x)
            y = CumSum (h, axis)
        }""",
        "",
        {"axis": np.array(1, np.int64)},
    ),
    "resize": lambda: make_model(
        """(float[1,2,4,4] x) => (float[1,2,8,8] y, float[1,2,6,6] z) {
            h = Mul (x, x)
            y = Resize <mode="linear"> (h, , scales)
            z = Resize <mode="nearest"> (h, , , sizes)
        }""",
        "",
        {"scales": np.array([1, 1, 2, 2], np.float32), "sizes": _int64(1, 2, 6, 6)},
    ),
    "float_shape_arithmetic": lambda: make_model(
        """(float[1,2,h,w] x) => (float[1,2,a,b] y) {
            e = Exp (x)
            s = Shape (e)
            f = Cast <to=1> (s)
            g = Mul (f, factor)
            i = Floor (g)
            k = Cast <to=7> (i)
            u = Resize <mode="nearest"> (e, , , k)
            y = Mul (u, u)
        }""",
        "",
        {"factor": np.array([1, 1, 2, 2], np.float32)},
    ),
    "resize_by_computed_scales": lambda: make_model(
        """(float[1,2,h,w] x) => (float[1,2,a,b] y) {
            e = Exp (x)
            s = Shape (e)
            f = Cast <to=1> (s)
            g = Div (target, f)
            u = Resize <mode="nearest"> (e, , g)
            y = Mul (u, u)
        }""",
        "",
        {"target": np.array([1, 2, 8, 8], np.float32)},
    ),
    "grid_sample": lambda: make_model(
        """(float[1,2,4,4] x, float[1,3,3,2] grid) => (float[1,2,3,3] y) {
            h = Mul (x, x)
            y = GridSample (h, grid)
        }"""
    ),
    "fill": lambda: make_model(
        """(float[n,4] x) => (float[n,4] y) {
            s = Shape (x)
            z = ConstantOfShape <value = float[1] {2.5}> (s)
            noise = RandomUniformLike (x)
            a = Add (x, z)
            y = Mul (a, noise)
        }"""
    ),
    "one_hot": lambda: make_model(
        """(float[3,4] x, int64[3] i) => (float[3,4] y) {
            h = Mul (x, x)
            o = OneHot (i, depth, values)
            y = Add (h, o)
        }""",
        "",
        {"depth": np.array(4, np.int64), "values": np.array([0.25, 3], np.float32)},
    ),
    "casts": lambda: make_model(
        """(float[3,4] x, int64[3,4] i) => (float[3,4] y, float16[3,4] half, int32[3,4] n) {
            f = Cast <to=1> (i)
            a = Mul (x, f)
            half = Cast <to=10> (a)
            hh = Mul (half, half)
            b = Cast <to=1> (hh)
            y = Add (b, a)
            n = Cast <to=6> (y)
        }"""
    ),
    "quantized_per_tensor": lambda: _quantized(per_channel=False),
    "quantized_per_channel": lambda: _quantized(per_channel=True),
    "quantized_matmul": lambda: make_model(
        """(float[4,8] x) => (float[4,8] y) {
            q = QuantizeLinear (x, sx, zx)
            d = DequantizeLinear (q, sx, zx)
            qw = QuantizeLinear <axis=1> (w, sw, zw)
            dw = DequantizeLinear <axis=1> (qw, sw, zw)
            m = MatMul (d, dw)
            y = Add (m, b)
        }""",
        "w[8,8] b[8] sw[8]",
        {"sx": _scalar(0.05), "zx": np.array(0, np.int8), "zw": np.zeros(8, np.int8)},
    ),
    "quantized_in_blocks": _quantized_in_blocks,
    "quantized_to_fp8": _quantized_to_fp8,
    "if": lambda: _if(nested=False),
    "nested_if": lambda: _if(nested=True),
    "loop": _loop,
    "scan": _scan,
    "lstm": lambda: _recurrent("LSTM", 4, bidirectional=False),
    "lstm_bidirectional": lambda: _recurrent("LSTM", 4, bidirectional=True),
    "two_lstms": _two_lstms,
    "gru": lambda: _recurrent("GRU", 3, bidirectional=False),
    "rnn": lambda: _recurrent("RNN", 1, bidirectional=False),
    "local_function": lambda: make_model(
        """(float[3,4] x) => (float[3,4] y) {
            h = local.scaled (x, w)
            y = local.scaled (h, w)
        }""",
        "w[4,4]",
        rest="""<domain: "local", opset_import: ["" : 18]>
        scaled (a, b) => (c) {
            m = MatMul (a, b)
            c = Tanh (m)
        }""",
    ),
    "non_maximum_suppression": lambda: make_model(
        """(float[1,6,4] boxes, float[1,2,6] scores) => (int64[n,3] picked, float[1,2,6] y) {
            b = Mul (boxes, boxes)
            y = Sigmoid (scores)
            picked = NonMaxSuppression (b, y, count, overlap, least)
        }""",
        "",
        {
            "count": _int64(3),
            "overlap": np.array([0.5], np.float32),
            "least": np.array([0.1], np.float32),
        },
    ),
    "constant_output": lambda: make_model(
        """(float[4] x) => (float[4] y, float[4] k) {
            k = Identity (w)
            y = Add (x, k)
        }""",
        "w[4]",
    ),
    "outputs_of_all_kinds": lambda: make_model(
        """(float[3,4] x, int64[3,4] i)
            => (float[3,4] z, int64[3,4] j, float[3,4] a, float[3,4] same, bool[3,4] c) {
            a = Exp (x)
            b = Mul (a, w)
            z = Identity (b)
            j = Add (i, i)
            same = Identity (x)
            c = Greater (b, x)
        }""",
        "w[1,4]",
    ),
}
