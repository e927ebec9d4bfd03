"""Rankings as files: JSON, which is read again, and CSV for spreadsheets."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
from typing import TYPE_CHECKING, Any, Final, NoReturn

from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.files.atomic_file import write_text_file
from polygraphy_layerprec.files.record_codec import from_json_value, to_json_value
from polygraphy_layerprec.precision import PRECISIONS, QDQ
from polygraphy_layerprec.records import RankedLayer, Ranking

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RANKING_SUFFIXES", "SCHEMA_VERSION", "load_ranking", "save_ranking"]

SCHEMA_VERSION: Final = 1
"""Version of the JSON layout, which `docs/ranking-file.md` describes."""


def save_ranking(ranking: Ranking, path: str | os.PathLike[str]) -> None:
    """Writes `ranking` to `path`: `.json` holds all of it, `.csv` a row for each layer.

    The same ranking gives the same bytes. The file appears complete or not at all.

    Raises:
        UserError: If the suffix is neither, a number is not finite, or `path` cannot be written.
        OSError: If writing fails half-way.
    """
    path = os.fspath(path)
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in _RENDERERS:
        raise UserError(
            f"Cannot save a ranking as {path!r}: its name must end in "
            f"{' or '.join(RANKING_SUFFIXES)}."
        )
    write_text_file(path, _RENDERERS[suffix](ranking))


def load_ranking(path: str | os.PathLike[str]) -> Ranking:
    """Returns the ranking that `save_ranking` wrote to the JSON file `path`.

    Raises:
        UserError: If the file is not such a ranking, or one of another schema version.
        OSError: If the file cannot be read.
    """
    path = os.fspath(path)
    try:
        return _read_ranking(path)
    except RecursionError as error:
        raise _unreadable(path, "its brackets are nested too deeply") from error
    except ValueError as error:  # JSON and Unicode errors as well
        raise _unreadable(path, str(error)) from error


def _read_ranking(path: str) -> Ranking:
    with open(path, encoding="utf-8") as file:
        content = json.load(file, parse_constant=_reject_constant)
    _check_version(content)
    ranking = from_json_value(Ranking, content)
    if ranking.precision not in {*PRECISIONS, QDQ.name}:
        raise UserError(
            f"its precision is {ranking.precision!r:.60}, this program knows "
            f"{', '.join((*PRECISIONS, QDQ.name))}"
        )
    for index, layer in enumerate(ranking.layers):
        _check_shares(layer, f"layers[{index}]")
    return ranking


def _check_shares(layer: RankedLayer, where: str) -> None:
    """Checks what forecasts take the root of, or multiply by."""
    if layer.impact < 0.0:
        raise UserError(f"{where}.impact must not be negative, got {layer.impact}")
    shares = [("weight_share", layer.weight_share)]
    shares += [(f"readers[{index}]", share) for index, (_, share) in enumerate(layer.readers)]
    for name, share in shares:
        if not 0.0 <= share <= 1.0:
            raise UserError(f"{where}.{name} must be from 0 to 1, got {share}")


def _unreadable(path: str, reason: str) -> UserError:
    return UserError(
        f"{path!r} is not a ranking that can be read: {reason}.\n"
        f"Save one with `polygraphy layerprec rank MODEL --save-ranking FILE.json`."
    )


def _render_json(ranking: Ranking) -> str:
    verdict = {} if ranking.decision is None else {"verdict": ranking.decision.sentence}
    content = {**verdict, "schema_version": SCHEMA_VERSION, **to_json_value(ranking)}
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _render_csv(ranking: Ranking) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in dataclasses.fields(RankedLayer))
    for layer in ranking.layers:
        writer.writerow(_csv_cell(value) for value in to_json_value(layer).values())
    return text.getvalue()


def _csv_cell(value: Any) -> str:
    if value is None:
        return ""
    # Text as it is; numbers, truth values and lists as in JSON: names may hold any separator.
    return value if isinstance(value, str) else json.dumps(value)


_RENDERERS: Final[dict[str, Callable[[Ranking], str]]] = {
    ".json": _render_json,
    ".csv": _render_csv,
}

RANKING_SUFFIXES: Final = tuple(_RENDERERS)
"""Endings of file names that `save_ranking` knows."""


def _reject_constant(token: str) -> NoReturn:
    raise UserError(f"{token} is not a finite number")


def _check_version(content: Any) -> None:
    if not isinstance(content, dict):
        raise UserError("it holds no JSON object")
    version = content.get("schema_version")
    if version != SCHEMA_VERSION:
        raise UserError(f"its schema_version is {version!r}, this program reads {SCHEMA_VERSION}")
