"""CONTRIBUTING.md does what it says: its recipes are applied to a copy of the sources and used."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from markdown_it import MarkdownIt

from polygraphy_layerprec.precision import FP16
from polygraphy_layerprec.rounding import round_to_precision
from tests.docs.pages import needs_tensorrt, read_blocks, run_page
from tests.environments import ROOT
from tests.models import build_model, node, tensor

if TYPE_CHECKING:
    from pathlib import Path

PAGE = ROOT / "CONTRIBUTING.md"
RECIPES = ("rule", "precision", "metric", "emitter")

pytestmark = pytest.mark.onnxrt


def changes() -> list[tuple[str, str, str]]:
    """Returns the page's blocks of changes: the heading they stand under, the file, the lines."""
    found, heading, previous = [], "", None
    for token in MarkdownIt("commonmark").parse(PAGE.read_text(encoding="utf-8")):
        if previous is not None and previous.type == "heading_open":
            heading = token.content
        if token.type == "fence" and token.info == "diff":
            first, _, lines = token.content.partition("\n")
            found.append((heading, first.removeprefix("+++ "), lines))
        previous = token
    return found


def apply_change(path: Path, lines: str) -> None:
    """Replaces what a change quotes, which must stand in the file once, or appends to the file."""
    text = path.read_text(encoding="utf-8")
    for hunk in lines.split("@@\n"):
        before = "".join(f"{line[1:]}\n" for line in hunk.splitlines() if line[:1] != "+")
        after = "".join(f"{line[1:]}\n" for line in hunk.splitlines() if line[:1] != "-")
        assert not before or text.count(before) == 1, f"{path.name} has not once:\n{before}"
        text = text.replace(before, after) if before else text + after
    path.write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, demo_model):
    """Returns a copy of the sources and tests in which every recipe was followed."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("polygraphy_layerprec", "tests"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for path in (ROOT / "pyproject.toml", *demo_model.iterdir()):
        shutil.copy(path, folder)
    for _, name, lines in changes():
        apply_change(folder / name, lines)
    return folder


@pytest.fixture(scope="module")
def in_checkout(checkout, environment):
    """Returns an environment in which the copy is what is imported."""
    return {**environment, "PYTHONPATH": str(checkout)}


@pytest.fixture(scope="module")
def followed(checkout, in_checkout):
    """Returns the copy after the page's commands have run in it, as written."""
    ran = run_page(PAGE, checkout, in_checkout)
    assert ran == len([b for b in read_blocks(PAGE) if b.handling == "run"])
    return checkout


@pytest.fixture
def attempt(checkout, in_checkout):
    """Runs a command in the copy, and returns the finished process."""

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.run(command, cwd=checkout, env=in_checkout, check=False, **pipes)

    return run


@pytest.fixture
def call(attempt):
    """Runs a command in the copy, and returns what it printed."""

    def run(*command: str) -> str:
        done = attempt(*command)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def rank(call, *arguments):
    given = ("polygraphy", "layerprec", "rank", "model.onnx", "--load-inputs", "inputs.npz")
    return call(*given, *arguments)


@pytest.mark.parametrize("subject", RECIPES)
def test_a_recipe_takes_less_than_twenty_lines(subject):
    added = [
        line
        for heading, _, lines in changes()
        for line in lines.splitlines()
        if heading.endswith(f" {subject}") and line.startswith("+")
    ]

    assert 1 <= len(added) < 20


def test_every_change_belongs_to_a_recipe_and_every_command_runs():
    assert {heading.rpartition(" ")[2] for heading, _, _ in changes()} == {*RECIPES}
    assert not any(needs_tensorrt(block) for block in read_blocks(PAGE))


def test_the_copy_is_what_runs(checkout, call):
    found = call("python", "-c", "import polygraphy_layerprec as p; print(p.__file__)")

    assert found.strip() == str(checkout / "polygraphy_layerprec" / "__init__.py")


