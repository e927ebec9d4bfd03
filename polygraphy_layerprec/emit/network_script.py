"""Writes the script that keeps chosen layers in FP32 while TensorRT builds an engine.

The script stands alone: the constraints as literals, then the text of this package's rewriting
modules, then `postprocess(network)`, which Polygraphy's `--trt-network-postprocess-script` calls.
"""

from __future__ import annotations

import ast
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.files.atomic_file import write_text_file
from polygraphy_layerprec.records import Constraint, NetworkWidths

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TypeGuard

    from polygraphy_layerprec.precision import Precision

__all__ = ["render_network_script", "save_network_script"]

_PACKAGE = "polygraphy_layerprec"
_MODULES = (
    "network_view",
    "name_bridge",
    "low_precision",
    "typing_rules",
    "type_plan",
    "cast_scopes",
    "network_inputs",
    "strong_typing",
    "weak_typing",
    "network_rewriter",
)
"""What goes into a script; each module uses earlier ones only."""

# Those that `low_precision` converts weights to; others can be ranked with.
_PRECISIONS = ("fp16", "bf16")
_IO_PRECISIONS = ("fp32", "low")

_HEADER = '''"""Keeps the layers listed below in FP32 and lets TensorRT run others in {PRECISION}.

Save this file as constraints.py. The command depends on the TensorRT that builds the engine:

- TensorRT 11 and TensorRT-RTX (the latter with POLYGRAPHY_USE_TENSORRT_RTX=1 in the environment):
    polygraphy convert model.onnx -o model.engine --trt-npps constraints.py \\
        --trt-cpps constraints.py
- TensorRT 10, strongly typed:
    polygraphy convert model.onnx -o model.engine --strongly-typed --trt-npps constraints.py
- TensorRT 8.6 to 10, weakly typed:
    polygraphy convert model.onnx -o model.engine --{precision} \\
        --precision-constraints obey --trt-npps constraints.py

`--trt-cpps` switches TF32 off, which is on by default in TensorRT-RTX; elsewhere Polygraphy leaves
it off unless `--tf32` is given. With trtexec, add `--noTF32`.

On TensorRT 11 and TensorRT-RTX, `--{precision}` builds an FP32 engine without a word.

The file needs Python 3.8, numpy and TensorRT, and Polygraphy to call `postprocess`.
"""'''

_FOOTER = '''def postprocess(network: Any) -> None:
    """Changes a network that was parsed from the model, in place; Polygraphy calls this."""
    constrain_network(
        network,
        [LayerConstraint(**constraint) for constraint in CONSTRAINTS],
        precision=PRECISION,
        io_precision=IO_PRECISION,
        allow_unmatched=ALLOW_UNMATCHED,
        left=[LayerConstraint(**constraint) for constraint in LEFT_IN_FP32],
        fp32_tensors=FP32_TENSORS,
        low_tensors=LOW_TENSORS,
    )


def postprocess_config(builder: Any, network: Any, config: Any) -> None:
    """Switches TF32 off, in which an FP32 product would keep no more bits than in FP16.

    For Polygraphy's `--trt-config-postprocess-script`; TensorRT-RTX has TF32 on by default.
    """
    config.clear_flag(find_tensorrt(network).BuilderFlag.TF32)
'''


def render_network_script(
    constraints: Sequence[Constraint],
    *,
    precision: Precision,
    model_name: str = "",
    model_digest: str = "",
    allow_unmatched: bool = False,
    io_precision: str = "fp32",
    widths: NetworkWidths | None = None,
) -> str:
    """Returns the text of a script for `--trt-network-postprocess-script`.

    The same arguments give the same text.

    Args:
        constraints: The layers to keep in FP32; their order is kept.
        precision: What the other layers run in: FP16 or BF16.
        model_name: File name of the model, for the reader.
        model_digest: Digest of the model, for the reader and for tools.
        allow_unmatched: Whether a constraint that cannot be met is a warning in the build, not an
            error that stops it.
        io_precision: Type of the engine's float inputs and outputs: `fp32`, or `low` for
            `precision`. In strongly typed networks of TensorRT 11 and RTX, inputs of dynamic shape
            stay in FP32, and those beside them.
        widths: The plan for the network; without one, the script decides for each layer.

    Raises:
        UserError: If the precision or the type of inputs and outputs is none of the above.
    """
    if precision.name not in _PRECISIONS:
        message = f"precision must be one of {sorted(_PRECISIONS)}, got {precision.name!r}"
        raise UserError(message)
    if io_precision not in _IO_PRECISIONS:
        message = f"io_precision must be one of {_IO_PRECISIONS}, got {io_precision!r}"
        raise UserError(message)
    widths = widths or NetworkWidths()
    settings = {
        "MODEL_NAME": str(model_name),
        "MODEL_DIGEST": str(model_digest),
        "PRECISION": precision.name,
        "IO_PRECISION": io_precision,
        "ALLOW_UNMATCHED": bool(allow_unmatched),
    }
    imports, bodies = _read_modules()
    blocks = [
        _HEADER.format(precision=precision.name, PRECISION=precision.name.upper()),
        "from __future__ import annotations",
        imports,
        "\n".join(f"{name} = {value!r}" for name, value in settings.items()),
        _render_constraints("CONSTRAINTS", constraints),
        _render_constraints("LEFT_IN_FP32", widths.left),
        _render_names("FP32_TENSORS", widths.fp32_tensors),
        _render_names("LOW_TENSORS", widths.low_tensors),
    ]
    return "\n\n".join(blocks) + "\n\n\n" + "\n\n\n".join([*bodies, _FOOTER])


