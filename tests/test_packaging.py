"""What is installed, and how Polygraphy finds it: in real processes."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import onnx
import pytest
from polygraphy.json import save_json
from polygraphy.tools import registry

import polygraphy_layerprec
from polygraphy_layerprec.export import export_argument_groups
from tests.environments import ROOT, oldest_python
from tests.hazard_models import cancellation
from tests.processes import (
    LONGEST_SECONDS,
    MODULE_DOOR,
    POLYGRAPHY_DOOR,
    run_command,
    run_layerprec,
)

MOST_HOOK_CALLS = 5_000
"""Calls of Python functions, which unlike a time do not vary with the load.

The tool and its summary take 2,000, all its options 18,000, and numpy 43,000.
"""

BESIDE_THE_PACKAGE = (
    *("CHANGELOG.md", "LICENSE", "MANIFEST.in", "README.md", "SECURITY.md"),
    *("pyproject.toml", "setup.cfg"),
)

WITHOUT_HOOK = """
import importlib.metadata, sys
importlib.metadata.entry_points = lambda **_: importlib.metadata.EntryPoints()
sys.argv[0] = "polygraphy"
import polygraphy.tools
sys.exit(polygraphy.tools.main())
"""

COUNTED_HOOK = """
import argparse, sys
import polygraphy.tools
from polygraphy.tools import registry
subparsers = argparse.ArgumentParser().add_subparsers()
calls = 0
def count(frame, event, argument):
    global calls
    calls += event == "call"
sys.setprofile(count)
from polygraphy_layerprec.export import export_argument_groups
export_argument_groups()
registry.TOOL_REGISTRY[-1].setup_parser(subparsers)
sys.setprofile(None)
assert registry.TOOL_REGISTRY[-1].name == "layerprec"
print(calls)
"""


def polygraphy(*arguments, python=sys.executable, folder=ROOT, code=POLYGRAPHY_DOOR[1]):
    return run_command([python, "-c", code, *arguments], folder)


def test_the_entry_point_is_declared():
    (entry_point,) = [
        found
        for found in importlib.metadata.entry_points(group="polygraphy.run.plugins")
        if found.name == "layerprec"
    ]

    assert entry_point.load() is export_argument_groups


def test_the_version_is_that_of_the_package():
    found = importlib.metadata.version("polygraphy_layerprec")

    assert found == polygraphy_layerprec.__version__
    assert f"## v{found}" in (ROOT / "CHANGELOG.md").read_text()


def test_polygraphy_lists_the_tool_without_a_warning():
    done = polygraphy("-h")

    assert done.returncode == 0
    assert re.search(r"^    layerprec +Find the layers", done.stdout, re.MULTILINE)
    assert "[W]" not in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("command", ["convert", "inspect", "debug"])
def test_other_commands_say_what_they_said_before(command):
    with_hook = polygraphy(command, "-h")
    without_hook = polygraphy(command, "-h", code=WITHOUT_HOOK)

    assert with_hook.stdout == without_hook.stdout
    assert with_hook.stderr == without_hook.stderr == ""


def test_the_hook_costs_next_to_nothing():
    done = polygraphy(code=COUNTED_HOOK)

    assert 100 < int(done.stdout) <= MOST_HOOK_CALLS, done.stderr


@pytest.mark.parametrize("arguments", [("-h",), ("rank", "-h")])
def test_both_doors_show_the_same_help_but_for_the_name(arguments):
    texts = [
        run_command([sys.executable, *door, *arguments], ROOT).stdout.split("\n\n", 1)
        for door in (POLYGRAPHY_DOOR, MODULE_DOOR)
    ]

    assert "rank" in texts[0][1]
    # Which options stand at the top of the tool itself is Polygraphy's choice.
    if arguments == ("rank", "-h"):
        assert texts[0][1] == texts[1][1]


def test_the_second_door_knows_its_version():
    done = run_command([sys.executable, *MODULE_DOOR, "--version"], ROOT)

    assert polygraphy_layerprec.__version__ in done.stdout


@pytest.fixture
def tools(monkeypatch):
    """Returns Polygraphy's list of tools, as it is before plugins are loaded."""
    without = [tool for tool in registry.TOOL_REGISTRY if tool.name != "layerprec"]
    monkeypatch.setattr(registry, "TOOL_REGISTRY", without)
    return without


def test_loading_the_hook_twice_adds_one_tool(tools):
    before = len(tools)

    export_argument_groups()
    export_argument_groups()

    assert [tool.name for tool in tools[before:]] == ["layerprec"]


@pytest.mark.parametrize("missing", ["tools.layerprec", "tools.subtool"])
def test_a_tool_that_cannot_be_loaded_is_listed_with_the_reason(tools, monkeypatch, missing):
    monkeypatch.setattr(sys, "argv", ["polygraphy", "layerprec", "rank"])
    monkeypatch.setitem(sys.modules, f"polygraphy_layerprec.{missing}", None)

    export_argument_groups()

    assert tools[-1].name == "layerprec"
    assert "could not be loaded" in tools[-1].__doc__
    assert f"polygraphy_layerprec.{missing}" in tools[-1].__doc__


