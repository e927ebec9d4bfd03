"""`polygraphy run --layerprec`: real Polygraphy, the installed plugin, mostly in this process."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys

import numpy as np
import onnx
import pytest
from polygraphy.comparator import RunResults
from polygraphy.exception import PolygraphyException
from polygraphy.json import save_json
from polygraphy.tools.run import Run

from polygraphy_layerprec.emit.network_script import render_network_script
from polygraphy_layerprec.export import export_argument_groups
from polygraphy_layerprec.model import identify, load_graph
from polygraphy_layerprec.pipeline import rank_model
from polygraphy_layerprec.precision import BF16, FP16
from polygraphy_layerprec.records import Constraint
from polygraphy_layerprec.report.ranking_file import save_ranking
from polygraphy_layerprec.tools.args import LayerprecRunnerArgs
from tests.environments import environment_python, oldest_version
from tests.models import (
    cancellation,
    integer_output,
    overflow_then_recovery,
    save_with_external_data,
)
from tests.processes import POLYGRAPHY_DOOR, run_command

pytestmark = [
    pytest.mark.onnxrt,
    # Polygraphy's own, on Python 3.10 and 3.11.
    pytest.mark.filterwarnings("ignore:SelectableGroups dict interface:DeprecationWarning"),
]

OFFSET = 400.0
SMALL = np.linspace(0.001, 0.09, 32, dtype=np.float16).astype(np.float32).reshape(4, 8)
"""What FP16 loses at 400, where its numbers are 0.25 apart."""

DATA_SCRIPT = """
import numpy as np
def load_data():
    for value in (0.01, 0.02, 0.03):
        yield {"x": np.full((4, 8), value, np.float32)}
"""


def script_of(*kept: str, precision=FP16, **options) -> str:
    constraints = [Constraint(name, "", (), (name,), "") for name in kept]
    digest = identify(load_graph(cancellation(OFFSET))).digest
    return render_network_script(
        constraints,
        precision=precision,
        **{"model_name": "model.onnx", "model_digest": digest, **options},
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Returns a folder with models, inputs, and what keeps layers in FP32."""
    folder = tmp_path_factory.mktemp("run")
    onnx.save(cancellation(OFFSET), folder / "model.onnx")
    onnx.save(overflow_then_recovery(), folder / "overflow.onnx")
    onnx.save(integer_output(), folder / "labels.onnx")
    save_json([{"x": SMALL}], str(folder / "inputs.json"))
    save_json([{"x": np.full((4, 8), 1.5, np.float32)}], str(folder / "large.json"))
    (folder / "data.py").write_text(DATA_SCRIPT)
    (folder / "cancelling.py").write_text(script_of("shifted", "restored"))
    (folder / "all.py").write_text(script_of("shifted", "restored", "y"))
    (folder / "foreign.py").write_text(script_of("y", model_digest="cd" * 32))
    (folder / "stray.py").write_text(script_of("shifty"))
    (folder / "bf16.py").write_text(script_of("y", precision=BF16))
    save_ranking(rank_model(cancellation(OFFSET), [{"x": SMALL}]), folder / "ranking.json")
    return folder


@pytest.fixture
def run(files, monkeypatch):
    """Runs `polygraphy run` in this process and returns whether the comparison passed."""
    monkeypatch.chdir(files)

    def run(*words: str) -> bool:
        tool = Run()
        parser = argparse.ArgumentParser()
        tool.setup_parser(parser.add_subparsers())
        args = parser.parse_args(["run", *words])
        try:
            tool.parse(args)
            tool.run(args)
        except PolygraphyException as error:
            if str(error).startswith(("FAILED", "Output validation failed")):
                return False
            raise
        finally:
            if args.gen_script is not None:
                args.gen_script.close()  # Polygraphy leaves it open
        return True

    return run


@pytest.fixture
def outputs(run, tmp_path):
    """Runs, and returns the saved outputs of each runner and iteration."""

    def outputs(*words: str, inputs: str = "inputs.json") -> dict[str, list[dict]]:
        path = tmp_path / "outputs.json"
        path.unlink(missing_ok=True)
        run(*words, "--load-inputs", inputs, "--save-outputs", str(path))
        return loaded(path)

    return outputs