def test_the_changes_pass_the_linter(call):
    names = sorted({name for _, name, _ in changes()})

    assert "All checks passed!" in call("python", "-m", "ruff", "check", "--no-cache", *names)


def test_the_rule_replaces_the_measured_gain(followed, call):
    nodes = [
        node("Exp", ["x"], "a", name="first"),
        onnx.helper.make_node("Inverse", ["a"], ["y"], name="inverse", domain="com.microsoft"),
    ]
    model = build_model(nodes, [tensor("x", [3, 3])], [tensor("y", [3, 3])], {})
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, followed / "inverse.onnx")
    np.savez(followed / "x.npz", x=np.eye(3, dtype=np.float32))
    command = "polygraphy layerprec rank inverse.onnx --load-inputs x.npz --save-ranking i.json"

    call(*command.split())

    layers = json.loads((followed / "i.json").read_text())["layers"]
    assert {layer["impact_method"] for layer in layers} == {"adjoint"}


def test_the_test_of_the_rule_fails_if_the_rule_is_wrong(checkout, attempt):
    path = checkout / "polygraphy_layerprec" / "divergence" / "rules" / "products.py"
    text = path.read_text()
    command = next(b.text for b in read_blocks(PAGE) if b.handling == "run").split()

    path.write_text(text.replace("[-(transposed @", "[(transposed @"))
    done = attempt(*command)
    path.write_text(text)

    assert done.returncode == 1
    assert "1 failed" in done.stdout


def test_the_precision_rounds_as_it_is_described(followed, call):
    rank(call, "--precision", "tf32", "--save-ranking", "tf32.json")

    ranking = json.loads((followed / "tf32.json").read_text())
    assert ranking["precision"] == "tf32"
    # Ten stored bits as in FP16, with the range of FP32: nothing overflows any more.
    assert not any(layer["overflow"] for layer in ranking["layers"])
    (shifted,) = [x for x in ranking["layers"] if x["name"] == "/blocks.1/shift/Add"]
    values = np.linspace(399.9, 400.1, 999, dtype=np.float32)
    error = np.abs(round_to_precision(values, FP16) - values).max() / 400
    assert 0 < shifted["introduced_error"] < error


@pytest.mark.parametrize(("option", "path"), [("--save-script", "c.py"), ("--save-onnx", "m.onnx")])
def test_a_precision_that_cannot_be_stored_is_refused_in_words(followed, attempt, option, path):
    words = "polygraphy layerprec rank model.onnx --load-inputs inputs.npz --precision tf32"

    done = attempt(*words.split(), option, path)

    assert done.returncode == 1
    assert "got 'tf32'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (followed / path).exists()


def test_the_metric_is_a_column_and_stands_in_the_file(followed, call):
    table = rank(call, "--top", "5", "--save-ranking", "exact.json")

    titles = next(line for line in table.splitlines() if " Impact " in line)
    assert "Exact" in titles.split()
    layers = json.loads((followed / "exact.json").read_text())["layers"]
    exact = {layer["name"]: layer["exact_fraction"] for layer in layers}
    # 1 - mask is 0 or 1, which every precision has; no sum with random embeddings is.
    assert exact["/mask/Sub"] == 1.0
    assert 0.0 <= exact["/embeddings/Add"] < 0.05
    rows = [line for line in table.splitlines() if re.match(r" +\d+  \w", line)]
    shown = [len(re.findall(r"\d+\.\d%", row)) for row in rows if "overflow" not in row]
    assert set(shown) == {len(["Share", "Exact"])}


def test_the_emitter_is_an_option_that_writes_its_file(followed, call):
    rank(call, "--top-k", "3", "--save-node-block-list", "three.json")

    assert len(json.loads((followed / "three.json").read_text())) == 3
    assert "node_block_list" in " ".join(call("polygraphy", "layerprec", "constrain", "-h").split())
