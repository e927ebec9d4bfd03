"""Verdicts as JSON files, for continuous integration."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Final, Literal

from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.files.atomic_file import write_text_file
from polygraphy_layerprec.files.record_codec import from_json_value, to_json_value
from polygraphy_layerprec.records import SavedVerdict

if TYPE_CHECKING:
    from polygraphy_layerprec.records import Ranking, Selection, Verification

__all__ = [
    "SCHEMA_VERSION",
    "format_verdict_json",
    "is_verdict_file",
    "load_verdict",
    "save_verdict",
    "verdict_on_choice",
    "verdict_on_verification",
]

SCHEMA_VERSION: Final = 1
"""Version of the layout, which `docs/verdict-file.md` describes."""


def save_verdict(verdict: SavedVerdict, path: str | os.PathLike[str]) -> None:
    """Writes a verdict; the same one gives the same bytes.

    Raises:
        OSError: If writing fails.
    """
    write_text_file(os.fspath(path), format_verdict_json(verdict))


def is_verdict_file(path: str | os.PathLike[str]) -> bool:
    """Returns whether a file is JSON with the verb that a verdict names.

    Raises:
        OSError: If it cannot be read.
    """
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and "verb" in content


def load_verdict(path: str | os.PathLike[str]) -> SavedVerdict:
    """Returns the verdict that `save_verdict` wrote.

    Raises:
        UserError: If the file is no such verdict, or one of another schema version.
        OSError: If it cannot be read.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return _read_verdict(json.load(file))
    except (ValueError, RecursionError) as error:  # JSON and Unicode errors as well
        raise UserError(
            f"{os.fspath(path)!r} is not a verdict that can be read: {error}.\n"
            f"Save one with `--save-verdict FILE.json`."
        ) from error


def _read_verdict(content: Any) -> SavedVerdict:
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise UserError(
            f"its schema_version is {version!r:.60}, this program reads {SCHEMA_VERSION}"
        )
    return from_json_value(SavedVerdict, content)


def format_verdict_json(verdict: SavedVerdict) -> str:
    """Returns a verdict as JSON, in the layout that `docs/verdict-file.md` describes."""
    content = {"schema_version": SCHEMA_VERSION, **to_json_value(verdict)}
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def verdict_on_choice(
    verb: Literal["rank", "constrain"], ranking: Ranking, selection: Selection
) -> SavedVerdict:
    """Returns the verdict of a choice.

    Raises:
        UserError: If nothing was measured for it.
    """
    decision = selection.decision
    if decision is None:
        raise UserError("There is no verdict to save: nothing was measured.")
    outcome = decision.outcome
    failed = [found.text for found in outcome.judgements if not found.passed]
    return SavedVerdict(
        verb=verb,
        passed=outcome.passed,
        verdict=decision.verdict,
        sentence=decision.sentence,
        model=ranking.model,
        precision=ranking.precision,
        backend="onnxruntime-emulated",
        inputs=ranking.conditions.inputs,
        sample_count=decision.sample_count,
        layer_count=ranking.layer_count,
        chosen_count=selection.cost.layer_count,
        node_count=selection.cost.node_count,
        cast_count=selection.cost.cast_count,
        lowered=decision.lowered,
        outcome=outcome,
        held_out=decision.held_out,
        failures=tuple(failed),
    )


def verdict_on_verification(verification: Verification) -> SavedVerdict:
    """Returns the verdict of a verification.

    Raises:
        UserError: If it ended before anything was judged.
    """
    lowered, outcome, kind = verification.lowered, verification.outcome, verification.verdict
    if lowered is None or outcome is None or kind is None:
        raise UserError("There is no verdict to save: engines do not agree in FP32.")
    return SavedVerdict(
        verb="verify",
        passed=verification.passed,
        verdict=kind,
        sentence=verification.sentence,
        model=verification.model,
        precision=verification.precision,
        backend=verification.backend,
        inputs=verification.inputs,
        sample_count=verification.sample_count,
        layer_count=verification.layer_count,
        chosen_count=verification.kept_count,
        node_count=verification.node_count,
        cast_count=verification.cast_count,
        lowered=lowered,
        outcome=outcome,
        held_out=None,
        failures=verification.failures,
    )
