"""`rank` with the measurement replaced: options, inputs, files, exit codes."""

from __future__ import annotations

import inspect
import json
import runpy
import sys
import types
from shlex import quote
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from polygraphy.json import save_json
from polygraphy.logger import G_LOGGER

from polygraphy_layerprec import pipeline
from polygraphy_layerprec.files.ranking_file import load_ranking
from polygraphy_layerprec.model import ModelError
from polygraphy_layerprec.observing import RankRequest
from polygraphy_layerprec.precision import BF16, FP16
from polygraphy_layerprec.records import Decision, Selection, SelectionCost
from polygraphy_layerprec.selection import SelectionRequest
from polygraphy_layerprec.tools.main import main
from tests.decisions import make_decision
from tests.models import small_cnn, small_transformer
from tests.rankings import make_layer, make_ranking, troubled_ranking

if TYPE_CHECKING:
    from pathlib import Path

IDS = np.array([[1, 2, 3]], np.int64)
MASK = np.ones((1, 3), np.int64)


class FakeMeasurement:
    """Stands for the pipeline: notes what it is given, and gives or raises what it is told."""

    def __init__(self) -> None:
        self.ranking = make_ranking(make_layer(outputs=("r1",)))
        self.error: BaseException | None = None
        self.requested: RankRequest | None = None
        self.samples: list[dict[str, np.ndarray]] = []
        self.reached = True
        self.decision: Decision | None = None

    def rank(self, graph, samples, request, *, sample_count=None, threads=None, progress=None):
        self.model = graph
        self.samples = [dict(sample) for sample in samples]
        self.requested, self.sample_count = request, sample_count
        self.told = (threads, progress)
        if self.error is not None:
            raise self.error
        return self.ranking

    def measured_model(self, ranking, model, samples, *, outputs=None, judges=(), tolerance=None):
        self.selection_samples = list(samples)
        self.measured_told = (ranking, model, outputs, judges, tolerance)
        self.measured = object()
        return self.measured

    def select_constraints(
        self, ranking, request, *, model=None, samples=(), outputs=None, judges=(), progress=None
    ):
        assert model is self.measured
        self.request = request
        self.selection_told = (samples, outputs, judges, progress)
        return Selection(
            layers=ranking.layers,
            cost=SelectionCost(len(ranking.layers), 1.0, 0),
            forecast_error=0.0,
            tolerance=None,
            reached=self.reached,
            plain_cost=None,
            measurements=0,
            decision=self.decision,
        )


@pytest.mark.parametrize("verb", ["rank", "measured_model", "select_constraints"])
def test_what_stands_for_the_pipeline_takes_what_the_pipeline_takes(verb):
    real = inspect.signature(getattr(pipeline, verb)).parameters
    fake = inspect.signature(getattr(FakeMeasurement(), verb)).parameters

    assert [(p.name, p.kind, p.default) for p in fake.values()] == [
        (p.name, p.kind, p.default) for p in real.values()
    ]


@pytest.fixture(autouse=True)
def quiet_polygraphy():
    severity = G_LOGGER.module_severity
    yield
    G_LOGGER.module_severity = severity
    G_LOGGER.log_file = None


@pytest.fixture
def measurement(monkeypatch):
    fake = FakeMeasurement()
    verbs = ("rank", "measured_model", "select_constraints")
    module = types.SimpleNamespace(**{verb: getattr(fake, verb) for verb in verbs})
    monkeypatch.setitem(sys.modules, "polygraphy_layerprec.pipeline", module)
    return fake


@pytest.fixture
def model_path(tmp_path) -> Path:
    path = tmp_path / "model.onnx"
    onnx.save(small_transformer(), path)
    return path


@pytest.fixture
def inputs_path(tmp_path) -> Path:
    path = tmp_path / "inputs.npz"
    np.savez(path, ids=IDS, mask=MASK)
    return path


