"""Adjoint impacts against brute force: gradients by finite differences in float64."""

from __future__ import annotations

import numpy as np
import pytest

from polygraphy_layerprec.divergence.adjoint import Tape, TapeEntry, output_seeds
from polygraphy_layerprec.divergence.compact_errors import errors_of
from tests.divergence.kept import kept

RNG = np.random.default_rng


def entry(index, op_type, inputs, output, shapes, **changes):
    settings = {
        "index": index,
        "op_type": op_type,
        "domain": "",
        "opset": 17,
        "attributes": {},
        "inputs": inputs,
        "captures": (),
        "captured_shapes": (),
        "outputs": (output,) if isinstance(output, str) else output,
        "input_shapes": tuple(shapes[name] for name in inputs),
        "output_shapes": tuple(
            shapes[name] for name in ((output,) if isinstance(output, str) else output)
        ),
        "wanted": frozenset(range(len(inputs))),
        "wanted_captures": frozenset(),
        "is_layer": True,
        "gains": {},
    }
    return TapeEntry(**{**settings, **changes})


class Net:
    """y = tanh(x W) * (x W) + x W, with the constant W fed on demand."""

    def __init__(self, seed=0):
        rng = RNG(seed)
        self.weight = rng.standard_normal((3, 4)).astype(np.float64)
        self.x = rng.standard_normal((2, 3))
        self.errors = {
            name: rng.standard_normal((2, 4)).astype(np.float32) * 1e-3
            for name in ("h", "t", "m", "y")
        }

    def forward(self, **shifts):
        values = {"x": self.x}
        values["h"] = self.x @ self.weight + shifts.get("h", 0.0)
        values["t"] = np.tanh(values["h"]) + shifts.get("t", 0.0)
        values["m"] = values["t"] * values["h"] + shifts.get("m", 0.0)
        values["y"] = values["m"] + values["h"] + shifts.get("y", 0.0)
        return values

    def record(self, tape):
        values = self.forward()
        shapes = {name: value.shape for name, value in values.items()} | {"w": (3, 4)}
        entries = [
            entry(0, "MatMul", ("x", "w"), "h", shapes, wanted=frozenset()),
            entry(1, "Tanh", ("h",), "t", shapes),
            entry(2, "Mul", ("t", "h"), "m", shapes),
            entry(3, "Add", ("m", "h"), "y", shapes),
        ]
        for made in entries:
            (output,) = made.outputs
            tape.record(made, values, {output: kept(self.errors[output])})
        return values

    def tape(self, **options):
        return Tape(lambda names: {name: {"w": self.weight}[name] for name in names}, **options)

    def brute_force(self, seed):
        """sum(g^2 e^2) for each layer, g by central differences of v . y."""
        powers = []
        for name in ("h", "t", "m", "y"):
            gradient = np.zeros((2, 4))
            for place in np.ndindex(2, 4):
                step = np.zeros((2, 4))
                step[place] = 1e-5
                up, down = self.forward(**{name: step}), self.forward(**{name: -step})
                gradient[place] = np.sum(seed * (up["y"] - down["y"])) / 2e-5
            error = errors_of(kept(self.errors[name])).reshape(2, 4)
            powers.append(float(np.sum((gradient * error) ** 2)))
        return powers


@pytest.mark.parametrize("seed", range(4))
def test_impacts_are_those_of_brute_force(seed):
    net = Net(seed)
    tape = net.tape()
    values = net.record(tape)
    probe = output_seeds({"y": values["y"]}, rng=RNG(seed))
    impacts = tape.sweep(probe)
    found = [impacts.powers[index] for index in range(4)]
    np.testing.assert_allclose(found, net.brute_force(probe["y"]), rtol=1e-5)
    assert not impacts.estimated


@pytest.mark.parametrize("budget", [0, 50, 200])
def test_activations_on_disk_give_the_same(budget):
    net = Net()
    results = []
    for options in ({}, {"budget_bytes": budget}):
        tape = net.tape(**options)
        probe = output_seeds({"y": net.record(tape)["y"]}, rng=RNG(0))
        results.append(tape.sweep(probe).powers)
    assert results[0] == results[1]


def test_several_probes_give_the_mean():
    net, tape = Net(), Net().tape()
    probes = [output_seeds({"y": net.forward()["y"]}, rng=RNG(i)) for i in range(3)]
    single = []
    for probe in probes:
        net.record(tape)
        single.append(tape.sweep(probe).powers)
    net.record(tape)
    found = tape.sweep(*probes)
    for index in range(4):
        assert found.powers[index] == pytest.approx(np.mean([s[index] for s in single]))
    assert all(sum(shares.values()) <= 1 + 1e-9 for shares in found.consumers.values())