@pytest.fixture
def generate(run, tmp_path):
    """Returns the script that `polygraphy run` generates."""

    def generate(*words: str) -> str:
        run(*words, "--gen-script", str(tmp_path / "generated.py"))
        return (tmp_path / "generated.py").read_text()

    return generate


def loaded(path) -> dict[str, list[dict]]:
    """Returns saved outputs by the kind of runner."""
    return {
        name.partition("-")[0]: [dict(iteration.items()) for iteration in iterations]
        for name, iterations in RunResults.load(str(path)).items()
    }


@pytest.fixture(scope="module")
def group() -> LayerprecRunnerArgs:
    """Returns the argument group, set up in the parser of `run`."""
    tool = Run()
    tool.setup_parser()
    return tool.arg_groups[LayerprecRunnerArgs]


def test_the_hook_offers_the_group_anew_each_time():
    first, second = export_argument_groups(), export_argument_groups()

    assert [type(group) for group in (*first, *second)] == [LayerprecRunnerArgs] * 2
    assert first[0] is not second[0]


def test_every_option_has_the_prefix_and_a_help_text_with_an_example(group):
    actions = group.group._group_actions

    assert len(actions) == 5
    for action in actions:
        assert all(option.startswith("--layerprec-") for option in action.option_strings)
        assert action.help.endswith(".")
        assert f"For example: {action.option_strings[0]} " in action.help
        assert "Defaults to " in action.help
        assert action.default is None


def test_the_runner_is_offered_with_an_example(group):
    name, option = group.get_name_opt()

    assert option == "layerprec"
    assert "polygraphy run model.onnx --onnxrt --layerprec" in group.get_extra_help_text()
    assert name == "ONNX-Runtime with emulated low precision"


def test_fp32_and_the_candidate_are_compared(run):
    words = ["model.onnx", "--onnxrt", "--layerprec", "--load-inputs", "inputs.json"]
    lost = float(2 * SMALL.max())  # y is 2 x, of which nothing is left

    assert not run(*words, "--atol", str(0.99 * lost), "--rtol", "0")
    assert run(*words, "--atol", str(1.01 * lost), "--rtol", "0")


def test_saved_outputs_are_those_of_fp32_and_of_the_candidate(outputs):
    saved = outputs("model.onnx", "--onnxrt", "--layerprec")

    np.testing.assert_allclose(saved["onnxrt"][0]["y"], 2 * SMALL, rtol=0, atol=2.0**-14)
    assert not saved["layerprec"][0]["y"].any()


@pytest.mark.parametrize("choice", ["*", "restored"])
def test_marked_tensors_are_those_of_the_candidate(outputs, choice):
    saved = outputs("model.onnx", "--layerprec", "--onnx-outputs", choice)["layerprec"][0]

    assert list(saved) == (["shifted", "restored", "y"] if choice == "*" else ["restored"])
    assert not saved["restored"].any()
    assert choice != "*" or set(saved["shifted"].flat) == {OFFSET}


@pytest.mark.parametrize(
    "options",
    [
        ("--layerprec-script", "cancelling.py"),
        ("--layerprec-script", "cancelling.py", "--onnx-outputs", "restored", "y"),
        ("--layerprec-script", "cancelling.py", "--layerprec-precision", "fp16"),
        ("--layerprec-ranking", "ranking.json", "--layerprec-top-k", "2"),
    ],
)
def test_what_a_script_or_a_ranking_keeps_is_exact(outputs, options):
    y = outputs("model.onnx", "--layerprec", *options)["layerprec"][0]["y"]

    # Off by the output's rounding, and by what FP32 loses where it adds 400.
    error = np.abs(y - 2 * SMALL) - 2.0**-14
    assert np.all(error <= 2 * SMALL * FP16.unit_roundoff)
    assert y.any()


