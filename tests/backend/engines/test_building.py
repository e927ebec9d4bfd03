"""How builds are configured, with TensorRT replaced; real builds are in `test_rank_command`."""

from __future__ import annotations

import json
from types import SimpleNamespace

import onnx
import pytest
from polygraphy.logger import G_LOGGER

from polygraphy_layerprec.backend.engines import building
from polygraphy_layerprec.backend.engines.building import TensorrtEngines, digest_of_model
from polygraphy_layerprec.backend.engines.options import EngineOptions
from polygraphy_layerprec.backend.engines.specs import EngineError, EngineSpec, constrained_engine
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.records import Constraint, NetworkWidths, RequestedPrecisions
from tests.models import chain, save_with_external_data, small_cnn


class FakeConfig:
    """Notes flags; TF32 is on, as TensorRT has it."""

    def __init__(self) -> None:
        self.flags = {"TF32"}

    def set_flag(self, flag):
        self.flags.add(flag)

    def clear_flag(self, flag):
        self.flags.remove(flag)


FLAGS = ("TF32", "FP16", "BF16", "OBEY_PRECISION_CONSTRAINTS")


def make_trt(**changes):
    return SimpleNamespace(
        __name__="tensorrt",
        __version__="10.9",
        BuilderFlag=SimpleNamespace(**{name: name for name in FLAGS}),
        ILayer=type("ILayer", (), {"precision": None}),
        NetworkDefinitionCreationFlag=SimpleNamespace(**changes),
    )


@pytest.fixture
def make_builder(monkeypatch, tmp_path):
    """Makes a builder whose `loads` are the models that it parses, with how."""
    onnx.save(chain(2), tmp_path / "model.onnx")

    def make(*, strongly_typed=False, tf32=False, precision="fp16", path=None, **changes):
        trt = changes.pop("trt", make_trt(STRONGLY_TYPED=1))
        monkeypatch.setattr(building, "load_tensorrt", lambda: trt)
        monkeypatch.setattr(building, "describe_gpu", lambda: "a GPU")
        monkeypatch.setattr(building, "is_strongly_typed", lambda *_: strongly_typed)
        loads = []
        path = str(path or tmp_path / "model.onnx")
        options = EngineOptions(
            model_path=path,
            load_network=lambda path, **how: loads.append((path, how)),
            make_config=lambda _: lambda builder, network: FakeConfig(),  # noqa: ARG005
            allows_tf32=tf32,
            identity={},
        )
        builder = TensorrtEngines(load_graph(path), options, precision=precision, **changes)
        builder.loads = loads
        return builder

    return make


def asked(*kept: str, reason="a test", widths=None) -> RequestedPrecisions:
    constraints = tuple(Constraint("", "Add", (), (name,), reason) for name in kept)
    return RequestedPrecisions("a test", "fp16", constraints, (), widths=widths or NetworkWidths())


def flags(builder, kind) -> set[str]:
    return builder._config(kind)(None, SimpleNamespace()).flags


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("reference", set()),
        ("lowered", {"FP16"}),
        ("one layer", {"FP16", "OBEY_PRECISION_CONSTRAINTS"}),
        ("constrained", {"FP16", "OBEY_PRECISION_CONSTRAINTS"}),
    ],
)
def test_a_weakly_typed_network_is_lowered_by_flags(make_builder, kind, wanted):
    assert flags(make_builder(), kind) == wanted


@pytest.mark.parametrize("kind", ["reference", "lowered", "one layer", "constrained"])
def test_a_strongly_typed_network_gets_no_flags(make_builder, kind):
    assert flags(make_builder(strongly_typed=True), kind) == set()


def test_the_flag_is_that_of_the_precision(make_builder):
    assert flags(make_builder(precision="bf16"), "lowered") == {"BF16"}


def test_tf32_is_on_only_if_asked_for(make_builder):
    assert flags(make_builder(tf32=True), "reference") == {"TF32"}


