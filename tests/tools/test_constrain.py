"""`constrain` with a real ranking: what it measures, what it saves, and when it fails."""

from __future__ import annotations

import csv
import dataclasses
import re
import runpy
import shlex
import shutil

import numpy as np
import onnx
import pytest
from polygraphy.logger import G_LOGGER

from polygraphy_layerprec import load_ranking, rank_model
from polygraphy_layerprec.files.ranking_file import save_ranking
from polygraphy_layerprec.pipeline import measure_output_error
from polygraphy_layerprec.tools.main import main
from tests.models import (
    build_model,
    node,
    odd_names,
    sample_inputs,
    save_with_external_data,
    scalar,
    small_cnn,
    tensor,
)
from tests.processes import run_layerprec

pytestmark = pytest.mark.onnxrt

MODEL = ("--model", "model.onnx", "--load-inputs", "inputs.npz")


def write_files(folder, model):
    sample = sample_inputs(model, dynamic=20)
    onnx.save(model, folder / "model.onnx")
    np.savez(folder / "inputs.npz", **sample)
    save_ranking(rank_model(folder / "model.onnx", [sample]), folder / "ranking.json")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("made"), small_cnn())


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """Returns the current folder, with a model, inputs and a ranking of its five layers."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


@pytest.fixture(autouse=True)
def quiet_polygraphy():
    severity = G_LOGGER.module_severity
    yield
    G_LOGGER.module_severity = severity
    G_LOGGER.log_file = None


def constrain(*arguments, ranking="ranking.json"):
    return main(["constrain", ranking, *map(str, arguments)])


def chosen(path="c.py"):
    return [constraint["name"] for constraint in runpy.run_path(str(path))["CONSTRAINTS"]]


def ranked_names():
    return [layer.name for layer in load_ranking("ranking.json").layers]


def error_of(names, folder):
    with np.load(folder / "inputs.npz") as arrays:
        samples = [dict(arrays)]
    layers = load_ranking(folder / "ranking.json").layers
    outputs = [layer.outputs[0] for layer in layers if layer.name in names]
    return measure_output_error(folder / "model.onnx", samples, fp32_outputs=outputs)


@pytest.mark.usefixtures("folder")
def test_without_a_model_the_forecast_decides_and_that_is_said(capsys):
    status = constrain("--top-k", 2, "--save-script", "c.py")

    out = capsys.readouterr().out
    first, command = [line for line in out.splitlines() if "RUNNING" not in line][:2]
    assert status == 0
    assert "Verdict: none, for nothing was measured" in first
    assert "constrain ranking.json" in command
    assert command.endswith("--model model.onnx --load-inputs inputs.npz")
    assert "relative L2 error: forecast" in out
    assert "measured 0" not in out
    assert chosen() == ranked_names()[:2]


def test_with_the_model_the_error_is_measured(folder, capsys):
    status = constrain(*MODEL, "--top-k", 2, "--save-script", "c.py", "--show", 1)

    out = capsys.readouterr().out
    assert status == 0
    assert "nothing is measured" not in out
    assert f"tensors are cast; relative L2 error {error_of(chosen(), folder):.3g} (at most" in (
        " ".join(out.split())
    )


@pytest.mark.parametrize("measured", [True, False])
def test_a_tolerance_is_met_by_fewer_layers_than_all(folder, measured):
    everything_lowered = error_of([], folder)
    tolerance = everything_lowered / 3

    status = constrain(
        *(MODEL if measured else ()), "--tolerance", tolerance, "--save-script", "c.py"
    )

    assert status == 0
    assert 0 < len(chosen()) < 5
    # The forecast is only near the truth.
    assert error_of(chosen(), folder) <= tolerance * (1 if measured else 1.25)
    assert everything_lowered > tolerance * 1.25


def test_the_largest_absolute_error_is_met(folder, capsys):
    lowered = load_ranking("ranking.json").output_error.outputs[0].max_abs_error

    status = constrain(*MODEL, "--max-abs", lowered / 3, "--save-script", "c.py")

    assert status == 0
    assert 0 < len(chosen()) < 5
    measured = float(re.search(r"in FP32 brings? it to ([\d.e-]+)\.", capsys.readouterr().out)[1])
    assert 0 < measured <= lowered / 3
    assert measured != pytest.approx(error_of(chosen(), folder), rel=0.01)


def test_an_output_that_is_lost_is_infinitely_far_off(tmp_path, monkeypatch, capsys):
    nodes = [
        node("Mul", ["x", "factor"], "large", name="blow_up"),
        node("Div", ["large", "factor"], "y", name="shrink"),
    ]
    shape = [tensor(name, [4, 8]) for name in ("x", "y")]
    model = build_model(nodes, shape[:1], shape[1:], {"factor": scalar(1e6)})
    monkeypatch.chdir(write_files(tmp_path, model))

    assert constrain(*MODEL, "--max-abs", 1e30, "--allow", "shrink") == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert re.search(r"\d+ output elements become NaN or infinite", shown)
    assert constrain(*MODEL, "--max-abs", 1e-6) == 0


@pytest.mark.usefixtures("folder")
def test_a_share_of_the_layers_is_kept():
    assert constrain("--fp32-fraction", 0.4, "--save-script", "c.py") == 0

    assert chosen() == ranked_names()[:2]


@pytest.mark.usefixtures("folder")
def test_named_layers_are_kept_and_others_not_allowed():
    last = ranked_names()[-1]

    assert constrain("--top-k", 1, "--keep", f"^{last}$", "--save-script", "c.py") == 0
    assert chosen() == [last]
    flags = ("--top-k", 3, "--allow", "/conv1/", "^/Add$", "--save-script", "c.py")
    assert constrain(*flags) == 0
    assert sorted(chosen()) == ["/Add", "/conv1/Conv"]


@pytest.mark.usefixtures("folder")
def test_what_is_to_be_saved_decides_among_sets(folder):
    costs = {}
    ranking = load_ranking("ranking.json")
    flops = {layer.name: layer.flops for layer in ranking.layers}
    for cost in ("count", "flops", "casts"):
        flags = ("--tolerance", error_of([], folder) / 10, "--cost", cost)
        assert constrain(*flags, "--save-script", "c.py") == 0
        costs[cost] = (len(chosen()), sum(flops[name] for name in chosen()))
    # A layer and a cast have a price too, of 2% of an average layer each.
    assert costs["flops"][1] <= costs["count"][1] * 1.02
    assert costs["count"][0] <= min(costs["flops"][0], costs["casts"][0])


@pytest.mark.usefixtures("folder")
def test_the_wanted_cost_reaches_the_search(monkeypatch):
    from polygraphy_layerprec import pipeline

    asked, metrics = [], []

    def select(ranking, request, **options):
        asked.append(request.cost)
        return original(ranking, request, **options)

    def measure(*given, judges, **options):
        metrics.extend(judge.criteria[0].metric for judge in judges)
        return measured_model(*given, judges=judges, **options)

    original = pipeline.select_constraints
    monkeypatch.setattr(pipeline, "select_constraints", select)
    measured_model = pipeline.measured_model
    monkeypatch.setattr(pipeline, "measured_model", measure)
    constrain("--top-k", 1, "--cost", "casts")
    constrain("--top-k", 1)
    constrain(*MODEL, "--max-abs", 1)

    assert asked == ["casts", "time", "time"]
    assert metrics == ["largest absolute error"]


@pytest.mark.parametrize("measured", [True, False])
@pytest.mark.usefixtures("folder")
def test_the_curve_is_saved_with_what_was_measured(measured):
    flags = (*(MODEL if measured else ()), "--top-k", 1, "--save-curve", "curve.csv")

    assert constrain(*flags) == 0

    with open("curve.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert (rows[0]["layer_count"], rows[-1]["layer_count"]) == ("0", "5")
    assert float(rows[-1]["forecast_error"]) == 0.0
    assert all(bool(row["measured_error"]) is measured for row in rows)


@pytest.mark.parametrize("measured", [True, False])
def test_where_no_set_meets_the_tolerance_the_best_is_saved_and_the_run_fails(
    folder, capsys, measured
):
    flags = ("--tolerance", 1e-12, "--allow", "^/fc/Gemm$", "--save-script", "c.py")

    status = constrain(*(MODEL if measured else ()), *flags)

    shown = "".join(capsys.readouterr())
    assert status == 1
    assert chosen() == ["/fc/Gemm"]
    assert re.search("No set of layers meets the criterion: .*relative L2 error", shown)
    assert "The best that was found, which was saved," in shown
    assert "convert" not in shown
    if measured:
        assert f"has relative L2 error {error_of(chosen(), folder):.3g} (at most 1e-12)" in shown


def test_what_comes_nearest_is_saved_where_nothing_can_meet_a_criterion(folder, capsys):
    allowed = ranked_names()[:3]
    flags = ("--l2-threshold", -1, "--allow", *(f"^{re.escape(name)}$" for name in allowed))

    status = constrain(*MODEL, *flags, "--save-script", "c.py")

    shown = " ".join("".join(capsys.readouterr()).split())
    assert status == 1
    assert "Verdict: No set of layers meets 'L2 norm of the error at most -1'" in shown
    assert "layers in FP32, leaves L2 norm of the error" in shown
    assert set(chosen()) <= set(allowed)
    assert error_of(chosen(), folder) < error_of([], folder)
    assert "convert" not in shown


@pytest.mark.usefixtures("folder")
def test_a_cosine_beyond_the_digits_of_fp32_is_warned_of(capsys):
    constrain(*MODEL, "--cosine-similarity-threshold", 0.9999999)
    shown = " ".join(capsys.readouterr().out.split())
    assert "which is sure of six digits: 0.9999999 may fail for outputs that are equal" in shown
    assert "`--tolerance 0.00045` asks for the same" in shown

    constrain(*MODEL, "--cosine-similarity-threshold", 0.99999)
    assert "six digits" not in " ".join(capsys.readouterr().out.split())


@pytest.mark.usefixtures("folder")
def test_nothing_is_called_saved_that_was_not(capsys):
    assert constrain("--tolerance", 1e-12, "--allow", "^/Add$") == 1

    assert "saved" not in "".join(capsys.readouterr())


@pytest.mark.usefixtures("folder")
def test_without_a_tolerance_there_is_none_to_miss(capsys):
    assert constrain("--allow", f"^{ranked_names()[-1]}$", "--save-script", "c.py") == 0

    assert "tolerance" not in "".join(capsys.readouterr())


@pytest.mark.usefixtures("folder")
def test_made_up_inputs_are_told_where_the_ranking_had_the_users_own(capsys):
    constrain("--model", "model.onnx", "--top-k", 1)
    assert "this selection is measured with made-up ones" in capsys.readouterr().out

    constrain(*MODEL, "--top-k", 1)
    assert "made-up" not in capsys.readouterr().out

    ranking = load_ranking("ranking.json")
    generated = dataclasses.replace(ranking.conditions, inputs="generated")
    save_ranking(dataclasses.replace(ranking, conditions=generated), "generated.json")
    constrain("--model", "model.onnx", "--top-k", 1, ranking="generated.json")
    assert "made-up" not in capsys.readouterr().out


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


ALL = ("--save-script", "c.py", "--save-layer-precisions", "p.txt", "--save-autocast-args", "a.txt")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--max-abs 1", "`--max-abs` needs the model"),
        ("--top-k 1 --save-onnx mixed.onnx", "`--save-onnx` needs the model"),
        ("--top-k 1 --model model.onnx --save-onnx ./model.onnx", "would replace './model.onnx'"),
        ("--top-k 1 --model other.onnx", "The ranking is about another model"),
        ("--top-k 1 --model missing.onnx", "missing.onnx"),
        ("--top-k 1 --model inputs.npz", "inputs.npz"),
        ("--top-k -1", "`--top-k` must be at least 0"),
        ("--tolerance 0", "`--tolerance` must be positive"),
        ("--max-abs nan", "`--max-abs` must be positive"),
        ("--fp32-fraction 1.5", "`--fp32-fraction` must lie in [0, 1]"),
        ("--choose 1 --top-k 1", "not allowed with argument"),
        ("--choose 1", "this ranking has none"),
        ("--keep (", "is not a regular expression"),
        ("--allow nowhere", "No layer of the ranking matches 'nowhere'"),
        ("--top-k 1 --save-curve curve.txt", "must end in"),
        ("--top-k 1 --save-onnx missing/mixed.onnx", "does not exist"),
    ],
)
def test_a_bad_request_writes_nothing_and_is_said_in_words(folder, capsys, flags, message):
    onnx.save(odd_names(), "other.onnx")
    before = files(folder)

    try:
        status = constrain(*flags.split(), *ALL)
    except SystemExit as stopped:
        status = stopped.code

    assert status not in (0, None)
    assert message in "".join(capsys.readouterr())
    assert files(folder) == before


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b'{"schema_version": 1}'])
def test_a_broken_ranking_is_refused(folder, capsys, content):
    (folder / "broken.json").write_bytes(content)

    assert constrain("--top-k", 1, *ALL, ranking="broken.json") == 1

    assert "broken.json" in capsys.readouterr().err
    assert not (folder / "c.py").exists()


@pytest.fixture
def parted(folder):
    """Returns options for `moved/model.onnx`, whose data file is in `data`."""
    (folder / "data").mkdir()
    (folder / "moved").mkdir()
    save_with_external_data(small_cnn(), folder / "moved" / "model.onnx")
    shutil.move(folder / "moved" / "model.onnx.data", folder / "data" / "model.onnx.data")
    return ("--external-data-dir", "data", "--load-inputs", "inputs.npz")


def test_a_data_file_of_the_model_is_not_replaced(folder, parted):
    before = (folder / "data" / "model.onnx.data").read_bytes()

    status = main(
        ["rank", "moved/model.onnx", *parted, "--top-k", "1", "--save-onnx", "data/model.onnx"]
    )

    assert status == 0
    assert (folder / "data" / "model.onnx.data").read_bytes() == before
    onnx.checker.check_model("data/model.onnx")


def test_data_files_may_lie_in_another_folder(folder, parted):
    save = ("--top-k", "1", "--save-onnx")

    ranked = main(
        ["rank", "moved/model.onnx", *parted, "--save-ranking", "r.json", *save, "a.onnx"]
    )
    status = constrain("--model", "moved/model.onnx", *parted, *save, "b.onnx", ranking="r.json")

    assert (ranked, status) == (0, 0)
    onnx.checker.check_model("b.onnx")
    (first,), (second,) = folder.glob("a.onnx.*.data"), folder.glob("b.onnx.*.data")
    assert first.read_bytes() == second.read_bytes()


def test_one_command_saves_every_artefact_in_a_process_of_its_own(folder):
    home = folder / "it's a folder"
    home.mkdir()
    for name in ("model.onnx", "inputs.npz", "ranking.json"):
        shutil.copy(name, home / f"my {name}")
    flags = ("--model", "my model.onnx", "--load-inputs", "my inputs.npz", "--top-k", "2")
    wanted = {
        "--save-script": "my c.py",
        "--save-onnx": "my mixed.onnx",
        "--save-layer-precisions": "my p.txt",
        "--save-autocast-args": "my a.txt",
        "--save-curve": "my curve.csv",
    }
    pairs = [word for pair in wanted.items() for word in pair]

    done = run_layerprec("constrain", "my ranking.json", *flags, *pairs, folder=home)

    assert done.returncode == 0, done.stdout + done.stderr
    assert set(files(home)) == {
        *wanted.values(),
        *(f"my {name}" for name in ("model.onnx", "inputs.npz", "ranking.json")),
    }
    onnx.checker.check_model(home / "my mixed.onnx")
    names = ranked_names()[:2]
    assert chosen(home / "my c.py") == names
    precisions = shlex.split((home / "my p.txt").read_text())
    assert precisions[3:] == [f"{name}:float32" for name in names]
    lines = [line for line in done.stdout.splitlines() if "polygraphy convert" in line]
    for line in lines:
        words = shlex.split(line)
        assert words[words.index("convert") + 1] == "my model.onnx"
        assert words[words.index("--trt-npps") + 1] == "my c.py"
    assert lines


def test_hostile_names_are_in_every_artefact_and_nothing_of_them_runs(tmp_path):
    model = odd_names()
    model.graph.node[0].name = '"); import os; os.mkdir("gone"); ("'
    model.graph.node[1].name = "$(touch gone) `touch gone`\n'; touch gone; '"
    folder = write_files(tmp_path, model)
    pairs = ("--save-onnx", "mixed.onnx", "--save-curve", "curve.csv", *ALL)

    done = run_layerprec("constrain", "ranking.json", *MODEL, "--top-k", "6", *pairs, folder=folder)

    assert done.returncode == 0, done.stdout + done.stderr
    names = {node.name for node in model.graph.node}
    assert len(names) == 5  # two are twins
    assert set(chosen(folder / "c.py")) == names
    precisions = shlex.split((folder / "p.txt").read_text())[3:]
    assert {word.removesuffix(":float32") for word in precisions} == names
    assert len(shlex.split((folder / "a.txt").read_text())) == 3 + len(names)
    mixed = onnx.load(folder / "mixed.onnx")
    assert names <= {node.name for node in mixed.graph.node}
    assert not (folder / "gone").exists()


def test_the_same_command_writes_the_same_bytes(folder):
    written = []
    for _ in range(2):
        assert constrain(*MODEL, "--tolerance", 1e-4, *ALL, "--save-curve", "curve.csv") == 0
        written.append(files(folder))

    assert written[0] == written[1]


def test_nodes_without_a_name_are_counted(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(write_files(tmp_path, odd_names()))

    assert constrain("--top-k", 6, *ALL) == 0

    assert "2 of the selected layers have no name in the model" in capsys.readouterr().out


def test_the_precision_of_the_ranking_is_that_of_the_script(folder):
    ranking = dataclasses.replace(load_ranking("ranking.json"), precision="bf16")
    save_ranking(ranking, folder / "bf16.json")

    assert constrain("--top-k", 1, "--save-script", "c.py", ranking="bf16.json") == 0

    assert runpy.run_path("c.py")["PRECISION"] == "bf16"


def refute(path, *, factor):
    """Makes what a ranking on file measured `factor` times its forecast."""
    ranking = load_ranking(path)
    error = ranking.output_error
    wrong = dataclasses.replace(error, measured=factor * error.forecast)
    save_ranking(dataclasses.replace(ranking, output_error=wrong), path)


def test_a_refuted_forecast_decides_nothing_unseen(folder, capsys):
    refute(folder / "ranking.json", factor=10)

    assert main(["constrain", "ranking.json", "--top-k", "2"]) == 0

    out = " ".join(capsys.readouterr().out.split())
    assert "relative L2 error: unknown: the forecast" in out
    assert "is refuted by what was measured" in out