def test_a_tape_is_empty_after_its_sweep():
    net, tape = Net(), Net().tape()
    probe = output_seeds({"y": net.record(tape)["y"]}, rng=RNG(0))
    first = tape.sweep(probe)
    assert tape.sweep(probe).powers == {}
    net.record(tape)
    assert tape.sweep(probe) == first


def test_readers_share_the_impact_of_what_they_read():
    net, tape = Net(), Net().tape()
    probe = output_seeds({"y": net.record(tape)["y"]}, rng=RNG(0))
    consumers = tape.sweep(probe).consumers
    assert set(consumers[0]) == {1, 2, 3}
    assert sum(consumers[0].values()) == pytest.approx(1.0)
    assert consumers[1] == {2: pytest.approx(1.0)}
    assert consumers[3] == {}  # it goes straight to the output


def test_what_only_moves_values_hands_its_readers_on():
    shapes = {"x": (2, 3), "t": (3, 2), "y": (3, 2)}
    tape = Tape(lambda _: {})
    x = RNG(0).standard_normal((2, 3))
    values = {"x": x, "t": x.T, "y": np.tanh(x.T)}
    tape.record(
        entry(0, "Exp", ("x",), "x0", shapes | {"x0": (2, 3)}, wanted=frozenset()),
        values,
        {"x0": kept(np.ones((2, 3)))},
    )
    moved = {"x0": (2, 3), "t": (3, 2)}
    tape.record(entry(1, "Transpose", ("x0",), "t", moved, is_layer=False), values, {})
    tape.record(entry(2, "Tanh", ("t",), "y", shapes), values, {"y": kept(np.ones((3, 2)))})
    impacts = tape.sweep({"y": np.ones((3, 2))})
    assert impacts.consumers[0] == {2: pytest.approx(1.0)}
    assert impacts.powers[0] == pytest.approx(np.sum((1 - np.tanh(x) ** 2) ** 2))
    assert set(impacts.powers) == {0, 2}


def test_a_node_that_reads_a_tensor_twice_doubles_its_gradient():
    shapes = {"x": (5,), "h": (5,), "y": (5,)}
    tape = Tape(lambda _: {})
    h = np.linspace(1, 2, 5)
    tape.record(entry(0, "Exp", ("x",), "h", shapes, wanted=frozenset()), {}, {"h": kept(h)})
    tape.record(entry(1, "Mul", ("h", "h"), "y", shapes), {"h": h}, {"y": kept(h)})
    error = errors_of(kept(h))
    assert tape.sweep({"y": np.ones(5)}).powers[0] == pytest.approx(np.sum((2 * h * error) ** 2))


def two_layers(inputs=("h",), **changes):
    shapes = {"x": (50,), "h": (50,), "y": (50,)}
    tape = Tape(lambda _: {})
    ones = kept(np.ones(50))
    tape.record(entry(0, "Exp", ("x",), "h", shapes, wanted=frozenset()), {}, {"h": ones})
    tape.record(entry(1, "NoRuleForThis", inputs, "y", shapes, **changes), {}, {"y": ones})
    return tape.sweep({"y": np.full(50, 0.5)})


def test_without_a_rule_the_gain_stands_in_and_is_told():
    impacts = two_layers(gains={"h": 3.0})
    assert impacts.estimated == {0}
    assert impacts.powers[0] == pytest.approx(50 * (0.5 * 3.0) ** 2)
    assert impacts.powers[1] == pytest.approx(50 * 0.25)


def test_where_a_rule_declines_the_gain_stands_in():
    one = dict.fromkeys(("scale", "bias", "mean", "variance"), (1,))
    shapes = {"x": (50,), "h": (50,), "y": (50,), **one}
    tape = Tape(lambda names: {name: np.ones(1) for name in names})
    ones = kept(np.ones(50))
    tape.record(entry(0, "Exp", ("x",), "h", shapes, wanted=frozenset()), {}, {"h": ones})
    trained = entry(
        1,
        "BatchNormalization",
        ("h", "scale", "bias", "mean", "variance"),
        "y",
        shapes,
        attributes={"training_mode": 1},
        wanted=frozenset({0}),
        gains={"h": 2.0},
    )
    tape.record(trained, {}, {"y": ones})

    impacts = tape.sweep({"y": np.full(50, 0.5)})

    assert impacts.estimated == {0}
    assert impacts.powers[0] == pytest.approx(50 * (0.5 * 2.0) ** 2)


def test_without_a_rule_or_a_gain_an_error_keeps_its_norm():
    impacts = two_layers()
    assert impacts.estimated == {0}
    assert impacts.powers[0] == pytest.approx(50 * 0.25)


