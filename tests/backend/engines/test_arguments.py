"""Options about engines: every way to get them wrong."""

from __future__ import annotations

import onnx
import pytest

from polygraphy_layerprec.backend.engines import tensorrt_module
from polygraphy_layerprec.tools.main import main
from tests.models import chain
from tests.processes import run_layerprec

pytestmark = pytest.mark.onnxrt


@pytest.fixture
def refused(tmp_path, monkeypatch, capfd):
    """Runs a verb, expects an error with exit code 1, and returns what it says."""
    onnx.save(chain(3), tmp_path / "model.onnx")
    (tmp_path / "loss.py").write_text("def loss(outputs):\n    return 0.0\n")
    (tmp_path / "plugin.so").write_text("")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, verb: str = "rank") -> str:
        assert main([verb, "model.onnx", *arguments]) == 1
        said = "".join(capfd.readouterr())
        assert "Ranking:" not in said
        assert "Verification:" not in said
        return said

    return run


@pytest.mark.parametrize(
    "arguments",
    [
        ("--fp16",),
        ("--tf32",),
        ("--plugins", "plugin.so"),
        ("--trt-min-shapes", "x:[1,4]"),
        ("--trt-npps", "constraints.py"),
        ("--outputs-from", "op:Add"),
        ("--work-dir", "work"),
        ("--mark-unfused-tensors-as-debug-tensors",),
    ],
)
@pytest.mark.parametrize("verb", ["rank", "verify"])
def test_options_about_engines_need_engines(refused, arguments, verb):
    others = {"--tf32", "--outputs-from", "--mark-unfused-tensors-as-debug-tensors"}
    if verb == "verify" and arguments[0] in others:
        pytest.skip("it is emulated, refused with engines too, or there is no such option")

    said = refused(*arguments, verb=verb)

    assert f"`{arguments[0]}` is about engines" in said or "--trt-network-postprocess" in said
    assert "--backend tensorrt" in said
    assert ("--build" in said) is (verb == "verify")


@pytest.mark.parametrize("way", ["--trt", "--build"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--int8",), "`--int8` cannot be used here"),
        (("--layer-precisions", "n:float16"), "`--layer-precisions` cannot be used here"),
        (("--mark-debug", "t0"), "Only `rank` measures tensors within the model"),
        (("--mark-unfused-tensors-as-debug-tensors",), "Only `rank` measures tensors"),
        (("--bf16",), "Give `--precision bf16` instead"),
        (("--precision", "bf16", "--fp16"), "Give `--precision fp16` instead"),
    ],
)
def test_options_that_contradict_a_verification_are_refused(refused, way, arguments, message):
    assert message in refused(way, *arguments, verb="verify")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--int8",), "`--int8` cannot be used here"),
        (("--fp8",), "`--fp8` cannot be used here"),
        (("--precision-constraints", "obey"), "leave it out"),
        (("--mark-debug", "t0"), "--outputs-from"),
        (("--layer-precisions", "n:float16"), "`--layer-precisions` cannot be used here"),
        (("--tensor-dtypes", "y:float16"), "`--tensor-dtypes` cannot be used here"),
        (("--strip-plan",), "`--strip-plan` cannot be used here"),
        (("--save-tactics", "tactics.json"), "`--save-tactics` cannot be used here"),
        (("--bf16",), "Give `--precision bf16` instead"),
        (("--precision", "bf16", "--fp16"), "Give `--precision fp16` instead"),
        (
            ("--outputs-from", "op:Add", "--mark-unfused-tensors-as-debug-tensors"),
            "Leave out one of the two",
        ),
    ],
)
def test_options_that_contradict_a_ranking_are_refused(refused, arguments, message):
    assert message in refused("--trt", *arguments)


@pytest.mark.parametrize("verb", ["rank", "verify"])
@pytest.mark.parametrize("option", ["--int8", "--fp8"])
def test_what_engines_would_refuse_is_refused_without_them(refused, verb, option):
    said = refused(option, "--precision", "qdq", verb=verb)

    assert f"`{option}` cannot be used here" in said
    assert "--backend tensorrt" not in said


def test_a_missing_tensorrt_is_told(refused, monkeypatch):
    def fail(name):
        raise ImportError(name)

    monkeypatch.setattr(tensorrt_module.importlib, "import_module", fail)

    assert "pip install tensorrt" in refused("--trt")
    assert "pip install tensorrt" in refused("--trt", verb="verify")
    assert "pip install tensorrt" in refused("--build", verb="verify")


def test_a_missing_gpu_is_told(refused, monkeypatch):
    monkeypatch.setattr(tensorrt_module, "load_tensorrt", lambda: None)
    monkeypatch.setattr(tensorrt_module, "count_gpus", lambda: 0)

    assert "No NVIDIA GPU can be used" in refused("--backend", "tensorrt")
    assert "No NVIDIA GPU can be used" in refused("--trt", verb="verify")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--loss-script", "loss.py"), "needs the emulation's gradients"),
        (("--external-data-dir", "."), "beside the model only"),
        (("--mark-unfused-tensors-as-debug-tensors",), "cannot hand out tensors"),
    ],
)
def test_what_engines_cannot_do_is_told(refused, monkeypatch, arguments, message):
    class Trt:
        __version__ = "8.6.1"
        INetworkDefinition = object

    Trt.__name__ = "tensorrt"
    monkeypatch.setattr(tensorrt_module, "load_tensorrt", lambda: Trt)
    monkeypatch.setattr(tensorrt_module, "count_gpus", lambda: 1)

    assert message in refused("--trt", *arguments)


@pytest.mark.trt
@pytest.mark.parametrize(
    ("arguments", "wanted"), [((), "DETAILED"), (("--profiling-verbosity", "none"), "NONE")]
)
def test_engines_tell_of_their_layers_unless_they_are_not_to(tmp_path, arguments, wanted):
    pytest.importorskip("tensorrt_rtx", reason="needs the TensorRT-RTX builder")
    onnx.save(chain(3), tmp_path / "model.onnx")
    script = (
        "def postprocess_config(builder, network, config):\n"
        "    open('seen.txt', 'a').write(config.profiling_verbosity.name + '\\n')\n"
    )
    (tmp_path / "config.py").write_text(script)

    run_layerprec(
        "verify", "model.onnx", "--build", "--trt-cpps", "config.py", *arguments,
        folder=tmp_path, environment={"POLYGRAPHY_USE_TENSORRT_RTX": "1"},
    )  # fmt: skip

    assert set((tmp_path / "seen.txt").read_text().split()) == {wanted}


@pytest.mark.parametrize("way", ["--trt", "--build"])
def test_a_verification_finds_external_data_beside_the_model_only(refused, monkeypatch, way):
    monkeypatch.setattr(tensorrt_module, "load_tensorrt", lambda: None)
    monkeypatch.setattr(tensorrt_module, "count_gpus", lambda: 1)

    said = refused(way, "--external-data-dir", ".", verb="verify")

    assert "beside the model only" in said


@pytest.mark.parametrize("choice", ["norm", "regex:(", "top:1:loss.py"])
def test_a_choice_of_layers_is_read_before_anything_runs(refused, monkeypatch, choice):
    monkeypatch.setattr(tensorrt_module, "load_tensorrt", lambda: pytest.fail("too late"))

    assert f"Cannot use `--outputs-from {choice}`" in refused("--trt", "--outputs-from", choice)


def test_only_one_backend_is_chosen(capsys):
    with pytest.raises(SystemExit):
        main(["rank", "model.onnx", "--trt", "--backend", "emulated"])

    assert "not allowed with" in capsys.readouterr().err