def test_nothing_in_a_script_is_run(run, files, capsys):
    victim = files / "victim"
    (files / "hostile.py").write_text(f"open({str(victim)!r}, 'w')\n{script_of('y')}")

    run("model.onnx", "--layerprec", "--layerprec-script", "hostile.py")

    assert not victim.exists()
    assert "it was changed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("sizes", "kept"),
    [
        (["--layerprec-top-k", "0"], 0),
        (["--layerprec-top-k", "1"], 1),
        (["--layerprec-top-k", "3"], 3),
        (["--layerprec-tolerance", "1e-9"], 2),  # nothing is left for the third to round
        (["--layerprec-tolerance", "10"], 0),
    ],
)
def test_a_ranking_is_asked_for_a_number_or_a_tolerance(run, capsys, sizes, kept):
    run("model.onnx", "--layerprec", "--layerprec-ranking", "ranking.json", *sizes)

    assert f"{kept} of 3 layers stay in FP32 | the ranking " in capsys.readouterr().out


@pytest.mark.parametrize(("precision", "valid"), [("fp16", False), ("bf16", True)])
def test_what_overflows_is_infinite_and_does_not_validate(run, outputs, precision, valid):
    words = ["overflow.onnx", "--layerprec", "--layerprec-precision", precision]
    words += ["--onnx-outputs", "large"]

    saved = outputs(*words, inputs="large.json")["layerprec"][0]["large"]

    assert np.isfinite(saved).all() == valid
    assert run(*words, "--load-inputs", "large.json", "--validate") == valid


def test_every_iteration_of_a_data_loader_is_run(run, tmp_path):
    path = str(tmp_path / "outputs.json")

    run("model.onnx", "--onnxrt", "--layerprec", "--data-loader-script", "data.py",
        "--save-outputs", path, "--fail-fast", "--atol", "1")  # fmt: skip

    saved = loaded(path)
    assert [len(iterations) for iterations in saved.values()] == [3, 3]
    assert not any(iteration["y"].any() for iteration in saved["layerprec"])


def test_random_inputs_are_made_for_as_many_iterations_as_are_asked_for(run, tmp_path):
    path = str(tmp_path / "outputs.json")

    run("labels.onnx", "--onnxrt", "--layerprec", "--iterations", "2", "--val-range", "[-1,1]",
        "--onnx-outputs", "logits", "--save-outputs", path)  # fmt: skip

    saved = loaded(path)
    for exact, low in zip(saved["onnxrt"], saved["layerprec"], strict=True):
        error = np.abs(low["logits"] - exact["logits"]).max()
        assert 0 < error <= 0.02
    assert len(saved["layerprec"]) == 2


@pytest.mark.parametrize(("tolerance", "passes"), [("1e-2", True), ("1e-6", False)])
def test_polygraphys_measures_apply(run, tolerance, passes):
    words = ["labels.onnx", "--onnxrt", "--layerprec", "--onnx-outputs", "logits", "--seed", "1"]

    assert run(*words, "--compare", "l2", "--l2-tolerance", tolerance) == passes


def test_saved_outputs_can_be_compared_with_later(run, tmp_path):
    path = str(tmp_path / "fp32.json")
    words = ["model.onnx", "--load-inputs", "inputs.json"]

    assert run(*words, "--onnxrt", "--save-outputs", path)

    assert not run(*words, "--layerprec", "--load-outputs", path)
    assert run(*words, "--layerprec", "--layerprec-script", "all.py", "--load-outputs", path)


def test_weights_may_be_in_another_folder(run, tmp_path):
    save_with_external_data(cancellation(OFFSET), tmp_path / "m.onnx")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "m.onnx.data").rename(elsewhere / "m.onnx.data")
    words = [str(tmp_path / "m.onnx"), "--layerprec", "--layerprec-script", "all.py"]

    assert run(*words, "--external-data-dir", str(elsewhere), "--validate")