@pytest.fixture
def rank(measurement, model_path, monkeypatch):  # noqa: ARG001 - nothing is measured
    """Runs `rank` on a small transformer, and returns the exit code."""
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments) -> int:
        words = ["rank", str(model_path), *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", ["polygraphy", "layerprec", *words])
        return main(words)

    return run


def test_the_ranking_is_shown_and_what_to_do_next(rank, inputs_path, capsys):
    status = rank("--load-inputs", inputs_path, "--show", 5)

    out = capsys.readouterr().out
    assert status == 0
    assert "/encoder/layer.0/Add" in out
    assert "measured: 0.0123, forecast from the impacts: 0.012" in out
    assert f"--load-inputs {quote(str(inputs_path))} --show 5 --save-script constraints.py" in out
    assert "PASSED | Runtime" in out


@pytest.mark.parametrize("flags", [(), ("--top-k", 1)])
def test_a_choice_is_measured_on_the_samples_given(rank, inputs_path, measurement, flags):
    assert rank("--load-inputs", inputs_path, *flags) == 0

    assert len(measurement.selection_samples) == 1


def test_the_verdict_is_the_first_line_of_the_log_and_of_the_file(
    rank, inputs_path, measurement, tmp_path, capsys
):
    measurement.decision = make_decision()
    path = tmp_path / "ranking.json"

    rank("--load-inputs", inputs_path, "--save-ranking", path)

    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == f"[I] Verdict: {measurement.decision.sentence}"
    assert f'"verdict": "{measurement.decision.sentence}"' in path.read_text().splitlines()[1]
    assert load_ranking(path).decision == measurement.decision
    assert f"constrain {quote(str(path))} --choose N" in " ".join("\n".join(lines).split())


def test_lines_fit_the_terminal(rank, inputs_path, measurement, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    measurement.ranking = troubled_ranking()

    rank("--load-inputs", inputs_path, "--show", 3)

    report = capsys.readouterr().out.split("Ranking: ")[1].split("Next: ")[0]
    assert max(map(len, report.splitlines())) <= 80


def test_by_default_culprits_and_the_choice_are_shown_in_one_look(
    rank, inputs_path, measurement, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "80")
    layers = [
        make_layer(i, f"/block.{i}/norm/Pow", op="Pow", overflow=True, overflow_count=i)
        for i in range(1, 200)
    ]
    measurement.ranking = make_ranking(
        *layers, warnings=("Inputs were made up. Give real ones.",) * 9
    )
    measurement.decision = make_decision()

    rank("--load-inputs", inputs_path)

    out = capsys.readouterr().out
    assert len(out.splitlines()) <= 25
    assert "[I] Culprits: model.onnx, 199 layers in FP16, 2 samples" in out
    assert "/block.1/norm/Pow: Pow, 1 layer overflows" in out
    assert "[W] Inputs were made up.\n" in out
    assert "more warnings: `--show 1` shows all" in out
    assert "Chosen: " in out
    assert "2 *       1       12.5%" in out
    assert "--save-script constraints.py" in out
    assert "Ranking: " not in out


def test_top_stays_another_name_of_show(rank, inputs_path, measurement, capsys):
    measurement.ranking = troubled_ranking()

    rank("--load-inputs", inputs_path, "--top", 1)

    assert "1 of 3 layers in FP16" in capsys.readouterr().out


def test_options_arrive_at_the_measurement(rank, inputs_path, measurement):
    rank("--load-inputs", inputs_path)
    assert measurement.requested == RankRequest()
    assert measurement.sample_count == 1
    assert measurement.told == (None, None)

    flags = "--precision bf16 --impact gain --exact 5 --max-memory 4G --outputs hidden other"
    rank("--load-inputs", inputs_path, *flags.split())
    assert measurement.requested == RankRequest(
        precision=BF16,
        impact="gain",
        exact_count=5,
        max_memory_bytes=4 << 30,
        outputs=("hidden", "other"),
    )


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        *[(name, FP16) for name in ("fp16", "FP16", "float16", "half", "Half")],
        *[(name, BF16) for name in ("bf16", "BF16", "bfloat16")],
    ],
)
def test_a_precision_has_the_names_that_people_give_it(
    rank, inputs_path, measurement, name, precision
):
    assert rank("--load-inputs", inputs_path, "--precision", name) == 0

    assert measurement.requested.precision == precision