def save_network_script(text: str, path: str) -> None:
    """Writes a script, so that `path` holds the whole text or what it held before.

    Args:
        text: What `render_network_script` returned.
        path: File to write; its folder must exist.

    Raises:
        UserError: If `path` cannot be written.
        OSError: If writing fails half-way.
    """
    write_text_file(path, text)


@cache
def _read_modules() -> tuple[str, tuple[str, ...]]:
    """Returns the imports of all modules that are written into a script, and their bodies."""
    plain: set[str] = set()
    names: dict[str, set[str]] = {}
    bodies = []
    for name in _MODULES:
        text = resources.files(__package__).joinpath(f"{name}.py").read_text("utf-8")
        tree = ast.parse(text)
        for node in _outside_imports(tree):
            if isinstance(node, ast.Import):
                plain.add(ast.unparse(node))
            else:
                names.setdefault(str(node.module), set()).update(a.name for a in node.names)
        about = (ast.get_docstring(tree) or "").splitlines()[0]
        bodies.append(f"# {about}\n\n\n{_cut_body(tree, text)}")
    names.get("typing", set()).discard("TYPE_CHECKING")
    selected = [f"from {module} import {', '.join(sorted(names[module]))}" for module in names]
    return "\n".join(sorted(plain) + sorted(selected)), tuple(bodies)


def _outside_imports(tree: ast.Module) -> Iterator[ast.Import | ast.ImportFrom]:
    for node in tree.body:
        for statement in node.body if _is_for_type_checkers(node) else [node]:
            if not isinstance(statement, (ast.Import, ast.ImportFrom)):
                continue
            if not str(getattr(statement, "module", "")).startswith((_PACKAGE, "__future__")):
                yield statement


def _cut_body(tree: ast.Module, text: str) -> str:
    """Returns a module's text after its imports and `__all__`."""
    first = next(node for node in tree.body if not _is_preamble(node))
    decorators = getattr(first, "decorator_list", [])
    start = min(node.lineno for node in (first, *decorators)) - 1
    return "".join(text.splitlines(keepends=True)[start:]).rstrip()


def _is_preamble(node: ast.stmt) -> bool:
    is_docstring = isinstance(node, ast.Expr)
    is_import = isinstance(node, (ast.Import, ast.ImportFrom)) or _is_for_type_checkers(node)
    is_listing = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    return is_docstring or is_import or is_listing


def _is_for_type_checkers(node: ast.stmt) -> TypeGuard[ast.If]:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def _render_names(title: str, names: Sequence[str]) -> str:
    lines = [f"    {str(name)!r}," for name in names]
    return "\n".join([f"{title}: tuple[str, ...] = (", *lines, ")"])


def _render_constraints(title: str, constraints: Sequence[Constraint]) -> str:
    # Names come from the model and may be anything: they are written by `repr` only.
    lines = [f"{title}: list[dict[str, Any]] = ["]
    for constraint in constraints:
        fields = {
            "reason": str(constraint.reason),
            "name": str(constraint.name),
            "op": str(constraint.op),
            "inputs": tuple(map(str, constraint.inputs)),
            "outputs": tuple(map(str, constraint.outputs)),
        }
        if constraint.trace:
            fields["trace"] = tuple(map(str, constraint.trace))
        lines.append("    {")
        lines += [f"        {key!r}: {value!r}," for key, value in fields.items()]
        lines.append("    },")
    return "\n".join([*lines, "]"])