def test_an_estimate_is_passed_on_to_all_before_it():
    shapes = dict.fromkeys(("x", "a", "b", "y"), (4,))
    tape = Tape(lambda _: {})
    ones = kept(np.ones(4))
    tape.record(entry(0, "Exp", ("x",), "a", shapes, wanted=frozenset()), {}, {"a": ones})
    tape.record(entry(1, "Neg", ("a",), "b", shapes), {}, {"b": ones})
    tape.record(entry(2, "NoRuleForThis", ("b",), "y", shapes), {}, {"y": ones})
    assert tape.sweep({"y": np.ones(4)}).estimated == {0, 1}


def test_a_captured_tensor_gets_its_share():
    impacts = two_layers(
        inputs=(),
        captures=("h",),
        captured_shapes=((50,),),
        wanted_captures=frozenset({0}),
        gains={"h": 2.0},
    )
    assert impacts.powers[0] == pytest.approx(50 * (0.5 * 2.0) ** 2)
    assert impacts.estimated == {0}


def test_an_error_keeps_its_norm_through_a_sequence():
    shapes = {"x": (8,), "h": (8,), "parts": None, "y": (8,)}
    tape = Tape(lambda _: {})
    ones = kept(np.ones(8))
    tape.record(entry(0, "Exp", ("x",), "h", shapes, wanted=frozenset()), {}, {"h": ones})
    split = entry(1, "SplitToSequence", ("h",), "parts", shapes, is_layer=False)
    tape.record(split, {}, {})
    join = entry(2, "ConcatFromSequence", ("parts",), "y", shapes, is_layer=False)
    tape.record(join, {}, {})
    impacts = tape.sweep({"y": np.full(8, 0.25)})
    assert impacts.powers[0] == pytest.approx(8 * 0.25**2)


def test_a_rule_for_tensors_is_not_asked_about_sequences():
    shapes = {"x": (8,), "h": (8,), "parts": None, "same": None, "y": (8,)}
    tape = Tape(lambda _: {})
    ones = kept(np.ones(8))
    tape.record(entry(0, "Exp", ("x",), "h", shapes, wanted=frozenset()), {}, {"h": ones})
    path = [("SplitToSequence", "h", "parts"), ("Identity", "parts", "same"), ("Neg", "same", "y")]
    for index, (op_type, source, output) in enumerate(path, 1):
        tape.record(entry(index, op_type, (source,), output, shapes, is_layer=False), {}, {})
    impacts = tape.sweep({"y": np.full(8, 0.25)})
    assert impacts.powers[0] == pytest.approx(8 * 0.25**2)
    assert impacts.estimated == {0}


def test_a_layer_that_nothing_reads_has_no_impact():
    net, tape = Net(), Net().tape()
    net.record(tape)
    impacts = tape.sweep({"elsewhere": np.ones(3)})
    assert impacts.powers == dict.fromkeys(range(4), 0.0)
    assert all(not shares for shares in impacts.consumers.values())


def test_gradients_that_overflow_do_not_spoil_the_rest():
    shapes = dict.fromkeys(("x", "a", "y"), (2,))
    tape = Tape(lambda _: {"huge": np.array([1e30, 1.0], np.float32)})
    ones = kept(np.ones(2))
    shapes["huge"] = (2,)
    tape.record(entry(0, "Exp", ("x",), "a", shapes, wanted=frozenset()), {}, {"a": ones})
    second = entry(1, "Mul", ("a", "huge"), "y", shapes, wanted=frozenset({0}))
    tape.record(second, {}, {"y": ones})
    impacts = tape.sweep({"y": np.array([1e30, 1.0], np.float32)})
    assert np.isfinite(list(impacts.powers.values())).all()


def test_probes_are_signs_scaled_by_the_norms_of_the_outputs():
    outputs = {
        "a": np.full((3, 4), 2.0, np.float32),
        "b": np.full(4, 3.0),
        "zero": np.zeros(3, np.float32),
        "infinite": np.array([np.inf, 1.0], np.float32),
        "ids": np.arange(4),
    }
    seeds = output_seeds(outputs, rng=RNG(0))
    assert set(seeds) == {"a", "b", "infinite"}
    np.testing.assert_allclose(np.abs(seeds.pop("infinite")), [0.0, 1 / np.sqrt(3)], rtol=1e-6)
    for name in seeds:
        scale = np.linalg.norm(outputs[name]) * np.sqrt(3)
        np.testing.assert_allclose(np.abs(seeds[name]), 1 / scale, rtol=1e-6)
        assert seeds[name].dtype == outputs[name].dtype
        assert seeds[name].shape == outputs[name].shape
    assert len({float(v) for v in np.sign(seeds["a"]).reshape(-1)}) == 2
    assert output_seeds({}, rng=RNG(0)) == {}