def test_the_list_follows_the_report_options(rank, inputs_path, measurement, capsys):
    measurement.ranking = troubled_ranking()

    rank("--load-inputs", inputs_path, "--show", 1, "--sort-by", "introduced")

    out = capsys.readouterr().out
    assert "1 of 3 layers in FP16, by introduced" in out
    assert "2  head/Sub" in out


def test_a_file_of_arrays_is_one_sample_and_two_are_two(rank, tmp_path, measurement):
    paths = [tmp_path / "a.npz", tmp_path / "b.NPZ"]
    np.savez(tmp_path / "a.npz", ids=IDS, mask=MASK)
    with paths[1].open("wb") as file:
        np.savez(file, ids=IDS[:, :2], mask=MASK[:, :2])

    assert rank("--load-inputs", *paths) == 0

    assert [sample["ids"].tolist() for sample in measurement.samples] == [[[1, 2, 3]], [[1, 2]]]


def test_the_next_command_covers_every_shape_that_was_seen(rank, tmp_path, capsys):
    np.savez(tmp_path / "a.npz", ids=IDS, mask=MASK)
    np.savez(tmp_path / "b.npz", ids=IDS[:, :2], mask=MASK[:, :2])

    rank(
        "--load-inputs", tmp_path / "a.npz", tmp_path / "b.npz", "--save-script", tmp_path / "c.py"
    )

    out = capsys.readouterr().out
    assert "--trt-min-shapes 'ids:[1,2]' 'mask:[1,2]' --trt-opt-shapes 'ids:[1,3]'" in out


@pytest.mark.parametrize("as_list", [True, False])
def test_inputs_in_polygraphys_json_are_read(rank, tmp_path, measurement, as_list):
    sample = {"ids": IDS, "mask": MASK}
    save_json([sample, sample] if as_list else sample, str(tmp_path / "inputs.json"))

    assert rank("--load-inputs", tmp_path / "inputs.json") == 0

    assert len(measurement.samples) == (2 if as_list else 1)
    np.testing.assert_array_equal(measurement.samples[0]["ids"], IDS)
    assert measurement.samples[0]["ids"].dtype == np.int64


def test_a_directory_of_json_files_is_read_in_order(rank, tmp_path, measurement):
    folder = tmp_path / "inputs"
    folder.mkdir()
    for index in (1, 0):
        save_json({"ids": IDS + index, "mask": MASK}, str(folder / f"{index}.json"))
    (folder / "notes.txt").write_text("not data")

    assert rank("--load-inputs", folder) == 0

    assert [sample["ids"][0, 0] for sample in measurement.samples] == [1, 2]


@pytest.mark.parametrize("function", ["", ":other"])
def test_inputs_from_a_script_are_read(rank, tmp_path, measurement, function):
    name = function.lstrip(":") or "load_data"
    script = tmp_path / f"script_{name}.py"
    script.write_text(
        f"import numpy as np\n"
        f"def {name}():\n"
        f"    for i in range(3):\n"
        f"        yield {{'ids': np.full((1, 2), i), 'mask': np.ones((1, 2), np.int64)}}\n"
    )

    assert rank("--data-loader-script", f"{script}{function}") == 0

    assert [sample["ids"][0, 0] for sample in measurement.samples] == [0, 1, 2]


def test_without_data_plausible_inputs_are_made_up_and_said_so(rank, measurement, capsys):
    status = rank("--input-shapes", "ids:[2,7]", "--iterations", 3, "--seed", 5)

    out = capsys.readouterr().out
    assert status == 0
    assert [sample["ids"].shape for sample in measurement.samples] == [(2, 7)] * 3
    assert all(sample["ids"].max() < 32 for sample in measurement.samples)
    assert all((sample["mask"] == 1).all() for sample in measurement.samples)
    assert "ids of a table with 32 rows" in out
    assert measurement.requested.generated_inputs is True


def test_without_shapes_either_they_are_made_up_with_a_warning(rank, measurement, capsys):
    assert rank() == 0

    out = " ".join(capsys.readouterr().out.split())
    assert [sample["ids"].shape for sample in measurement.samples] == [(1, 128)]
    assert "Shapes were made up, as the values were" in out
    assert "Give real data" in out
    assert "`numpy.savez('inputs.npz', ids=..., mask=...)`" in out
    assert "`--input-shapes ids:[1,128] mask:[1,128]`" in out