@pytest.mark.parametrize(("command", "has_subtools"), [("layerprec", True), ("convert", False)])
def test_other_commands_do_not_pay_for_the_options(tools, monkeypatch, command, has_subtools):
    monkeypatch.setattr(sys, "argv", ["polygraphy", command, "-h"])

    export_argument_groups()

    assert bool(tools[-1].get_subtools()[1]) is has_subtools


def test_a_polygraphy_without_the_list_is_left_alone(monkeypatch):
    monkeypatch.delattr(registry, "TOOL_REGISTRY")

    assert [type(group).__name__ for group in export_argument_groups()] == ["LayerprecRunnerArgs"]


def test_the_package_offers_its_interface_without_loading_it():
    code = (
        "import sys, polygraphy_layerprec as package; assert 'numpy' not in sys.modules;"
        "print([getattr(package, name).__name__ for name in package.__all__ if name[0] != '_'])"
    )

    done = run_command([sys.executable, "-c", code], ROOT)

    assert done.stdout.strip() == "['Ranking', 'load_ranking', 'rank_model', 'save_ranking']"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = polygraphy_layerprec.nonsense


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """Returns the sdist and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("distributions")
    # A copy: what an earlier build left behind in the repository would get into the wheel.
    source = folder / "source"
    shutil.copytree(ROOT / "polygraphy_layerprec", source / "polygraphy_layerprec")
    for name in BESIDE_THE_PACKAGE:
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "build", "--outdir", folder, source]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=LONGEST_SECONDS, check=False
    )
    if "No matching distribution" in done.stdout + done.stderr:
        pytest.skip("no package registry has setuptools")
    assert done.returncode == 0, done.stdout + done.stderr
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


def packaged_files():
    package = ROOT / "polygraphy_layerprec"
    sources = {str(path.relative_to(ROOT)) for path in package.rglob("*.py")}
    templates = {str(p.relative_to(ROOT)) for p in package.glob("report/html/templates/*")}
    assert templates
    return {*sources, *templates, "polygraphy_layerprec/py.typed"}


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(distributions):
    with zipfile.ZipFile(distributions[1]) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = archive.read(next(n for n in archive.namelist() if n.endswith("METADATA")))
        licences = [name for name in archive.namelist() if name.endswith("LICENSE")]

    assert names == packaged_files()
    assert b"Requires-Python: >=3.10" in metadata
    assert b"Author: " in metadata
    assert len(licences) == 1


@pytest.mark.slow
def test_the_sdist_holds_what_the_wheel_is_built_from(distributions):
    with tarfile.open(distributions[0]) as archive:
        files = [member.name.split("/", 1)[1] for member in archive if member.isfile()]

    made = {name for name in files if ".egg-info/" in name} | {"PKG-INFO"}
    assert set(files) - made == packaged_files() | set(BESIDE_THE_PACKAGE)


@pytest.mark.slow
def test_the_oldest_polygraphy_lists_the_tool_without_a_warning(tmp_path):
    done = polygraphy("-h", python=oldest_python(), folder=tmp_path)

    assert done.returncode == 0
    assert "layerprec" in done.stdout
    assert "[W]" not in done.stdout
    assert done.stderr == ""


@pytest.mark.slow
@pytest.mark.onnxrt
@pytest.mark.parametrize("door", [POLYGRAPHY_DOOR, MODULE_DOOR], ids=["polygraphy", "module"])
@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_the_oldest_polygraphy_ranks_a_model(tmp_path, door, suffix):
    onnx.save(cancellation(), tmp_path / "model.onnx")
    values = np.linspace(0.001, 0.09, 32, dtype=np.float32).reshape(4, 8)
    np.savez(tmp_path / "inputs.npz", x=values)
    save_json([{"x": values}], str(tmp_path / "inputs.json"))

    words = ["rank", "model.onnx", "--load-inputs", f"inputs{suffix}", "--save-ranking", "r.json"]
    done = run_command([oldest_python(), *door, *words], tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    ranking = polygraphy_layerprec.load_ranking(tmp_path / "r.json")
    assert ranking.layers[0].node_name == "shift_up"
    assert ranking.output_error.measured == pytest.approx(1, abs=0.2)


@pytest.mark.onnxrt
@pytest.mark.parametrize("door", ["polygraphy", "module"])
def test_the_newest_polygraphy_ranks_a_model_through_both_doors(tmp_path, door):
    onnx.save(cancellation(), tmp_path / "model.onnx")

    done = run_layerprec(
        "rank", "model.onnx", "--save-ranking", "r.json", door=door, folder=tmp_path
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert polygraphy_layerprec.load_ranking(tmp_path / "r.json").layers[0].name == "shift_up"
