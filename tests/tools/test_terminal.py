"""What a terminal and a pipe are shown, in real processes."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from polygraphy_layerprec.files.ranking_file import save_ranking
from polygraphy_layerprec.report.columns import display_width
from tests.decisions import make_decision
from tests.hazard_models import two_hazards
from tests.model_parts import build_model, node, tensor
from tests.processes import COLOUR_SWITCHES, DOORS, POLYGRAPHY_DOOR, run_layerprec
from tests.rankings import make_layer, make_ranking, troubled_ranking

GOLDEN = Path(__file__).parent / "golden"
OVERFLOWING = "/encoder/layer.11/attention/output/LayerNorm/Pow"
COLORS = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a folder with a ranking whose names and warnings are longer than a line."""
    folder = tmp_path_factory.mktemp("terminal")
    layers = [make_layer(rank, f"/層{rank}/" + "attention/" * 12) for rank in (1, 2)]
    ranking = make_ranking(*layers, warnings=("These inputs were made up. " * 8,))
    save_ranking(ranking, folder / "ranking.json")
    decision = make_decision(layers=(OVERFLOWING, "head/Sub"))
    save_ranking(replace(troubled_ranking(), decision=decision), folder / "decided.json")
    return folder


def show(folder, *words, columns=80, **variables):
    """Returns what `inspect` writes to a terminal."""
    return show_command(folder, "inspect", "ranking.json", *words, columns=columns, **variables)


