"""`rank --loss-script`: layers by what they do to what the user says matters."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from polygraphy_layerprec import load_ranking
from tests.models import build_model, node, tensor
from tests.processes import run_layerprec

pytestmark = pytest.mark.onnxrt

TOP_LOGIT = """
def top(outputs):
    return float(outputs["logits"].max())
"""


@pytest.fixture
def folder(tmp_path):
    """Returns a folder with a model whose top logit comes from `few`, all others from `many`."""
    nodes = [
        node("Mul", ["x", "w_few"], "a", name="few"),
        node("Mul", ["x", "w_many"], "b", name="many"),
        node("Concat", ["a", "b"], "logits", name="join", axis=1),
    ]
    weights = {
        "w_few": np.array([100.03], np.float32),
        "w_many": np.linspace(50.1, 60.2, 64, dtype=np.float32),
    }
    model = build_model(nodes, [tensor("x", [1, 1])], [tensor("logits", [1, 65])], weights)
    onnx.save(model, tmp_path / "model.onnx")
    np.savez(tmp_path / "x.npz", x=np.ones((1, 1), np.float32))
    return tmp_path


def rank(folder, *arguments):
    return run_layerprec("rank", "model.onnx", "--load-inputs", "x.npz", *arguments, folder=folder)


def impacts(folder, *arguments):
    done = rank(folder, "--save-ranking", "r.json", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return {layer.name: layer.impact for layer in load_ranking(folder / "r.json").layers}


def test_what_matters_decides_the_order(folder):
    (folder / "what matters.py").write_text(TOP_LOGIT)

    default = impacts(folder)
    by_top_logit = impacts(folder, "--loss-script", "what matters.py:top")

    assert list(default) == ["many", "few"]
    assert list(by_top_logit) == ["few", "many"]
    assert by_top_logit["many"] == 0.0
    weight = float(np.float32(100.03))
    true = abs(weight - float(np.float16(weight))) / weight
    assert by_top_logit["few"] == pytest.approx(true, rel=0.01)


def test_gradients_that_the_script_gives_are_used(folder):
    (folder / "loss.py").write_text(
        "import numpy as np\n"
        "def loss(outputs):\n"
        "    gradient = np.zeros_like(outputs['logits'])\n"
        "    gradient[0, 0] = 2\n"
        "    return 1.0, {'logits': gradient}\n"
    )

    found = impacts(folder, "--loss-script", "loss.py")

    weight = float(np.float32(100.03))
    assert found["few"] == pytest.approx(2 * abs(weight - float(np.float16(weight))), rel=0.01)
    assert found["many"] == 0.0


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (None, "No such script with a loss: 'loss.py'"),
        ("other = 1\n", "'loss.py' has no function 'loss'"),
        ("def loss(outputs):\n    return float('nan')\n", "must return a finite number, got nan"),
        ("def loss(outputs):\n    return 'high'\n", "must return a finite number, got 'high'"),
        ("def loss(outputs):\n    return 1.0, {'other': 0}\n", "gives a gradient of shape ()"),
    ],
)
def test_a_loss_that_is_of_no_use_is_said_in_words(folder, script, message):
    if script is not None:
        (folder / "loss.py").write_text(script)

    done = rank(folder, "--loss-script", "loss.py", "--save-ranking", "r.json")

    assert done.returncode == 1
    assert message in " ".join((done.stdout + done.stderr).split())
    assert "Traceback" not in done.stdout + done.stderr
    assert not (folder / "r.json").exists()


def test_a_loss_needs_the_adjoint(folder):
    (folder / "loss.py").write_text(TOP_LOGIT.replace("top", "loss"))

    done = rank(folder, "--loss-script", "loss.py", "--impact", "gain")

    assert done.returncode == 1
    assert "A loss needs the adjoint" in done.stdout + done.stderr


ACCURACY = """
def accuracy(outputs):
    return float(outputs["logits"].argmax() == 0)
"""


def test_a_loss_without_a_gradient_is_refused_with_what_to_use_instead(folder):
    (folder / "loss.py").write_text(ACCURACY)

    done = rank(folder, "--loss-script", "loss.py:accuracy")

    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 1
    assert "The loss does not change with the outputs" in said
    assert "judged by it with `--metric-script`" in said


def test_a_loss_has_a_tolerance_of_its_own(folder):
    (folder / "loss.py").write_text(TOP_LOGIT)
    words = ("--loss-script", "loss.py:top", "--loss-tolerance")

    missed, met = rank(folder, *words, "1e-6"), rank(folder, *words, "0.5")

    assert (missed.returncode, met.returncode) == (0, 0)
    said = " ".join(missed.stdout.split())
    assert "relative change of the loss" in said.split("Verdict: ")[1].split(" [I] ")[0]
    assert "1 of 2 layers in FP32 brings it to 0" in said
    assert "FP16 is fine" in met.stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--loss-tolerance", "1"], "is about a loss: give one with `--loss-script`"),
        (["--loss-script", "loss.py:top", "--loss-tolerance", "0"], "must be positive"),
    ],
)
def test_a_tolerance_that_makes_no_sense_is_refused(folder, flags, message):
    (folder / "loss.py").write_text(TOP_LOGIT)

    done = rank(folder, *flags)

    assert done.returncode == 1
    assert message in " ".join((done.stdout + done.stderr).split())