def test_everything_that_decides_a_build_is_in_its_identity(make_builder, tmp_path):
    onnx.save(small_cnn(), tmp_path / "other.onnx")
    builder = make_builder()

    identities = [
        builder.identity(EngineSpec("reference")),
        builder.identity(EngineSpec("lowered")),
        builder.identity(EngineSpec("reference", ("t0",))),
        builder.identity(EngineSpec("one layer", layer="t0")),
        builder.identity(EngineSpec("reference", with_debug_tensors=True)),
        builder.identity(constrained_engine(asked("t0"))),
        builder.identity(constrained_engine(asked("t1"))),
        builder.identity(
            constrained_engine(asked("t1", widths=NetworkWidths(low_tensors=("t0",))))
        ),
        builder.identity(constrained_engine(asked("t1"), str(tmp_path / "model.onnx"))),
        builder.identity(constrained_engine(asked("t1"), str(tmp_path / "other.onnx"))),
        make_builder(precision="bf16").identity(EngineSpec("reference")),
        make_builder(path=tmp_path / "other.onnx").identity(EngineSpec("reference")),
    ]

    assert identities[0]["versions"].keys() == {"polygraphy", "tensorrt"}
    assert identities[0]["gpu"] == "a GPU"
    assert len({json.dumps(identity, sort_keys=True) for identity in identities}) == 12


def test_why_a_layer_is_kept_does_not_decide_a_build(make_builder):
    first, second = (constrained_engine(asked("t0", reason=reason)) for reason in ("one", "two"))

    assert make_builder().identity(first) == make_builder().identity(second)


def test_where_nothing_is_kept_the_engine_is_the_lowered_one():
    assert constrained_engine(asked()) == EngineSpec("lowered")
    assert constrained_engine(asked(), "mixed.onnx").mixed_path == "mixed.onnx"


@pytest.mark.parametrize("weak", [True, False])
def test_the_types_of_a_mixed_model_decide(make_builder, weak):
    trt = make_trt(STRONGLY_TYPED=1)
    if not weak:
        del trt.BuilderFlag.FP16
    builder = make_builder(trt=trt)
    mixed = constrained_engine(asked("t0"), "mixed.onnx")

    builder._mixed_network(mixed)()

    assert builder.loads == [("mixed.onnx", {"strongly_typed": weak})]


def test_a_mixed_model_needs_strong_types(make_builder):
    with pytest.raises(EngineError, match="mere hints"):
        make_builder(trt=make_trt()).build(constrained_engine(asked("t0"), "mixed.onnx"))


def test_a_failed_build_says_why(make_builder, monkeypatch):
    def build(*_, **__):
        return lambda: G_LOGGER.critical("Invalid Engine. Please ensure it was built correctly")

    monkeypatch.setattr(building, "EngineBytesFromNetwork", build)

    with pytest.raises(EngineError, match=r"cannot build the lowered engine[\s\S]*Invalid Engine"):
        make_builder().build(EngineSpec("lowered"))


@pytest.mark.parametrize("written", [True, False])
def test_the_timing_cache_is_replaced_as_a_whole(make_builder, monkeypatch, tmp_path, written):
    cache = tmp_path / "timing.cache"
    cache.write_bytes(b"old")
    builder = make_builder(timing_cache_path=str(cache))
    options = []

    def build(network, config, save_timing_cache):  # noqa: ARG001
        options.append(save_timing_cache)
        if written:  # a configuration of the user may have none
            with open(save_timing_cache, "wb") as file:
                file.write(b"old and new")
        return lambda: b"plan"

    monkeypatch.setattr(building, "EngineBytesFromNetwork", build)

    assert builder.build(EngineSpec("reference")) == b"plan"

    assert cache.read_bytes() == (b"old and new" if written else b"old")
    assert options != [str(cache)]


def test_details_of_a_build_are_logged_if_asked_for(make_builder, monkeypatch, capfd):
    builder = make_builder()
    said = "what Polygraphy says of a build"

    def build(*_, **__):
        return lambda: G_LOGGER.info(said) or b"plan"

    monkeypatch.setattr(building, "EngineBytesFromNetwork", build)

    builder.build(EngineSpec("reference"))
    assert said not in capfd.readouterr().out
    with G_LOGGER.verbosity(G_LOGGER.VERBOSE):
        builder.build(EngineSpec("reference"))
    assert said in capfd.readouterr().out


def test_a_changed_weight_changes_the_digest_of_the_model(tmp_path):
    path = tmp_path / "model.onnx"
    model = small_cnn()
    onnx.save(model, path)
    before = digest_of_model(load_graph(path), str(path))
    weight = model.graph.initializer[0]
    values = onnx.numpy_helper.to_array(weight).copy()
    values.reshape(-1)[values.size // 2] += 1  # `identify` looks at the first and the last
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, path)

    assert digest_of_model(load_graph(path), str(path)) != before


def test_weights_in_other_files_are_part_of_the_digest(tmp_path):
    path = tmp_path / "model.onnx"
    save_with_external_data(small_cnn(), path)
    before = digest_of_model(load_graph(path), str(path))
    (data,) = [file for file in tmp_path.iterdir() if file != path]
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)

    assert digest_of_model(load_graph(path), str(path)) != before
