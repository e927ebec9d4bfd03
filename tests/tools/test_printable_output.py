"""Whatever stands in a file, a terminal is shown it as text: no colours, no bells, no reversal."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from polygraphy.logger import G_LOGGER

from polygraphy_layerprec.emit.network_script import render_network_script
from polygraphy_layerprec.files.record_codec import to_json_value
from polygraphy_layerprec.precision import FP16
from polygraphy_layerprec.ranking.agreement import compare_rankings
from polygraphy_layerprec.records import Constraint
from polygraphy_layerprec.terminal_output import printable_log, terminal_text
from polygraphy_layerprec.tools.main import main
from tests.rankings import make_layer, troubled_ranking

pytestmark = pytest.mark.onnxrt

EVIL = "\x1b[2J\x1b]0;owned\x07\u202e\u2066\u200f\x9b31m\r\x7fend"
"""Clears the screen, renames the window, rings, turns the direction of writing, hides a line."""


def spoil(value, *, keep=("precision", "value", "impact", "impact_method", "digest")):
    """Returns JSON values with something evil at the end of every text that may be any."""
    if isinstance(value, dict):
        return {k: v if k in keep else spoil(v, keep=keep) for k, v in value.items()}
    if isinstance(value, list):
        return [spoil(item, keep=keep) for item in value]
    return value + EVIL if isinstance(value, str) else value


@pytest.fixture
def shown(tmp_path, monkeypatch, capsys):
    """Runs a command and returns all that it shows, once that is fit to be shown."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str, status: int | None = 0) -> str:
        severity, found = G_LOGGER.module_severity, main([*words])
        G_LOGGER.module_severity = severity
        captured = capsys.readouterr()
        said = captured.out + captured.err
        assert status in (None, found), said
        assert "-v" in words or "Traceback" not in said
        unfit = {c for c in said if not c.isprintable()} - {"\n"}
        assert not unfit
        return said

    return run


def save_spoilt_ranking(path, **changes):
    ranking = dataclasses.replace(troubled_ranking(), warnings=("A warning.",), **changes)
    content = spoil({"schema_version": 1, **to_json_value(ranking)})
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("shape", [(), ("--format", "markdown")])
@pytest.mark.parametrize("verb", ["inspect", "compare"])
def test_a_ranking_of_evil_text(shown, tmp_path, verb, shape):
    save_spoilt_ranking(tmp_path / "a.json")
    save_spoilt_ranking(tmp_path / "b.json", layers=(make_layer(1, "other"),))

    said = shown(verb, "a.json", *(["b.json"] if verb == "compare" else []), *shape)

    assert "\\x1b[2J" in said
    assert "\\u202e" in said


def test_the_precision_that_nobody_knows_is_evil(shown, tmp_path):
    save_spoilt_ranking(tmp_path / "a.json", precision=f"fp4{EVIL}")

    assert "\\x1b[2J" in shown("inspect", "a.json", status=1)


@pytest.mark.parametrize("extra", [("--save-script", "c.py"), ("--save-layer-precisions", "p.txt")])
def test_choosing_from_a_ranking_of_evil_text(shown, tmp_path, extra):
    save_spoilt_ranking(tmp_path / "a.json")

    assert "\\x1b[2J" in shown("constrain", "a.json", "--top-k", "2", *extra, "-v")


@pytest.mark.parametrize("field", ["schema_version", "model", "layers", "stability"])
def test_what_is_wrong_is_quoted_as_text(shown, tmp_path, field):
    save_spoilt_ranking(tmp_path / "a.json")
    content = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "a.json").write_text(json.dumps({**content, field: EVIL}))

    assert "x1b[2J" in shown("inspect", "a.json", status=1)


def test_a_script_of_evil_text(shown, tmp_path):
    evil = Constraint(EVIL, EVIL, (EVIL,), (EVIL,), EVIL)
    text = render_network_script([evil], precision=FP16, model_name=EVIL, model_digest=EVIL)
    (tmp_path / "c.py").write_text(text)

    for words in ((), ("--format", "markdown")):
        assert "\\x1b[2J" in shown("inspect", "c.py", *words)


def save_evil_model(path, op="Exp"):
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node(op, [f"x{EVIL}"], [f"y{EVIL}"], name=f"/a{EVIL}/b{EVIL}")],
        EVIL,
        [value(f"x{EVIL}", TensorProto.FLOAT, [2])],
        [value(f"y{EVIL}", TensorProto.FLOAT, [2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


@pytest.mark.parametrize("op", ["Exp", f"Exp{EVIL}"])
def test_a_model_of_evil_names(shown, tmp_path, op):
    save_evil_model(tmp_path / "model.onnx", op)
    status = 0 if op == "Exp" else 1

    assert "\\x1b[2J" in shown("rank", "model.onnx", "-v", "--top-k", "1", status=status)
    shown("verify", "model.onnx", status=None)


def test_inputs_of_evil_names(shown, tmp_path):
    save_evil_model(tmp_path / "model.onnx")
    np.savez(tmp_path / "inputs.npz", **{EVIL: np.zeros(2, np.float32)})
    for content in ({"polygraphy_class": EVIL}, [{EVIL: 1}], {EVIL: {"polygraphy_class": EVIL}}):
        (tmp_path / "inputs.json").write_text(json.dumps(content))

        shown("rank", "model.onnx", "--load-inputs", "inputs.json", status=1)
        shown("rank", "model.onnx", "--load-outputs", "inputs.json", status=1)
    assert "x1b[2J" in shown("rank", "model.onnx", "--load-inputs", "inputs.npz", status=1)


def test_a_script_of_the_user_that_raises_something_evil(shown, tmp_path):
    save_evil_model(tmp_path / "model.onnx")
    (tmp_path / "loss.py").write_text(f"def loss(outputs):\n    raise ValueError({EVIL!r})\n")

    said = shown("rank", "model.onnx", "--loss-script", "loss.py", "-v", status=1)

    assert "\\x1b[2J" in said


def test_lines_and_tabs_are_kept_and_all_else_is_spelt_out():
    assert terminal_text("one\n\ttwo\x1b[0m") == "one\n    two\\x1b[0m"


def test_what_the_terminal_cannot_encode_is_spelt_out(monkeypatch):
    class Narrow:
        encoding = "ascii"

    monkeypatch.setattr("sys.stdout", Narrow())

    assert terminal_text("層 \udcff") == "\\u5c64 \\udcff"


def test_the_log_says_who_logs_and_asks_no_text_that_it_does_not_show(capsys):
    before = G_LOGGER.line_info
    with printable_log():
        G_LOGGER.verbose(lambda: pytest.fail("asked"))
        G_LOGGER.line_info = True
        G_LOGGER.info(lambda: "late\x07")
        G_LOGGER.line_info = before

    said = capsys.readouterr().out
    assert "test_printable_output.py" in said
    assert said.endswith("late\\x07\n")
    G_LOGGER.info("as ever\x07")
    assert capsys.readouterr().out.endswith("as ever\x07\n")


def test_equal_rankings_of_evil_names_are_still_matched_by_them():
    ranking = dataclasses.replace(troubled_ranking(), layers=(make_layer(1, EVIL),))

    agreement = compare_rankings(ranking, ranking, first_label="a", second_label="b")

    assert [move.name for move in agreement.layers] == [EVIL]