@pytest.mark.usefixtures("measurement")
def test_options_about_inputs_that_are_made_up_are_told_beside_given_ones(
    rank, inputs_path, capsys
):
    rank("--load-inputs", inputs_path, "--seed", "3", "--val-range", "[0,1]")
    said = capsys.readouterr().out
    rank("--seed", "3")

    assert "[W] `--seed` is about inputs that are made up; yours were given." in said
    assert said.count("`--val-range` is about inputs") == 1
    assert "yours were given" not in capsys.readouterr().out


def test_shapes_that_were_given_are_not_warned_of(rank, capsys):
    assert rank("--input-shapes", "ids:[2,7]", "mask:[2,7]") == 0

    assert "Shapes were made up" not in capsys.readouterr().out


def test_a_folder_of_samples_is_read(rank, measurement, tmp_path):
    folder = tmp_path / "samples"
    folder.mkdir()
    for value in range(3):
        np.savez(folder / f"{value}.npz", ids=np.full((1, 2), value), mask=np.ones((1, 2), int))

    assert rank("--load-inputs", folder) == 0

    assert [sample["ids"][0, 0] for sample in measurement.samples] == [0, 1, 2]


def test_ranges_are_kept(rank, measurement):
    rank("--input-shapes", "ids:[2,50]", "--val-range", "ids:[3,4]")

    assert set(measurement.samples[0]["ids"].ravel()) == {3, 4}


def test_the_ranking_is_saved_whole(rank, inputs_path, tmp_path, measurement):
    measurement.ranking = make_ranking(stability=0.5)

    for name in ("ranking.json", "ranking.csv"):
        assert rank("--load-inputs", inputs_path, "--save-ranking", tmp_path / name) == 0

    assert load_ranking(tmp_path / "ranking.json") == measurement.ranking
    assert (tmp_path / "ranking.csv").read_text().startswith("rank,name,")


@pytest.mark.parametrize(
    ("flags", "request_"),
    [
        ("", SelectionRequest()),
        ("--top-k 3", SelectionRequest(top_k=3)),
        ("--tolerance 1e-3", SelectionRequest(tolerance=1e-3)),
        ("--tolerance 1e-3 --top-k 3", SelectionRequest(top_k=3)),
    ],
)
def test_the_script_holds_the_chosen_layers(
    rank, inputs_path, tmp_path, measurement, capsys, flags, request_
):
    path = tmp_path / "c.py"

    status = rank("--load-inputs", inputs_path, "--save-script", path, *flags.split())

    assert status == 0
    assert measurement.request == request_
    names = runpy.run_path(str(path))
    assert [c["name"] for c in names["CONSTRAINTS"]] == ["/encoder/layer.0/Add"]
    assert names["PRECISION"] == "fp16"
    assert names["MODEL_DIGEST"] == "ab" * 32
    out = capsys.readouterr().out
    assert "Chosen: an FP32 build, the one layer" in out
    assert f"--trt-npps {quote(str(path))}" in out


def test_a_tolerance_that_is_not_met_fails_the_run_once_the_script_is_saved(
    rank, inputs_path, tmp_path, measurement, capsys
):
    measurement.reached = False
    path = tmp_path / "c.py"

    status = rank("--load-inputs", inputs_path, "--save-script", path, "--tolerance", "1e-9")

    assert status == 1
    assert path.exists()
    assert "No set of layers meets the criterion" in capsys.readouterr().out


def test_unmeasured_layers_fail_the_run_once_everything_is_saved(
    rank, inputs_path, tmp_path, measurement, capsys
):
    measurement.ranking = troubled_ranking()

    status = rank("--load-inputs", inputs_path, "--save-ranking", tmp_path / "ranking.json")

    assert status == 1
    assert json.loads((tmp_path / "ranking.json").read_text())["unmeasured"]
    assert "Could not measure 1 layer," in "".join(capsys.readouterr())


