"""Options that do not exist, with those that were probably meant."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from polygraphy_layerprec._native import G_LOGGER
from polygraphy_layerprec.report.columns import printable

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Sequence

__all__ = ["nearest_options", "propose_options"]


def nearest_options(unknown: Iterable[str], known: Sequence[str]) -> list[tuple[str, str]]:
    """Returns each option that is not known, with the one that is spelt most like it, if any is."""
    pairs = []
    for word in unknown:
        option = word.split("=", 1)[0]
        nearest = difflib.get_close_matches(option, known, n=1) if option.startswith("-") else []
        pairs += [(option, found) for found in nearest]
    return pairs


def propose_options(parser: argparse.ArgumentParser) -> None:
    """Makes a parser say what was meant by options that it does not know.

    Whoever called it refuses them: Polygraphy lists them, and knows nothing of the tool's own.
    """
    parse = parser.parse_known_args

    def parse_and_propose(*arguments: Any, **options: Any) -> Any:
        found, unknown = parse(*arguments, **options)
        known = [name for action in parser._actions for name in action.option_strings]  # noqa: SLF001 - there is no other way to list them
        for option, nearest in nearest_options(unknown, known):
            G_LOGGER.error(f"There is no option {printable(option)}. Did you mean {nearest}?")
        return found, unknown

    parser.parse_known_args = parse_and_propose  # type: ignore[method-assign]
