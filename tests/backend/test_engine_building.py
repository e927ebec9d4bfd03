"""How builds are configured, with TensorRT replaced; real builds are in `test_engine_command`."""

from __future__ import annotations

from types import SimpleNamespace

import onnx
import pytest
from polygraphy.logger import G_LOGGER

from polygraphy_layerprec.backend import engine_building
from polygraphy_layerprec.backend.engine_building import EngineBuilder, digest_of_model
from polygraphy_layerprec.backend.engine_options import EngineOptions
from polygraphy_layerprec.backend.engine_spec import EngineSpec
from polygraphy_layerprec.model import load_graph
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


def make_builder(monkeypatch, *, strongly_typed=False, tf32=False, precision="fp16", **changes):
    trt = SimpleNamespace(
        __name__="tensorrt",
        __version__="10.9",
        BuilderFlag=SimpleNamespace(**{name: name for name in FLAGS}),
    )
    monkeypatch.setattr(engine_building, "load_tensorrt", lambda: trt)
    monkeypatch.setattr(engine_building, "describe_gpu", lambda: "a GPU")
    monkeypatch.setattr(engine_building, "is_strongly_typed", lambda *_: strongly_typed)
    options = EngineOptions(
        load_network=lambda: None,
        make_config=lambda _: lambda builder, network: FakeConfig(),  # noqa: ARG005
        allows_tf32=tf32,
        identity={},
    )
    return EngineBuilder(
        load_graph(chain(2)), options, **{"model_digest": "ab", "precision": precision, **changes}
    )


def flags(builder, kind) -> set[str]:
    return builder._config(kind)(None, SimpleNamespace()).flags


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("reference", set()),
        ("lowered", {"FP16"}),
        ("one layer", {"FP16", "OBEY_PRECISION_CONSTRAINTS"}),
    ],
)
def test_a_weakly_typed_network_is_lowered_by_flags(monkeypatch, kind, wanted):
    assert flags(make_builder(monkeypatch), kind) == wanted


@pytest.mark.parametrize("kind", ["reference", "lowered", "one layer"])
def test_a_strongly_typed_network_gets_no_flags(monkeypatch, kind):
    assert flags(make_builder(monkeypatch, strongly_typed=True), kind) == set()


def test_the_flag_is_that_of_the_precision(monkeypatch):
    assert flags(make_builder(monkeypatch, precision="bf16"), "lowered") == {"BF16"}


def test_tf32_is_on_only_if_asked_for(monkeypatch):
    assert flags(make_builder(monkeypatch, tf32=True), "reference") == {"TF32"}


def test_everything_that_decides_a_build_is_in_its_identity(monkeypatch):
    builder = make_builder(monkeypatch)
    plain = builder.identity(EngineSpec("reference"))

    assert plain["versions"].keys() == {"polygraphy", "tensorrt"}
    assert plain["gpu"] == "a GPU"
    others = [
        builder.identity(EngineSpec("lowered")),
        builder.identity(EngineSpec("reference", ("t0",))),
        builder.identity(EngineSpec("one layer", layer="t0")),
        builder.identity(EngineSpec("reference", with_debug_tensors=True)),
        make_builder(monkeypatch, precision="bf16").identity(EngineSpec("reference")),
        make_builder(monkeypatch, model_digest="cd").identity(EngineSpec("reference")),
    ]
    assert all(other != plain for other in others)


@pytest.mark.parametrize("written", [True, False])
def test_the_timing_cache_is_replaced_as_a_whole(monkeypatch, tmp_path, written):
    cache = tmp_path / "timing.cache"
    cache.write_bytes(b"old")
    builder = make_builder(monkeypatch, timing_cache_path=str(cache))
    options = []

    def build(network, config, save_timing_cache):  # noqa: ARG001
        options.append(save_timing_cache)
        if written:  # a configuration of the user may have none
            with open(save_timing_cache, "wb") as file:
                file.write(b"old and new")
        return lambda: b"plan"

    monkeypatch.setattr(engine_building, "EngineBytesFromNetwork", build)

    assert builder.build(EngineSpec("reference")) == b"plan"

    assert cache.read_bytes() == (b"old and new" if written else b"old")
    assert options != [str(cache)]


def test_details_of_a_build_are_logged_if_asked_for(monkeypatch, capfd):
    builder = make_builder(monkeypatch)
    said = "what Polygraphy says of a build"

    def build(*_, **__):
        return lambda: G_LOGGER.info(said) or b"plan"

    monkeypatch.setattr(engine_building, "EngineBytesFromNetwork", build)

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
