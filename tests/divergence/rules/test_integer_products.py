"""Products of integers that stand for floats: the gradients of the floats, at the integers."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec.divergence.rules import Application, Reads, find_rule

RNG = np.random.default_rng(0)


def integers(*shape, kind=np.int8):
    ends = np.iinfo(kind)
    return RNG.integers(ends.min // 2, ends.max // 2, shape).astype(kind)


def slopes(op_type, inputs, wanted, function, *, result=None, attributes=None, domain=""):
    """The rule's gradient and the difference quotient of `function`, along one direction each.

    `function` is linear in each input where nothing is clipped, so that any step does.
    """
    floats = [None if x is None else np.asarray(x, np.float64) for x in inputs]
    y = function(floats)
    probe = RNG.standard_normal(y.shape)
    found = find_rule(op_type, domain, 21)
    outputs = [result if found.reads_outputs else None]
    for position in wanted:
        reads_all = found.reads_inputs is Reads.ALL
        visible = [x if i != position or reads_all else None for i, x in enumerate(inputs)]
        application = Application(
            op_type,
            21,
            attributes or {},
            visible,
            outputs,
            [None if x is None else np.shape(x) for x in inputs],
            [y.shape],
            frozenset({position}),
        )
        gradient = found.apply(application, [probe])[position]
        assert gradient.shape == inputs[position].shape
        direction = RNG.standard_normal(gradient.shape)
        moved = [x + direction if i == position else x for i, x in enumerate(floats)]
        yield np.sum(gradient * direction), np.sum(probe * (function(moved) - y))


def assert_slopes_agree(*arguments, **options):
    for found, expected in slopes(*arguments, **options):
        assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("zeros", "shapes"),
    [
        ((np.uint8(100), np.int8(3)), ((2, 4, 5), (5, 3))),
        ((None, None), ((4, 5), (5, 3))),
        ((np.arange(4, dtype=np.uint8), np.arange(3, dtype=np.int8)), ((4, 5), (5, 3))),
    ],
)
def test_matmul_integer(zeros, shapes):
    def product(inputs):
        first, second, a, b = inputs
        a = 0.0 if a is None else a.reshape(-1, 1) if a.ndim else a
        return (first - a) @ (second - (0.0 if b is None else b))

    inputs = [integers(*shapes[0], kind=np.uint8), integers(*shapes[1]), *zeros]

    assert_slopes_agree("MatMulInteger", inputs, (0, 1), product)


def convolve(values, kernel):
    """A plain 1-D convolution of `(N, C, L)` by `(M, C, K)`."""
    length = values.shape[2] - kernel.shape[2] + 1
    windows = np.stack([values[:, :, i : i + length] for i in range(kernel.shape[2])], axis=-1)
    return np.einsum("nclk,mck->nml", windows, kernel)


def test_conv_integer():
    inputs = [integers(2, 3, 9, kind=np.uint8), integers(4, 3, 3), np.uint8(99), np.int8(2)]

    assert_slopes_agree("ConvInteger", inputs, (0, 1), lambda i: convolve(i[0] - i[2], i[1] - i[3]))


SCALES = np.float32(0.02), np.float32(0.03), np.float32(0.5)


@pytest.mark.parametrize("scale_shape", [(), (3,)])
def test_qlinear_matmul_passes_what_it_does_not_clip(scale_shape):
    columns = RNG.uniform(0.01, 0.03, scale_shape).astype(np.float32)
    inputs = [
        *(integers(4, 5, kind=np.uint8), SCALES[0], np.uint8(100)),
        *(integers(5, 3), columns, np.int8(3)),
        *(SCALES[2], np.int8(5)),
    ]
    result = integers(4, 3)
    result[1] = 127
    result[2, 0] = -128
    inside = (result < 127) & (result > -128)

    def product(i):
        return inside * (((i[0] - i[2]) * i[1]) @ ((i[3] - i[5]) * i[4]) / i[6] + i[7])

    assert_slopes_agree("QLinearMatMul", inputs, (0, 3), product, result=result)


@pytest.mark.parametrize("zeros", [np.zeros(4, np.int8), np.full((4, 1, 1), 3, np.int8)])
def test_qlinear_conv_passes_what_it_does_not_clip(zeros):
    channels = RNG.uniform(0.01, 0.03, 4).astype(np.float32)
    inputs = [
        *(integers(2, 3, 9, kind=np.uint8), SCALES[0], np.uint8(100)),
        *(integers(4, 3, 3), channels, zeros),
        *(SCALES[2], np.uint8(5)),
    ]
    result = integers(2, 4, 7, kind=np.uint8)
    result[0, 1] = 0
    inside = (result > 0) & (result < 255)

    def convolution(i):
        kernel = (i[3] - i[5].reshape(4, 1, 1)) * i[4][:, None, None]
        return inside * (convolve((i[0] - i[2]) * i[1], kernel) / i[6] + i[7])

    assert_slopes_agree("QLinearConv", inputs, (0,), convolution, result=result)


def test_the_kernel_of_a_qlinear_conv_has_no_gradient():
    rule = find_rule("QLinearConv", "", 21)
    shapes = [(1, 1, 9), (), (), (1, 1, 3), (1,), (1,), (), ()]
    inputs = [np.ones(shape, np.float32) for shape in shapes]
    wanted = Application(
        "QLinearConv", 21, {}, inputs, [np.ones((1, 1, 7))], shapes, [(1, 1, 7)], frozenset({3})
    )

    assert set(rule.apply(wanted, [np.ones((1, 1, 7))])) == {None}


@pytest.mark.parametrize("zeros", [(np.int8(1), np.int8(2)), (None, None)])
def test_qlinear_add_and_mul_broadcast(zeros):
    inputs = [
        *(integers(4, 5), SCALES[0], zeros[0]),
        *(integers(5), SCALES[1], zeros[1]),
        *(SCALES[2], np.int8(5)),
    ]
    result = integers(4, 5)
    result[2] = -128
    inside = result > -128

    def operands(i):
        zero = [0.0 if i[position] is None else i[position] for position in (2, 5)]
        return (i[0] - zero[0]) * i[1], (i[3] - zero[1]) * i[4]

    def total(i):
        return inside * np.add(*operands(i)) / i[6]

    def product(i):
        return inside * np.multiply(*operands(i)) / i[6]

    domain = "com.microsoft"
    assert_slopes_agree("QLinearAdd", inputs, (0, 3), total, result=result, domain=domain)
    assert_slopes_agree("QLinearMul", inputs, (0, 3), product, result=result, domain=domain)


def test_qlinear_concat_and_global_average_pool():
    first, second = integers(2, 3, 4), integers(2, 5, 4)
    inputs = [
        *(SCALES[2], np.int8(0)),
        *(first, SCALES[0], np.int8(1)),
        *(second, SCALES[1], np.int8(2)),
    ]

    def joined(i):
        parts = [(i[2] - i[4]) * i[3], (i[5] - i[7]) * i[6]]
        return np.concatenate(parts, axis=1) / i[0]

    assert_slopes_agree(
        "QLinearConcat",
        inputs,
        (2, 5),
        joined,
        result=integers(2, 8, 4),
        attributes={"axis": 1},
        domain="com.microsoft",
    )
    pool = [integers(2, 3, 4, 4), SCALES[0], np.int8(1), SCALES[2], np.int8(2)]

    def mean(i):
        return ((i[0] - i[2]) * i[1]).mean(axis=(2, 3), keepdims=True) / i[3]

    assert_slopes_agree(
        "QLinearGlobalAveragePool",
        pool,
        (0,),
        mean,
        result=integers(2, 3, 1, 1),
        domain="com.microsoft",
    )
