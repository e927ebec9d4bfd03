"""`--precision qdq` from the command line, on models that ONNX-Runtime's own tool quantised."""

from __future__ import annotations

import json
import re
import shlex

import numpy as np
import onnx
import pytest

from polygraphy_layerprec.files.ranking_file import load_ranking
from tests.model_parts import build_model, node, normal, tensor
from tests.pair_models import cnn, cnn_inputs, mlp, mlp_inputs, quantised, run_whole

pytestmark = pytest.mark.onnxrt

CLASSES, SAMPLES = 4, 8
TOP1 = """
def metric(outputs, samples):
    right = [(o["y"].argmax(1) == s["label"]).mean() for o, s in zip(outputs, samples)]
    return sum(right) / len(right)
"""
RANK = ("rank", "model_qdq.onnx", "--precision", "qdq", "--load-inputs", "data")
REFERENCE = ("--reference", "float.onnx")


def classifier():
    """Classes hang by the small channels of what `/ruined` takes; one is large and says nothing."""
    spread = np.eye(8, dtype=np.float32)[:, :8] * 3
    large = np.array([0, 0, 0, 0, 0, 6000, 0, 0], np.float32)
    blind = normal(5, 8, 8, scale=0.5)
    blind[5] = 0.0
    nodes = [
        node("MatMul", ["x", "w0"], "h0", name="/first"),
        node("Add", ["h0", "large"], "h1", name="/shift"),
        node("MatMul", ["h1", "w1"], "h2", name="/ruined"),
        node("Tanh", ["h2"], "h3", name="/Tanh"),
        node("MatMul", ["h3", "w2"], "y", name="/last"),
    ]
    weights = {"w0": spread, "large": large, "w1": blind, "w2": normal(6, 8, CLASSES)}
    x, y = tensor("x", [16, 8]), tensor("y", [16, CLASSES])
    return build_model(nodes, [x], [y], weights)


def static_quantization(path, target, samples, **extra):
    """As users do it: ONNX-Runtime's tool, QDQ, per channel, symmetric activations."""
    quantization = pytest.importorskip("onnxruntime.quantization")

    class Reader(quantization.CalibrationDataReader):
        def __init__(self):
            self.left = iter(samples)

        def get_next(self):
            return next(self.left, None)

    quantization.quantize_static(
        str(path),
        str(target),
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=quantization.QuantType.QInt8,
        weight_type=quantization.QuantType.QInt8,
        op_types_to_quantize=["Conv", "MatMul", "Gemm", "Add", "MaxPool"],
        extra_options={"ActivationSymmetric": True, **extra},
    )


