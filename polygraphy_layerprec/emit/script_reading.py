"""Reads what an emitted script asks for, without running any of it."""

from __future__ import annotations

import ast
import os
import warnings
from typing import TYPE_CHECKING, Any, Final

from polygraphy_layerprec.emit.network_script import render_network_script
from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.precision import PRECISIONS
from polygraphy_layerprec.records import Constraint, NetworkScript, NetworkWidths

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["load_network_script", "parse_network_script"]

_DEFAULTS: Final[dict[str, Any]] = {
    "MODEL_NAME": "",
    "MODEL_DIGEST": "",
    "IO_PRECISION": "fp32",
    "ALLOW_UNMATCHED": False,
    "LEFT_IN_FP32": (),
    "FP32_TENSORS": (),
    "LOW_TENSORS": (),
}
_REQUIRED: Final = ("PRECISION", "CONSTRAINTS")
_SETTINGS: Final = (*_DEFAULTS, *_REQUIRED)
_CONSTRAINT_FIELDS: Final = frozenset(Constraint.__dataclass_fields__)
_OPTIONAL_FIELDS: Final = frozenset({"trace"})


def load_network_script(path: str | os.PathLike[str]) -> NetworkScript:
    """Returns what the literals of the script at `path` say. Nothing in it is executed.

    Raises:
        UserError: If it is no script as `rank --save-script` writes it.
        OSError: If the file cannot be read.
    """
    path = os.fspath(path)
    try:
        with open(path, encoding="utf-8") as file:
            return parse_network_script(file.read())
    except ValueError as error:  # Unicode errors as well
        raise UserError(
            f"{path!r} is not a script of `polygraphy layerprec` that can be read: {error}.\n"
            f"Save one with `polygraphy layerprec rank MODEL --save-script FILE.py`."
        ) from error


def parse_network_script(text: str) -> NetworkScript:
    """Returns what the literals of a script say.

    Raises:
        UserError: If one is missing, is there twice, is no literal, or is of the wrong type.
    """
    settings = {**_DEFAULTS, **_read_settings(text)}
    missing = [name for name in _REQUIRED if name not in settings]
    if missing:
        raise UserError(f"it does not set {' or '.join(missing)}")
    for name in ("MODEL_NAME", "MODEL_DIGEST"):
        if not isinstance(settings[name], str):
            raise UserError(f"{name} is not text")
    if settings["PRECISION"] not in tuple(PRECISIONS):
        raise UserError(f"PRECISION must be one of {sorted(PRECISIONS)}")
    if settings["IO_PRECISION"] not in ("fp32", "low"):
        raise UserError("IO_PRECISION must be 'fp32' or 'low'")
    constraints = _constraints("CONSTRAINTS", settings)
    widths = NetworkWidths(
        left=_constraints("LEFT_IN_FP32", settings),
        fp32_tensors=_names("FP32_TENSORS", settings),
        low_tensors=_names("LOW_TENSORS", settings),
    )
    return NetworkScript(
        model_name=settings["MODEL_NAME"],
        model_digest=settings["MODEL_DIGEST"],
        precision=settings["PRECISION"],
        io_precision=settings["IO_PRECISION"],
        allow_unmatched=bool(settings["ALLOW_UNMATCHED"]),
        constraints=constraints,
        widths=widths,
        altered=text != _rendered(settings, constraints, widths),
    )


def _read_settings(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes in text that somebody edited
            tree = ast.parse(text)
        for node in tree.body:
            name = _target(node)
            if name not in _SETTINGS:
                continue
            if name in found:
                raise UserError(f"it sets {name} twice")
            found[name] = ast.literal_eval(node.value)  # type: ignore[attr-defined]
    except (SyntaxError, MemoryError, RecursionError) as error:
        raise UserError(f"it is no Python that can be parsed ({type(error).__name__})") from error
    except TypeError as error:
        raise UserError(f"it holds more than literals ({error})") from error
    return found


def _target(node: ast.stmt) -> str:
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        target = node.targets[0]
    elif isinstance(node, ast.AnnAssign) and node.value is not None:
        target = node.target
    else:
        return ""
    return target.id if isinstance(target, ast.Name) else ""


def _constraints(setting: str, settings: Mapping[str, Any]) -> tuple[Constraint, ...]:
    if not isinstance(settings[setting], (list, tuple)):
        raise UserError(f"{setting} is not a list")
    return tuple(_constraint(item) for item in settings[setting])


def _names(setting: str, settings: Mapping[str, Any]) -> tuple[str, ...]:
    names = settings[setting]
    if not isinstance(names, (list, tuple)) or not all(isinstance(n, str) for n in names):
        raise UserError(f"{setting} must be names, got {names!r:.60}")
    return tuple(names)


def _constraint(item: Any) -> Constraint:
    fields = item.keys() | _OPTIONAL_FIELDS if isinstance(item, dict) else frozenset()
    if fields != _CONSTRAINT_FIELDS:
        raise UserError(f"a constraint must have {sorted(_CONSTRAINT_FIELDS)}, got {item!r:.60}")
    for field in ("name", "op", "reason"):
        if not isinstance(item[field], str):
            message = f"{field!r} of a constraint must be text, got {item[field]!r:.60}"
            raise UserError(message)
    for field in ("inputs", "outputs", "trace"):
        names = item.get(field, ())
        if not isinstance(names, (list, tuple)) or not all(isinstance(n, str) for n in names):
            raise UserError(f"{field!r} of a constraint must be names, got {names!r:.60}")
    return Constraint(
        item["name"],
        item["op"],
        tuple(item["inputs"]),
        tuple(item["outputs"]),
        item["reason"],
        tuple(item.get("trace", ())),
    )


def _rendered(
    settings: Mapping[str, Any], constraints: tuple[Constraint, ...], widths: NetworkWidths
) -> str:
    return render_network_script(
        constraints,
        precision=PRECISIONS[settings["PRECISION"]],
        model_name=settings["MODEL_NAME"],
        model_digest=settings["MODEL_DIGEST"],
        allow_unmatched=bool(settings["ALLOW_UNMATCHED"]),
        io_precision=settings["IO_PRECISION"],
        widths=widths,
    )
