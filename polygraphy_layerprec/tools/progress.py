"""A progress bar, where a person watches and nothing else is written."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from polygraphy_layerprec._native import shows_progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["progress_bar"]


@contextlib.contextmanager
def progress_bar() -> Iterator[Callable[[int, int, str], None] | None]:
    """Gives a function to report progress to, as `(done, total, what)`.

    Gives None in a pipe and where the log is quieter or louder than usual.
    """
    if not (sys.stderr.isatty() and sys.stdout.isatty() and shows_progress()):
        yield None
        return
    from tqdm import tqdm

    with tqdm(total=0, leave=False, unit="step", file=sys.stderr, dynamic_ncols=True) as bar:

        def report(done: int, total: int, what: str) -> None:
            if done < bar.n:  # of something else, whose time left is not to be told from this
                bar.reset()
            bar.total = total or None  # 0 where nobody knows
            bar.set_description(what, refresh=False)
            bar.update(done - bar.n)

        yield report