def test_what_the_reader_must_know_is_a_warning(rank, inputs_path, measurement, capsys):
    measurement.ranking = make_ranking(warnings=("The model is FP16 in parts.",))

    rank("--load-inputs", inputs_path)

    assert "[W] The model is FP16 in parts." in capsys.readouterr().out


def test_an_interrupt_has_its_own_exit_code_and_saves_nothing(
    rank, inputs_path, tmp_path, measurement, capsys
):
    measurement.error = KeyboardInterrupt()

    status = rank("--load-inputs", inputs_path, "--save-ranking", tmp_path / "ranking.json")

    assert status == 130
    assert not (tmp_path / "ranking.json").exists()
    assert "Interrupted" in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModelError("The model is odd."), "The model is odd."),
        (OSError(28, "No space left on device"), "No space left on device"),
        (MemoryError(), "Out of memory"),
    ],
)
def test_what_the_user_can_mend_is_said_in_words(
    rank, inputs_path, measurement, capsys, error, message
):
    measurement.error = error

    status = rank("--load-inputs", inputs_path)

    assert status == 1
    assert message in capsys.readouterr().err


def test_a_defect_of_the_program_is_not_hidden(rank, inputs_path, measurement):
    measurement.error = ZeroDivisionError("a defect")

    with pytest.raises(ZeroDivisionError):
        rank("--load-inputs", inputs_path)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--show 0", "`--show` (`--top`) must be at least 1"),
        ("--exact -1", "`--exact` must be at least 0"),
        ("--max-memory 0", "`--max-memory` must be positive"),
        ("--max-memory much", "Could not convert much to a number of bytes"),
        ("--iterations 0", "`--iterations` must be at least 1"),
        ("--top-k -1 --save-script c.py", "`--top-k` must be at least 0"),
        ("--tolerance nan --save-script c.py", "`--tolerance` must be positive"),
        ("--save-ranking ranking.txt", "must end in .json or .csv"),
        ("--save-script script.sh", "must end in .py"),
        ("--save-ranking missing/ranking.json", "does not exist"),
        ("--save-script missing/script.py", "does not exist"),
        ("--load-inputs missing.npz", "No such file with input data: 'missing.npz'"),
        ("--data-loader-script missing.py", "No such file with input data: 'missing.py'"),
        ("--no-such-option", "Unrecognized Options"),
    ],
)
def test_a_bad_option_is_refused_before_any_work(rank, measurement, capsys, flags, message):
    status = rank(*flags.split())

    assert status == 1
    assert message in "".join(capsys.readouterr())
    assert measurement.requested is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("inputs.json", b"not json", "holds no input data in JSON"),
        ("inputs.json", b"[1, 2]", "is a int, not arrays by name"),
        ("inputs.json", b"[]", "hold no sample"),
        ("inputs.npz", b"not an archive", "is not a file of arrays"),
        ("inputs.npz", b"", "is not a file of arrays"),
    ],
)
def test_a_bad_file_of_inputs_is_refused(rank, tmp_path, capsys, name, content, message):
    (tmp_path / name).write_bytes(content)

    status = rank("--load-inputs", tmp_path / name)

    assert status == 1
    assert message in capsys.readouterr().err


def test_pickled_arrays_are_refused_because_they_run_code(rank, tmp_path, capsys):
    np.savez(tmp_path / "inputs.npz", ids=np.array([{}], object), mask=MASK)

    assert rank("--load-inputs", tmp_path / "inputs.npz") == 1

    assert "is not a file of arrays" in capsys.readouterr().err


@pytest.mark.usefixtures("measurement")
def test_external_data_may_be_in_another_folder(tmp_path):
    for name in ("model", "data"):
        (tmp_path / name).mkdir()
    path = tmp_path / "model" / "model.onnx"
    options = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
    onnx.save(small_cnn(), path, **options)
    (tmp_path / "model" / "weights.bin").rename(tmp_path / "data" / "weights.bin")

    assert main(["rank", str(path)]) == 1
    assert main(["rank", str(path), "--external-data-dir", str(tmp_path / "data")]) == 0


@pytest.mark.usefixtures("measurement")
def test_a_colon_in_the_name_of_a_model_is_no_function(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(small_cnn(), "model:v2.onnx")

    assert main(["rank", "model:v2.onnx"]) == 0
