"""`inspect` in real processes: what a ranking or script says, and whether it fits a model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest

from polygraphy_layerprec.emit.network_script import render_network_script
from polygraphy_layerprec.files.ranking_file import save_ranking
from polygraphy_layerprec.model import identify, load_graph
from polygraphy_layerprec.pipeline import rank_model
from polygraphy_layerprec.precision import BF16
from polygraphy_layerprec.records import Constraint
from tests.decisions import make_decision
from tests.models import chain, save_with_external_data, small_transformer
from tests.processes import DOORS, run_layerprec

pytestmark = pytest.mark.onnxrt

OTHER_DIGEST = "2:" + "ab" * 32
WORST = Constraint("node_1", "Add", ("t0", "shift"), ("t1",), "31 % of the output error")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspect")
    onnx.save(chain(6), folder / "model.onnx")
    onnx.save(small_transformer(), folder / "other.onnx")
    save_script(folder / "script.py", WORST)
    sample = {"x": np.ones((2, 4), np.float32)}
    ranking = rank_model(folder / "model.onnx", [sample])
    decision = make_decision(layers=[ranking.layers[0].name])
    save_ranking(replace(ranking, decision=decision), folder / "ranking.json")
    return folder


def save_script(path, *constraints, digest=None) -> None:
    if digest is None:
        digest = identify(load_graph(chain(6))).digest
    text = render_network_script(
        constraints, precision=BF16, model_name="model.onnx", model_digest=digest
    )
    path.write_text(text)


@pytest.fixture
def inspect(folder):
    def run(*arguments, **options):
        done = run_layerprec("inspect", *arguments, folder=folder, **options)
        assert "Traceback" not in done.stdout + done.stderr
        return done

    return run


@pytest.mark.parametrize("door", DOORS)
def test_a_script_says_what_it_keeps_why_and_for_which_model(inspect, folder, door):
    done = inspect("script.py", door=door)

    digest = identify(load_graph(folder / "model.onnx")).digest
    assert done.returncode == 0
    assert "Verdict: none, for a script says nothing of errors." in done.stdout.splitlines()[1]
    assert "layerprec verify model.onnx --script script.py --load-inputs" in done.stdout
    assert f"Model: model.onnx | digest {digest[:16]}" in done.stdout
    assert "Precision: BF16" in done.stdout
    assert "Constraints: 1 layer stays in FP32" in done.stdout
    assert "node_1 (Add) | 31 % of the output error" in done.stdout


def test_a_ranking_is_shown_with_what_it_proposes(inspect):
    done = inspect("ranking.json", "--top", "2")

    assert done.returncode == 0
    assert "Model: model.onnx | digest" in done.stdout
    assert "Ranking: model.onnx | 2 of 6 layers in FP16, worst first" in done.stdout
    assert "layers stay in FP32" in done.stdout


@pytest.mark.parametrize("name", ["script.py", "ranking.json"])
def test_the_right_model_fits(inspect, name):
    done = inspect(name, "--model", "model.onnx")

    assert done.returncode == 0
    assert "all match layers of 'model.onnx'" in done.stdout


@pytest.mark.parametrize("name", ["script.py", "ranking.json"])
def test_another_model_fails_and_what_matches_nothing_is_listed(inspect, name):
    done = inspect(name, "--model", "other.onnx")

    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert "was made for another model" in said
    assert "constraints match no layer of 'other.onnx'" in said


def test_a_changed_model_fails_though_every_constraint_matches(inspect, folder):
    save_script(folder / "stale.py", WORST, digest=OTHER_DIGEST)

    done = inspect("stale.py", "--model", "model.onnx")

    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert "1 constraint: all match" in said
    assert f"digest {OTHER_DIGEST[:16]!r}" in said


def test_a_digest_of_an_earlier_version_is_warned_of(inspect, folder):
    save_script(folder / "early.py", WORST, digest="ab" * 32)

    done = inspect("early.py", "--model", "model.onnx")

    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "1 constraint: all match" in said
    assert "another kind of digest" in said


def test_a_stray_constraint_fails_though_the_model_is_the_same(inspect, folder):
    save_script(folder / "stray.py", WORST, Constraint("node_7", "Add", (), ("t7",), "x"))

    done = inspect("stray.py", "--model", "model.onnx")

    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert "1 of 2 constraints match no layer" in said
    assert "'node_7' that makes 't7'; nearest: 'node_5'" in said


def test_a_script_that_names_no_model_fits_if_it_matches(inspect, folder):
    save_script(folder / "anonymous.py", WORST, digest="")

    done = inspect("anonymous.py", "--model", "model.onnx")

    assert done.returncode == 0
    assert "does not say which model" in done.stdout + done.stderr


def test_external_data_are_found_elsewhere(inspect, folder):
    (folder / "weights").mkdir()
    save_with_external_data(chain(6), folder / "weights" / "model.onnx")
    (folder / "weights" / "model.onnx").rename(folder / "away.onnx")

    done = inspect("script.py", "--model", "away.onnx", "--external-data-dir", "weights")

    assert "1 constraint: all match" in done.stdout


def test_a_hostile_script_is_shown_and_not_run(inspect, folder):
    victim = folder / "victim"
    text = (folder / "script.py").read_text()
    (folder / "hostile.py").write_text(f"{text}\nopen({str(victim)!r}, 'w').close()\n")

    done = inspect("hostile.py")

    assert done.returncode == 0
    assert "was changed" in done.stdout + done.stderr
    assert not victim.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.py"], "No such file: 'missing.py'"),
        (["model.onnx"], "its name must end in .json or .py"),
        (["ranking.json", "--top", "0"], "must be at least 1"),
        (["script.py", "--model", "missing.onnx"], "no model file 'missing.onnx'"),
        (["empty.py"], "is not a script"),
        (["empty.json"], "is not a ranking"),
    ],
)
def test_mistakes_are_told(inspect, folder, arguments, message):
    for name in ("empty.py", "empty.json"):
        (folder / name).touch()

    done = inspect(*arguments)

    assert done.returncode == 1
    assert "[!]" in done.stderr
    assert message in done.stderr