@pytest.fixture
def run(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    return command


@pytest.fixture
def classified(run, tmp_path):
    """A classifier whose second product one scale ruins, with labels, quantised by the tool."""
    onnx.save(classifier(), tmp_path / "float.onnx")
    samples = [{"x": normal(i, 16, 8)} for i in range(SAMPLES)]
    (tmp_path / "data").mkdir()
    for index, sample in enumerate(samples):
        label = run_whole(classifier(), sample)["y"].argmax(1)
        np.savez(tmp_path / "data" / f"{index}.npz", **sample, label=label)
    static_quantization(tmp_path / "float.onnx", tmp_path / "model_qdq.onnx", samples)
    (tmp_path / "top1.py").write_text(TOP1)
    return run


METRIC = ("--metric-script", "top1.py", "--max-drop", "0.02", "--labels", "label")


def test_an_outlier_that_ruins_a_scale_comes_first_and_leaving_it_out_restores_top1(
    classified, tmp_path
):
    status, log = classified(
        *RANK, *REFERENCE, *METRIC, "--save-onnx", "kept.onnx", "--save-exclude", "exclude.txt",
        "--save-ranking", "ranking.json",
    )  # fmt: skip

    assert log.index("Verdict: ") < log.index("Quantised model: ") < log.index("Culprits: ")
    assert status == 0, log
    first = load_ranking(tmp_path / "ranking.json").layers[0]
    assert (first.name, first.kind) == ("/ruined", "outlier channel")
    assert "channel 5 of 'h1'" in first.reason
    assert "Verdict: QDQ loses accuracy: drop of top1" in log
    sets = {name: top1(tmp_path, name) for name in ("model_qdq.onnx", "kept.onnx")}
    assert sets["model_qdq.onnx"] < 0.9
    assert sets["kept.onnx"] >= 0.98
    words = shlex.split((tmp_path / "exclude.txt").read_text())
    assert words[0] == "--nodes_to_exclude"
    assert [p for p in words[1:] if re.match(p, "/ruined")]
    assert not [p for p in words[1:] if re.match(p, "/ruined/2") or re.match(p, "x/ruined")]


def top1(folder, name):
    right = []
    for path in sorted((folder / "data").iterdir()):
        with np.load(path) as sample:
            made = run_whole(str(folder / name), {"x": sample["x"]})["y"]
            right.append(np.mean(made.argmax(1) == sample["label"]))
    return np.mean(right)


def test_a_saved_ranking_is_chosen_from_again(classified, tmp_path):
    classified(*RANK, *REFERENCE, "--labels", "label", "--save-ranking", "ranking.json")

    status, log = classified(
        "constrain", "ranking.json", "--model", "model_qdq.onnx", *REFERENCE, *METRIC,
        "--load-inputs", "data", "--save-onnx", "kept.onnx",
    )  # fmt: skip

    assert status == 0, log
    assert "removed" in log
    assert top1(tmp_path, "kept.onnx") >= 0.98


def test_a_ranking_is_measured_with_the_reference_that_it_compares_with(classified):
    classified(*RANK, *REFERENCE, "--labels", "label", "--save-ranking", "ranking.json")

    status, log = classified(
        "constrain", "ranking.json", "--model", "model_qdq.onnx", "--load-inputs", "data",
        "--labels", "label",
    )  # fmt: skip

    assert status == 1
    assert "another reference" in log


def test_parts_of_a_data_set_make_the_same_ranking(classified, tmp_path):
    threads = ("--labels", "label", "--threads", "1")
    classified(*RANK, *REFERENCE, *threads, "--save-ranking", "whole.json")
    for shard in ("1", "2"):
        part = ("--shard", f"{shard}/2", "--save-partial", f"{shard}.npz")
        status, log = classified(*RANK, *REFERENCE, *threads, *part)
        assert status == 0, log

    status, log = classified(
        "merge", "1.npz", "2.npz", "--model", "model_qdq.onnx", *REFERENCE,
        "--save-ranking", "merged.json", "--load-inputs", "data", "--labels", "label",
    )  # fmt: skip

    assert status in (0, 1), log
    whole, merged = load_ranking(tmp_path / "whole.json"), load_ranking(tmp_path / "merged.json")
    assert [layer.name for layer in merged.layers] == [layer.name for layer in whole.layers]
    assert [layer.reason for layer in merged.layers] == [layer.reason for layer in whole.layers]
    np.testing.assert_allclose(
        [layer.impact for layer in merged.layers], [layer.impact for layer in whole.layers]
    )


def test_workers_find_the_reference_and_make_the_same_ranking(classified, tmp_path):
    pytest.importorskip("distributed")
    options = ("--labels", "label", "--threads", "1", "--save-ranking")
    classified(*RANK, *REFERENCE, *options, "one.json")

    status, log = classified(*RANK, *REFERENCE, *options, "many.json", "--workers", "2")

    assert status in (0, 1), log
    one, many = load_ranking(tmp_path / "one.json"), load_ranking(tmp_path / "many.json")
    assert many.layers == one.layers
    assert many.conditions == one.conditions


def test_parts_of_another_reference_are_refused(classified, tmp_path):
    other = classifier()
    other.graph.initializer[0].raw_data = normal(77, 8, 8).tobytes()
    onnx.save(other, tmp_path / "other.onnx")
    part = ("--labels", "label", "--shard", "1/1", "--save-partial", "1.npz")
    classified(*RANK, *REFERENCE, *part)

    status, log = classified(
        "merge", "1.npz", "--model", "model_qdq.onnx", "--reference", "other.onnx",
        "--save-ranking", "merged.json",
    )  # fmt: skip

    assert status == 1
    assert "another reference" in log


def test_a_reference_with_other_weights_is_refused(classified, tmp_path):
    other = classifier()
    (bias,) = (t for t in other.graph.initializer if t.name == "w0")
    bias.raw_data = normal(77, 8, 8).tobytes()
    for one in other.graph.node:
        if one.name == "/Tanh":
            one.op_type = "Sin"
    onnx.save(other, tmp_path / "other.onnx")

    status, log = classified(*RANK, "--reference", "other.onnx", "--labels", "label")

    assert status == 1
    assert "was not made of the reference 'other.onnx'" in log
    assert not (tmp_path / "ranking.json").exists()


@pytest.mark.parametrize("options", [{}, {"QuantizeBias": False}], ids=["biases", "no biases"])
def test_a_convolutional_model_of_the_tool_is_saved_as_it_was_measured(run, tmp_path, options):
    onnx.save(cnn(), tmp_path / "float.onnx")
    samples = [cnn_inputs(i) for i in range(2)]
    np.savez(tmp_path / "data.npz", **samples[0])
    static_quantization(tmp_path / "float.onnx", tmp_path / "model_qdq.onnx", samples, **options)

    status, log = run(
        "rank", "model_qdq.onnx", "--precision", "qdq", *REFERENCE, "--load-inputs", "data.npz",
        "--top-k", "2", "--save-onnx", "kept.onnx", "--save-verdict", "verdict.json",
    )  # fmt: skip

    assert ("are stored in INT32" in log) == (not options)
    measured = float(re.search(r"bring it to ([\d.e-]+)|error ([\d.e-]+) \(at", log).group(1) or 0)
    exact = run_whole(cnn(), samples[0])["y"]
    found = run_whole(str(tmp_path / "kept.onnx"), samples[0])["y"]
    if measured:
        assert np.linalg.norm(found - exact) / np.linalg.norm(exact) == pytest.approx(
            measured, rel=0.02
        )
    assert status in (0, 1)


@pytest.fixture
def small(run, tmp_path):
    onnx.save(mlp(), tmp_path / "float.onnx")
    onnx.save(quantised(mlp(), mlp_inputs(), ops={"MatMul"}), tmp_path / "model_qdq.onnx")
    np.savez(tmp_path / "data.npz", **mlp_inputs())
    return run


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


SMALL = ("rank", "model_qdq.onnx", "--load-inputs", "data.npz")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--precision", "qdq", "--save-script", "s.py"), "pairs stand in the model"),
        (("--precision", "qdq", "--save-layer-precisions", "s.txt"), "about FP16 and BF16"),
        (("--precision", "qdq", "--save-autocast-args", "s.txt"), "about FP16 and BF16"),
        (("--precision", "qdq", "--io-precision", "low"), "`--io-precision` is about"),
        (("--precision", "fp16", "--save-exclude", "s.txt"), "the pairs of a quantised model"),
        (("--precision", "fp16", "--reference", "float.onnx"), "`--reference` is what"),
        (("--precision", "qdq", "--reference", "nowhere.onnx"), "no model file 'nowhere.onnx'"),
        (("--precision", "qdq", "--backend", "tensorrt"), "pairs, which are emulated"),
        (("--precision", "qdq", "--save-exclude", "model_qdq.onnx"), "which is read"),
        (
            ("--precision", "qdq", *REFERENCE, "--save-onnx", "float.onnx"),
            "which is read",
        ),
        (("--precision", "int8"), "one of fp16, bf16, qdq, got: 'int8'"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(small, tmp_path, options, words):
    before = files_of(tmp_path)

    status, log = small(*SMALL, *options)

    assert status == 1
    assert words in log
    assert "Traceback" not in log
    assert files_of(tmp_path) == before


def test_fp16_of_a_quantised_model_ranks_its_float_parts(small, tmp_path):
    status, log = small(*SMALL, "--precision", "fp16", "--save-ranking", "fp16.json")

    assert status == 0, log
    names = {layer.name for layer in load_ranking(tmp_path / "fp16.json").layers}
    assert {"/attention/q", "/attention/Add", "/out"} <= names
    status, log = small(*SMALL, "--precision", "qdq", *REFERENCE, "--save-ranking", "qdq.json")
    assert status == 0, log

    status, log = small("compare", "fp16.json", "qdq.json")

    assert status == 0, log
    assert "FP16" in log
    assert "QDQ" in log


DATA = ("--load-inputs", "data.npz")
VERIFY = ("verify", "model_qdq.onnx", *DATA)
GOAL = ("--tolerance", "0.01")


@pytest.fixture
def chosen(small):
    """The small model with a ranking that keeps one of its two layers, and what that saved."""
    status, log = small(
        *SMALL, "--precision", "qdq", *REFERENCE, *GOAL, "--save-ranking", "qdq.json",
        "--save-onnx", "fewer.onnx", "--save-verdict", "rank.json",
    )  # fmt: skip
    assert status == 0, log
    assert "Chosen: 1 of 2 layers stay in FP32" in log
    return small


def saved_verdict(folder, name):
    return json.loads((folder / name).read_text())


def test_verify_finds_what_the_ranking_chose_and_measured(chosen, tmp_path):
    status, log = chosen(
        *VERIFY, *REFERENCE, "--ranking", "qdq.json", *GOAL, "--save-verdict", "verify.json",
        "--save-report", "verify.html",
    )  # fmt: skip

    assert status == 0, log
    assert "Asked: 1 of 2 layers stay in FP32 | the ranking 'qdq.json'; 2 pairs are removed" in log
    ranked, verified = (saved_verdict(tmp_path, f"{verb}.json") for verb in ("rank", "verify"))
    for which in ("lowered", "outcome"):
        assert verified[which]["judgements"] == ranked[which]["judgements"]
    assert verified["layer_count"] == 2
    assert "; 2 pairs removed" in (tmp_path / "verify.html").read_text()


def test_verify_judges_a_quantised_model_and_what_is_left_of_it(chosen, tmp_path):
    for model, passes in (("model_qdq.onnx", False), ("fewer.onnx", True)):
        status, log = chosen(
            "verify", model, "--precision", "qdq", *REFERENCE, *DATA, *GOAL, "--save-verdict",
            "verify.json",
        )  # fmt: skip

        assert status == (0 if passes else 1), log
        assert "FP32 on ORT" in log
        kept = saved_verdict(tmp_path, "verify.json")["outcome"]["error"]
        ranked = saved_verdict(tmp_path, "rank.json")["outcome" if passes else "lowered"]["error"]
        assert kept == pytest.approx(ranked, rel=1e-5)


def test_workers_verify_pairs_as_one_process_does(chosen, tmp_path):
    pytest.importorskip("distributed")
    options = (*VERIFY, *REFERENCE, "--ranking", "qdq.json", "--threads", "1", "--save-verdict")
    chosen(*options, "one.json")

    status, log = chosen(*options, "many.json", "--workers", "2")

    assert status == 0, log
    assert saved_verdict(tmp_path, "many.json") == saved_verdict(tmp_path, "one.json")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--ranking", "qdq.json"), "compares with another reference"),
        (("--ranking", "qdq.json", *REFERENCE, "--tf32"), "about engines in FP16 or BF16"),
        (("--ranking", "qdq.json", *REFERENCE, "--backend", "tensorrt"), "about engines in FP16"),
        (("--ranking", "qdq.json", *REFERENCE, "--build"), "about engines in FP16 or BF16"),
        (("--ranking", "qdq.json", *REFERENCE, "--precision", "bf16"), "is for qdq"),
        (("--precision", "qdq", "--mixed-onnx", "fewer.onnx"), "'fewer.onnx' about FP16"),
        (("--precision", "qdq", "--reference", "other.onnx"), "was not made of the reference"),
        (REFERENCE, "`--reference` is what a quantised model is compared with"),
    ],
)
def test_verify_refuses_what_is_not_about_these_pairs(chosen, tmp_path, options, words):
    other = mlp()
    other.graph.node[3].op_type = "Sigmoid"
    onnx.save(other, tmp_path / "other.onnx")

    status, log = chosen(*VERIFY, *options)

    assert status == 1
    assert words in log
    assert "Traceback" not in log


