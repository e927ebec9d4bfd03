"""Real processes: both doors of the command line, as a user opens them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["DOORS", "MODULE_DOOR", "POLYGRAPHY_DOOR", "run_command", "run_layerprec"]

# Not the console script: it may be that of another environment.
_MAIN = "import sys; sys.argv[0] = 'polygraphy'; import polygraphy.tools as t; sys.exit(t.main())"

POLYGRAPHY_DOOR = ("-c", _MAIN, "layerprec")
"""`polygraphy layerprec`, to be preceded by a Python."""

MODULE_DOOR = ("-m", "polygraphy_layerprec")
"""`python -m polygraphy_layerprec`, to be preceded by a Python."""

DOORS = {"polygraphy": POLYGRAPHY_DOOR, "module": MODULE_DOOR}
"""Both, by name."""


def run_layerprec(
    *arguments: str | Path,
    door: str = "polygraphy",
    folder: Path,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Returns the finished process of `layerprec` with `arguments`, run in `folder`."""
    return run_command([sys.executable, *DOORS[door], *arguments], folder, environment)


def run_command(
    command: Sequence[str | Path], folder: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Returns the finished process; its output is a pipe, 80 cells wide."""
    variables = {**os.environ, "COLUMNS": "80", **(environment or {})}
    return subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