def show_command(folder, *words, columns=80, **variables):
    """Returns what a command writes to a terminal."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    inherited = {name: os.environ[name] for name in os.environ.keys() - COLOUR_SWITCHES}
    environment = {**inherited, "TERM": "xterm-256color", **variables}
    environment.pop("COLUMNS", None)
    process = subprocess.Popen(
        [sys.executable, *POLYGRAPHY_DOOR, *words],
        cwd=folder,
        env=environment,
        stdin=follower,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    written = b""
    while True:
        try:
            some = os.read(leader, 65536)
        except OSError:  # how Linux tells the end of it
            break
        if not some:
            break
        written += some
    os.close(leader)
    assert process.wait() == 0
    # A carriage return within a line is that of a progress bar, which is gone by then.
    lines = (line.rstrip("\r") for line in written.decode().split("\n"))
    return "\n".join(line.rpartition("\r")[2] for line in lines)


@pytest.mark.parametrize("columns", [80, 120])
def test_lines_of_ours_fit_the_terminal_and_are_coloured_as_polygraphys(folder, columns):
    written = show(folder, columns=columns)

    # The first and the last line are Polygraphy's, and hold the command.
    own = [line for line in COLORS.sub("", written).splitlines() if "| Command: " not in line]
    assert max(map(display_width, own)) <= columns
    assert "These inputs were made up." in COLORS.sub("", written)
    assert COLORS.findall(written)


@pytest.mark.parametrize(
    ("words", "variables"),
    [((), {"NO_COLOR": "1"}), (("--log-format", "no-colors"), {})],
    ids=["NO_COLOR", "no-colors"],
)
def test_colours_can_be_refused(folder, words, variables):
    written = show(folder, *words, **variables)

    assert "\x1b" not in written
    assert "[W] These inputs were made up." in written


@pytest.mark.parametrize("words", [(), ("--format", "markdown")])
def test_a_pipe_gets_no_control_characters(folder, words):
    done = run_layerprec("inspect", "ranking.json", *words, folder=folder)

    assert done.returncode == 0
    assert all(line.isprintable() for line in done.stdout.splitlines())
    assert "/層1/attention/" in done.stdout


@pytest.mark.parametrize("door", DOORS)
def test_what_an_encoding_lacks_is_escaped(folder, door):
    encoding = {"PYTHONIOENCODING": "ascii"}
    (folder / "層.json").write_bytes((folder / "ranking.json").read_bytes())

    done = run_layerprec("inspect", "層.json", door=door, folder=folder, environment=encoding)

    assert done.returncode == 0, done.stderr
    assert r"/\u5c641/attention/" in done.stdout


def answer_of(written):
    """Returns the lines between the first and the last, which hold the command and the time."""
    return "\n".join(written.splitlines()[1:-1]) + "\n"


COMMANDS = {
    "rank": ("rank", "model.onnx", "--load-inputs", "inputs.npz"),
    "constrain": ("constrain", "decided.json", "--choose", "2"),
    "verify": ("verify", "model.onnx", "--load-inputs", "inputs.npz", "--script", "c.py"),
}


@pytest.fixture(scope="module")
def measured(folder):
    """Returns a folder with a model, an input and a script for it, too."""
    model, values = two_hazards()
    onnx.save(model, folder / "model.onnx")
    np.savez(folder / "inputs.npz", x=values)
    run_layerprec(*COMMANDS["rank"], "--save-script", "c.py", folder=folder).check_returncode()
    return folder


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("verb", COMMANDS)
def test_a_verb_answers_in_one_look(measured, verb, columns, check_golden):
    command = COMMANDS[verb]

    coloured = show_command(measured, *command, columns=columns)
    plain = show_command(measured, *command, columns=columns, NO_COLOR="1")
    piped = run_layerprec(*command, folder=measured, environment={"COLUMNS": str(columns)}).stdout

    check_golden(GOLDEN / f"{verb}_{columns}.txt", answer_of(coloured))
    assert COLORS.sub("", answer_of(coloured)) == answer_of(plain) == answer_of(piped)
    own = [line for line in answer_of(plain).splitlines() if "polygraphy layerprec" not in line]
    assert max(map(display_width, own)) <= columns
    assert len(plain.splitlines()) <= 25


def test_one_look_is_kept_where_inputs_are_made_up(folder):
    nodes = [node("Add", ["in_0", "in_1"], "t_1", name="layer_1")]
    nodes += [
        node("Add", [f"t_{i - 1}", f"in_{i}"], f"t_{i}", name=f"layer_{i}") for i in range(2, 9)
    ]
    inputs = [tensor(f"in_{i}", ["batch", "time", 4]) for i in range(9)]
    onnx.save(build_model(nodes, inputs, [tensor("t_8", None)]), folder / "many.onnx")
    words = ("rank", "many.onnx", "--tolerance", "1e-9")

    done = run_layerprec(*words, folder=folder, environment={"COLUMNS": "80"})

    assert len(done.stdout.splitlines()) <= 25
    assert done.stdout.splitlines()[1].startswith("[I] Verdict: ")
    assert "Made-up inputs: 7 more | `-v` lists them" in done.stdout
    assert "--input-shapes in_0:[1,128,4]" in " ".join(done.stdout.split())


def test_what_polygraphy_keeps_to_itself_takes_no_lines(measured):
    command = (*COMMANDS["rank"], "--cosine-similarity-threshold", "0.9999")

    done = run_layerprec(*command, folder=measured, environment={"COLUMNS": "80"})

    assert "block.0/norm: LayerNorm written out" in done.stdout
    assert "block.1/shift: Add, Sub | rounding, cancellation" in done.stdout
    assert len(done.stdout.splitlines()) <= 25


@pytest.mark.parametrize("verb", COMMANDS)
def test_json_can_be_piped_alone(measured, verb):
    command = (*COMMANDS[verb], "--save-verdict", f"{verb}.json", "--format", "json")

    done = run_layerprec(*command, folder=measured)

    assert done.stdout == (measured / f"{verb}.json").read_text(encoding="utf-8")
    assert json.loads(done.stdout)["verb"] == verb
    assert "[I] PASSED | Runtime" in done.stderr


def test_json_of_what_was_never_measured_is_refused(folder):
    done = run_layerprec("constrain", "ranking.json", "--format", "json", folder=folder)

    assert done.returncode == 1
    assert done.stdout == ""
    assert "`--format json`: there is no verdict, for nothing was measured." in done.stderr
    assert "`--model model.onnx --load-inputs inputs.npz`" in done.stderr


@pytest.mark.parametrize("words", [("--show", "3"), ("--sort-by", "name")])
def test_layers_are_listed_on_demand(folder, words):
    done = run_layerprec("constrain", "decided.json", "--choose", "2", *words, folder=folder)

    assert "[I] Ranking: model.onnx | 3 layers in FP16" in done.stdout
    assert "RMS relative L2 error: every layer in FP16" in done.stdout


def test_markdown_can_be_piped_alone(folder):
    done = run_layerprec("inspect", "decided.json", "--format", "markdown", folder=folder)

    assert done.stdout.startswith("**FP16 loses accuracy: 0.1.**")
    assert "[I]" not in done.stdout
    assert "[I] PASSED | Runtime" in done.stderr
