"""Samples from scripts of the user."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from polygraphy_layerprec.tools.user_script import load_iterator

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["call_script"]


def call_script(path: str, function_name: str) -> Iterator[tuple[str, Any]]:
    """Yields the samples that a function without arguments in a Python script returns.

    Raises:
        UserScriptError: If the script fails.
    """
    # Not `DataLoaderArgs.get_data_loader`: before Polygraphy 0.53 it silently falls back to random
    # data under Python 3.13, where `locals()` no longer shows what `exec` defined (PEP 667).
    given = load_iterator(path, function_name, option="--data-loader-script")
    for index, sample in enumerate(given):
        yield f"sample {index} of {path}", sample