def test_a_model_that_no_option_changes_is_not_loaded_as_a_whole(generate, files):
    words = ["model.onnx", "--layerprec", "--layerprec-script", "all.py"]

    unchanged = generate(*words, "--external-data-dir", ".")
    changed = generate(*words, "--onnx-outputs", "shifted")

    assert "OnnxFromPath" not in unchanged
    assert unchanged.count("GraphFromOnnx(") == 1
    assert f"external_data_dir={str(files)!r}" in unchanged
    assert "modify_outputs = ModifyOnnxOutputs(" in changed
    assert changed.count("GraphFromOnnx(") == 2


def test_a_generated_script_holds_names_as_literals(generate, files):
    name = "quo\"te'); print(1) #.onnx"
    shutil.copy(files / "model.onnx", files / name)

    text = generate(name, "--layerprec")

    compile(text, "script", "exec")
    assert f"GraphFromOnnx({str(files / name)!r})" in text


def test_a_generated_script_does_the_same_in_another_folder(generate, files, tmp_path):
    path = tmp_path / "outputs.json"
    words = ["model.onnx", "--onnxrt", "--layerprec", "--layerprec-ranking", "ranking.json"]
    words += ["--layerprec-top-k", "3", "--load-inputs", str(files / "inputs.json")]

    generate(*words, "--save-outputs", str(path), "--atol", "1e-4")
    assert not path.exists()
    done = run_command([sys.executable, "-W", "error", tmp_path / "generated.py"], tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "[W]" not in done.stdout
    np.testing.assert_allclose(loaded(path)["layerprec"][0]["y"], 2 * SMALL, rtol=0, atol=2.0**-14)


def test_the_runner_stands_beside_tensorrts_in_one_script(generate):
    text = generate("model.onnx", "--onnxrt", "--trt", "--layerprec", "--trt-npps", "all.py")

    compile(text, "script", "exec")
    runners = re.findall(r"^    (\w+)\(", text, re.MULTILINE)
    assert runners[:3] == ["OnnxrtRunner", "TrtRunner", "LayerprecRunner"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layerprec-script", "none.py"], "No such file for `--layerprec-script`: 'none.py'"),
        (["--layerprec-ranking", "none.json"], "No such file for `--layerprec-ranking`"),
        (["--layerprec-ranking", "all.py"], "is not a ranking"),
        (["--layerprec-script", "ranking.json"], "is not a script"),
        (["--layerprec-script", "stray.py"], "1 of 1 constraints match no layer"),
        (["--layerprec-script", "bf16.py", "--layerprec-precision", "fp16"], "is for bf16"),
        (["--layerprec-top-k", "3"], "there is none"),
        (["--layerprec-tolerance", "3"], "there is none"),
        (["--layerprec-ranking", "ranking.json", "--layerprec-top-k", "-1"], "at least 0"),
        (["--layerprec-ranking", "ranking.json", "--layerprec-tolerance", "nan"], "be positive"),
        (
            "--layerprec-ranking ranking.json --layerprec-top-k 1 --layerprec-tolerance 1".split(),
            "`--layerprec-top-k` and `--layerprec-tolerance`, leave out one",
        ),
    ],
)
def test_mistakes_are_told(run, options, message):
    with pytest.raises(PolygraphyException) as caught:
        run("model.onnx", "--layerprec", *options)

    assert message in str(caught.value)


def test_a_ranking_of_another_model_is_refused(run, files):
    content = json.loads((files / "ranking.json").read_text())
    content["model"]["digest"] = "cd" * 32
    (files / "foreign.json").write_text(json.dumps(content))

    with pytest.raises(PolygraphyException, match="is about another model"):
        run("model.onnx", "--layerprec", "--layerprec-ranking", "foreign.json")


def test_what_is_no_onnx_model_is_refused(run, files):
    (files / "model.engine").write_bytes(b"engine")

    with pytest.raises(PolygraphyException, match="could not be converted to an ONNX model"):
        run("model.engine", "--layerprec")


@pytest.mark.parametrize("runners", [["--onnxrt"], ["--onnxrt", "--layerprec"]])
def test_options_without_the_runner_are_warned_of(run, capsys, runners):
    run("model.onnx", *runners, "--layerprec-script", "all.py", "--validate")

    warned = "nothing runs in emulated low precision" in capsys.readouterr().out
    assert warned == ("--layerprec" not in runners)


