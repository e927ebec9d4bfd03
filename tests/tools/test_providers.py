"""`--providers`: what runs the model, and what is said of it."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from polygraphy_layerprec.backend.emulated.candidate import Candidate
from polygraphy_layerprec.backend.emulated.placement import unknown_providers, wants_gpu
from polygraphy_layerprec.files.ranking_file import load_ranking
from polygraphy_layerprec.matching.requested_precisions import all_lowered
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.tools.args import device as device_args
from tests.models import sample_inputs, small_cnn
from tests.standin_device import StandInDevice

HAS_PROVIDER = "CUDAExecutionProvider" in ort.get_available_providers()


@pytest.fixture
def model(tmp_path):
    """A model and its inputs, as options of every verb."""
    onnx.save(small_cnn(), tmp_path / "model.onnx")
    np.savez(tmp_path / "inputs.npz", **sample_inputs(small_cnn()))
    return str(tmp_path / "model.onnx"), "--load-inputs", str(tmp_path / "inputs.npz")


@pytest.fixture
def standin(monkeypatch):
    """Has a stand-in be the GPU."""
    device = StandInDevice(lacks=("Softmax", "MaxPool"))

    def open_device(providers, **_):
        return device if wants_gpu(providers) else None

    monkeypatch.setattr(device_args, "open_device", open_device)
    return device


def table_of(said):
    """The lines with measured errors, FP32 on the backend among them."""
    return [line for line in said.splitlines() if "e-" in line and not line.startswith("[")]


@pytest.mark.parametrize(
    ("providers", "is_gpu"),
    [
        (None, False),
        (["cpu"], False),
        (["cuda"], True),
        (["CUDAExecutionProvider", "CPUExecutionProvider"], True),
        (["cpu", "cuda"], False),
        (["tensorrt", "cuda"], True),
    ],
)
def test_the_first_provider_that_is_known_decides(providers, is_gpu):
    assert wants_gpu(providers) is is_gpu


def test_providers_that_the_emulation_does_not_run_on_are_unknown():
    assert unknown_providers(["cuda", "cpu"]) == []
    assert unknown_providers(["cuda", "tensorrt"]) == ["tensorrt"]


def test_every_verb_measures_on_a_gpu_what_it_measures_on_the_cpu(
    command, model, standin, tmp_path
):
    here, there = tmp_path / "here.json", tmp_path / "there.json"
    provider = ("--providers", "cuda")

    command("rank", *model, "--save-ranking", here)
    status, said = command(
        "rank", *model, *provider, "--save-ranking", there, "--tolerance", "1e-4"
    )
    ranked = standin.runs
    _, constrained = command("constrain", there, "--model", *model, *provider, "--top-k", "1")
    chosen = standin.runs
    _, verified = command("verify", *model, *provider)
    _, expected_of_verify = command("verify", *model)

    assert status == 0, said
    assert 0 < ranked < chosen < standin.runs, constrained + verified
    found, expected = load_ranking(there), load_ranking(here)
    assert (found.conditions.device, expected.conditions.device) == ("a stand-in", "")
    assert [layer.name for layer in found.layers] == [layer.name for layer in expected.layers]
    assert found.output_error.measured == pytest.approx(expected.output_error.measured, rel=1e-5)
    assert "on a stand-in" in command("inspect", there)[1]
    assert table_of(verified) == table_of(expected_of_verify) != []


def test_nodes_that_a_gpu_lacks_are_counted_and_listed_where_more_is_asked_for(
    command, model, standin
):
    _, said = command("rank", *model, "--providers", "cuda")
    _, more = command("rank", *model, "--providers", "cuda", "-v")

    lacking = len(standin.host_nodes)
    assert lacking
    assert f"{lacking} node" in said.split("ran on the CPU, for a stand-in has no kernel")[0][-20:]
    assert "On the CPU: " not in said
    assert more.count("On the CPU: ") == lacking


def test_a_gpu_that_is_there_unused_is_mentioned_once(command, model, monkeypatch):
    monkeypatch.setattr(device_args, "count_gpus", lambda: 1)

    assert command("verify", *model)[1].count("`--providers cuda`") == 1
    assert "`--providers cuda`" not in command("verify", *model, "--providers", "cpu")[1]


@pytest.mark.parametrize("uses_engines", [True, False])
def test_a_gpu_that_engines_use_is_not_unused(monkeypatch, capsys, uses_engines):
    monkeypatch.setattr(device_args, "count_gpus", lambda: 1)
    options = device_args.DeviceArgs()
    options.providers = None

    with options.running(uses_engines=uses_engines):
        pass

    assert ("`--providers cuda`" in capsys.readouterr().out) is not uses_engines


def test_providers_without_a_model_are_refused(command, model, tmp_path):
    path = tmp_path / "ranking.json"
    command("rank", *model, "--save-ranking", path)

    status, said = command("constrain", path, "--top-k", "1", "--providers", "cuda")

    assert status == 1
    assert "`--providers` says what runs the model, and no model was given" in said


@pytest.mark.skipif(HAS_PROVIDER, reason="this ONNX-Runtime has the CUDA provider")
@pytest.mark.parametrize("verb", ["rank", "verify"])
def test_a_gpu_that_cannot_be_used_ends_a_command_in_words(command, model, verb):
    status, said = command(verb, *model, "--providers", "cuda")

    assert status == 1
    assert "has no CUDAExecutionProvider" in said


def test_other_providers_are_refused_in_words(command, model):
    status, said = command("rank", *model, "--providers", "tensorrt")

    assert status == 1
    assert "`--providers` takes cpu and cuda here, got: 'tensorrt'" in said


def test_a_runner_s_model_runs_on_a_device_and_gives_arrays_of_the_host():
    graph, device = load_graph(small_cnn()), StandInDevice()
    sample = sample_inputs(small_cnn())

    found = Candidate(graph, all_lowered("fp16"), device).run(sample)

    assert device.runs
    for name, values in Candidate(graph, all_lowered("fp16")).run(sample).items():
        assert isinstance(found[name], np.ndarray)
        np.testing.assert_array_equal(found[name], values)
