"""Which part of the package may import what, read from the source without running it."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import polygraphy_layerprec

PACKAGE = Path(polygraphy_layerprec.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
)

PURE = (
    *("ranking.agreement", "ranking.correlation", "ranking.doubts", "ranking.order"),
    *("divergence", "errors", "ranking.stability", "selection", "arrays", "precision", "rounding"),
    "records",
)
"""The middle of the data path: numpy, the standard library, one another, and scipy's graphs."""

MAY_IMPORT = {
    "polygraphy": (
        *("_native", "tools", "export", "backend.emulated", "backend.json_files"),
        *("backend.saved_results", "backend.engines.building", "backend.engines.running"),
        *("backend.polygraphy_functions", "backend.polygraphy_judges"),
        *("backend.engines.tensorrt_errors", "backend.engines.tensorrt_module"),
    ),
    "onnx": (*("model", "plan", "execution", "emit.mixed_onnx", "verify", "backend", "pipeline"),),
    "google": ("model", "execution", "emit.mixed_onnx"),
    "onnxruntime": ("model.runtime_types", "execution", "backend"),
    "ml_dtypes": ("model", "execution", "emit.mixed_onnx"),
    "scipy": ("selection.islands",),
    "matplotlib": ("report.curve_plot", "report.layer_plot"),
    "bokeh": (
        "report.html.agreement_chart",
        "report.html.bokeh_embedding",
        "report.html.chart_frame",
        "report.html.curve_chart",
        "report.html.ranking_charts",
    ),
    "jinja2": ("report.html.page",),
    "markupsafe": ("report.html.page",),
    "shtab": ("tools.completion",),
    "tqdm": ("tools",),
    "dask": ("distribution.clients",),
    "distributed": (
        "distribution.clients",
        "distribution.own_cluster",
        "distribution.set_tasks",
        "distribution.streaming",
        "distribution.worker_pool",
    ),
    "tornado": ("distribution.own_cluster",),
    "tensorrt": (),
    "tensorrt_rtx": (),
}
"""Packages besides numpy, and the only parts of this one that may import them."""


STAGES = (
    ("errors", "precision", "arrays", "rounding", "records", "native_work", "_native"),
    ("files",),
    ("model",),
    ("plan",),
    ("divergence",),
    ("selection", "ranking.order", "ranking.stability", "ranking.correlation"),
    ("ranking.agreement", "ranking.doubts"),
    ("execution.errors", "execution.streams", "execution.background", "execution.kernels"),
    ("execution.emulation", "execution.probes", "execution.samples"),
    ("emit",),
    ("matching",),
    ("execution",),
    ("ranking",),
    ("observing", "verify", "remedies", "pipeline", "distribution"),
    ("report", "terminal_output"),
    ("backend", "engine_pipeline"),
    ("tools", "export", "__main__"),
)
"""The stages in order: each imports those of its line and of the lines before. Parts of a stage may
have a line of their own, as kernels of `execution` have; `execution` itself is the rest of it."""


def stage_of(module: str) -> int:
    """Returns the line of `STAGES` that a module is in, by its longest name there."""
    lines = ((line, part) for line, parts in enumerate(STAGES) for part in parts)
    return max((len(part), line) for line, part in lines if is_part(module, (part,)))[1]


def imports_of(module: str) -> set[str]:
    """Returns what a module imports anywhere, type checking included."""
    path = PACKAGE.parent.joinpath(*module.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    found = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            # `from package import module` imports either.
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def is_part(module: str, parts: tuple[str, ...]) -> bool:
    """Returns whether `module` is one of the parts of the package, or within one."""
    name = module.removeprefix("polygraphy_layerprec").removeprefix(".")
    return any(name == part or name.startswith(f"{part}.") for part in parts)


@pytest.mark.parametrize("module", [module for module in MODULES if is_part(module, PURE)])
def test_the_pure_middle_knows_no_models_files_or_tools(module):
    strangers = {
        name
        for name in imports_of(module)
        if (root := name.split(".")[0]) not in {*sys.stdlib_module_names, "numpy"}
        and root not in {"polygraphy_layerprec", "scipy"}
    }
    own = {name for name in imports_of(module) if name.startswith("polygraphy_layerprec")}

    assert not strangers
    assert not {name for name in own if not is_part(name, (*PURE, ""))}


@pytest.mark.parametrize("module", [m for m in MODULES if m != "polygraphy_layerprec"])
def test_a_stage_knows_those_before_it_alone(module):
    own = {name for name in imports_of(module) if name in MODULES} - {"polygraphy_layerprec"}

    assert not {name for name in own if stage_of(name) > stage_of(module)}


@pytest.mark.parametrize("module", MODULES)
def test_packages_are_imported_only_where_they_belong(module):
    out_of_place = {
        name
        for name in imports_of(module)
        if (root := name.split(".")[0]) in MAY_IMPORT and not is_part(module, MAY_IMPORT[root])
    }

    assert not out_of_place


@pytest.mark.parametrize("module", MODULES)
def test_every_package_in_use_is_in_the_table(module):
    known = {*sys.stdlib_module_names, *MAY_IMPORT, "numpy", "polygraphy_layerprec"}

    assert {name.split(".")[0] for name in imports_of(module)} <= known


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_offers(module):
    path = PACKAGE.parent.joinpath(*module.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    tree = ast.parse(source.read_text(encoding="utf-8"))
    if not any(isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Assign)) for node in tree.body):
        pytest.skip("holds a docstring alone")
    lists = [
        getattr(node, "value", None)
        for node in tree.body
        if isinstance(node, (ast.Assign, ast.AnnAssign))
        and "__all__" in ast.unparse(node).split("=")[0]
    ]

    assert len(lists) == 1
    offered = ast.literal_eval(lists[0])
    loaded = importlib.import_module(module)
    assert not [name for name in offered if not hasattr(loaded, name)]


@pytest.mark.parametrize("module", [module for module in MODULES if is_part(module, ("tools",))])
def test_the_command_line_reaches_engines_through_their_stack(module):
    """So that two verbs cannot make them in two ways."""
    makers = {"polygraphy_layerprec.backend.engines.building"}

    makes = {name for name in imports_of(module) if name in makers}

    assert not makes or module.endswith(".tools.args.engines")


def test_the_hook_loads_nothing_heavy():
    code = (
        "import sys, polygraphy_layerprec.export as hook; hook.export_argument_groups();"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )

    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()

    assert "polygraphy" in loaded
    assert not {
        "numpy",
        "onnx",
        "onnxruntime",
        "tensorrt",
        "tensorrt_rtx",
        "tqdm",
        "distributed",
    } & {*loaded}