def test_a_group_that_cannot_be_loaded_does_not_disturb_run(monkeypatch):
    monkeypatch.setitem(sys.modules, "polygraphy_layerprec.tools.args.runner", None)

    assert export_argument_groups() == []


def polygraphy_run(*words, folder, python=sys.executable):
    return run_command([python, *POLYGRAPHY_DOOR[:2], "run", *words], folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--layerprec-script", "foreign.py"], "is about another model: 'model.onnx', digest cdcd"),
        (
            ["--layerprec-script", "all.py", "--layerprec-ranking", "ranking.json"],
            "both say what stays in FP32",
        ),
    ],
)
def test_mistakes_end_a_process_without_a_traceback(files, options, message):
    done = polygraphy_run("model.onnx", "--layerprec", *options, folder=files)

    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_process_of_its_own_compares_and_says_so_by_its_exit_code(files):
    words = ["model.onnx", "--onnxrt", "--layerprec", "--load-inputs", "inputs.json"]

    failed = polygraphy_run(*words, folder=files)
    passed = polygraphy_run(*words, "--layerprec-script", "all.py", folder=files)

    assert failed.returncode == 1
    assert "FAILED | Output: 'y' | Difference exceeds tolerance" in failed.stdout + failed.stderr
    assert passed.returncode == 0, passed.stdout + passed.stderr
    assert "3 of 3 layers stay in FP32" in passed.stdout
    assert "Traceback" not in failed.stderr + passed.stderr


def test_the_help_of_run_changes_by_our_options_alone(monkeypatch):
    ours = Run().setup_parser().format_help()
    monkeypatch.setattr("polygraphy_layerprec.export._make_argument_groups", list)
    theirs = Run().setup_parser().format_help()

    before, after = (re.split(r"\n\n(?=\S)", text.rstrip()) for text in (theirs, ours))
    changed = [section.split(":")[0] for section in after if section not in before]
    assert len(before) > 20
    assert changed == ["usage", "Runners", "Layer Precision Emulation"]
    assert len(after) == len(before) + 1
    assert "layerprec" not in theirs


@pytest.fixture(scope="module")
def oldest_python():
    """Returns a Python with the oldest Polygraphy declared, and old companions if there are any."""
    # ONNX-Runtime 1.17 and what it needs were not built for Python 3.13 and newer.
    old = sys.version_info < (3, 13)
    companions = [f"onnxruntime=={oldest_version('onnxruntime')}.*", "onnx==1.16.*", "numpy<2"]
    return environment_python(
        f"polygraphy=={oldest_version('polygraphy')}", *(companions if old else [])
    )


@pytest.mark.slow
def test_the_oldest_polygraphy_runs_it(oldest_python, files, tmp_path):
    path = tmp_path / "outputs.json"
    words = ["model.onnx", "--onnxrt", "--layerprec", "--load-inputs", "inputs.json"]
    words += ["--onnx-outputs", "mark", "all", "--layerprec-script", "cancelling.py"]

    done = polygraphy_run(
        *words, "--save-outputs", path, "--atol", "1", folder=files, python=oldest_python
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Failed to load plugin" not in done.stdout
    assert "not recommended" not in done.stdout
    saved = loaded(path)["layerprec"][0]
    assert list(saved) == ["shifted", "restored", "y"]
    np.testing.assert_allclose(saved["restored"], SMALL, rtol=0, atol=2.0**-15)


@pytest.mark.slow
def test_a_script_that_the_oldest_polygraphy_generates_runs(oldest_python, files, tmp_path):
    words = ["model.onnx", "--onnxrt", "--layerprec", "--layerprec-ranking", "ranking.json"]
    words += ["--layerprec-top-k", "3", "--atol", "1e-4", "--gen-script", tmp_path / "script.py"]

    made = polygraphy_run(*words, folder=files, python=oldest_python)
    done = run_command([oldest_python, tmp_path / "script.py"], tmp_path)

    assert made.returncode == 0, made.stdout + made.stderr
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 of 3 layers stay in FP32" in done.stdout