def test_a_report_measures_pairs_against_the_reference(chosen, tmp_path):
    report = ("report", "qdq.json", "--model", "model_qdq.onnx", *DATA, "-o", "page.html")

    status, log = chosen(*report, *REFERENCE, *GOAL)

    assert status == 0, log
    assert saved_verdict(tmp_path, "rank.json")["sentence"] in " ".join(log.split())
    (tmp_path / "page.html").unlink()
    status, log = chosen(*report)
    assert status == 1
    assert "another reference" in log
    assert not (tmp_path / "page.html").exists()


def test_what_a_report_says_to_run_names_the_model_that_pairs_leave(chosen):
    _, log = chosen("report", "qdq.json", "--format", "markdown")

    (line,) = [line for line in log.splitlines() if "--save-exclude" in line]
    words = shlex.split(line)
    assert words[words.index("--model") + 1] == "model_qdq.onnx"
    assert "--reference" in words


def test_a_choice_that_was_not_measured_says_nothing_of_casts(chosen):
    status, log = chosen("constrain", "qdq.json", "--top-k", "1", "--save-exclude", "exclude.txt")

    assert status == 0, log
    assert "20.0% of the operations; RMS" in log
    assert " cast" not in log


@pytest.mark.parametrize("options", [("--by", "block"), ("--cost", "flops"), ("--top-k", "1")])
def test_choices_and_reports_are_as_ever(small, tmp_path, options):
    status, log = small(
        *SMALL, "--precision", "qdq", *REFERENCE, *options, "--tolerance", "1e-3",
        "--save-report", "report.html", "--save-curve", "curve.csv", "--save-verdict", "v.json",
    )  # fmt: skip

    assert status in (0, 1), log
    assert "2 layers quantised" in log
    assert "removed" in log
    assert " cast" not in log
    assert "Traceback" not in log
    for name in ("report.html", "curve.csv", "v.json"):
        assert (tmp_path / name).stat().st_size
