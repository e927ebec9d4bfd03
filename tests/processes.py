"""Real processes: both doors of the command line, as a user opens them."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = [
    "COLOUR_SWITCHES",
    "DOORS",
    "LONGEST_SECONDS",
    "MODULE_DOOR",
    "POLYGRAPHY_DOOR",
    "interruptible_layerprec",
    "run_command",
    "run_layerprec",
]

# Not the console script: it may be that of another environment.
_MAIN = "import sys; sys.argv[0] = 'polygraphy'; import polygraphy.tools as t; sys.exit(t.main())"

POLYGRAPHY_DOOR = ("-c", _MAIN, "layerprec")
"""`polygraphy layerprec`, to be preceded by a Python."""

MODULE_DOOR = ("-m", "polygraphy_layerprec")
"""`python -m polygraphy_layerprec`, to be preceded by a Python."""

DOORS = {"polygraphy": POLYGRAPHY_DOOR, "module": MODULE_DOOR}
"""Both, by name."""

COLOUR_SWITCHES = {"FORCE_COLOR", "NO_COLOR"}
"""Environment variables that decide about colours, whatever the output is."""

LONGEST_SECONDS = 600
"""Time after which a process is taken to hang; ample for a machine with much else to do."""

# Programs inherit an ignored SIGINT (as under `nohup` or `&`) and a mask of blocked signals.
_WITH_DEFAULT_SIGNALS = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_SETMASK, ())
os.execv(sys.argv[1], sys.argv[1:])
"""


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
    inherited = {name: os.environ[name] for name in os.environ.keys() - COLOUR_SWITCHES}
    variables = {**inherited, "COLUMNS": "80", **(environment or {})}
    return subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=LONGEST_SECONDS,
        check=False,
    )


@contextmanager
def interruptible_layerprec(
    *arguments: str, door: str = "polygraphy", folder: Path
) -> Iterator[subprocess.Popen[str]]:
    """Yields a process of `layerprec` that SIGINT reaches, whatever our own does with SIGINT.

    Both outputs are one pipe. The process does not outlive the block.
    """
    command = [sys.executable, *DOORS[door], *arguments]
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _WITH_DEFAULT_SIGNALS, *command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()
