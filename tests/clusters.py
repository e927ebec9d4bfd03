"""Real schedulers and workers of Dask, each a process of its own, as users start them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["dask_scheduler", "dask_worker"]

LONGEST_SECONDS = 120


@contextlib.contextmanager
def dask_scheduler(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Yields a scheduler that wrote `scheduler.json`, and ends it."""
    file = folder / "scheduler.json"
    command = ["scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
               "--dashboard-address", "127.0.0.1:0", "--scheduler-file", str(file)]  # fmt: skip
    with _ended([*command, *options], folder) as process:
        end = time.monotonic() + LONGEST_SECONDS
        while not (file.exists() and file.stat().st_size):
            assert process.poll() is None, "the scheduler ended"
            assert time.monotonic() < end
            time.sleep(0.05)
        yield process


@contextlib.contextmanager
def dask_worker(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Yields a worker of the scheduler that wrote `scheduler.json`, and ends it."""
    command = ["worker", "--scheduler-file", str(folder / "scheduler.json"), "--no-nanny",
               "--nthreads", "1", "--no-dashboard", "--dashboard-address", "127.0.0.1:0",
               "--local-directory", str(folder), "--death-timeout", "60"]  # fmt: skip
    with _ended([*command, *options], folder) as process:
        yield process


@contextlib.contextmanager
def _ended(command: list[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    with (
        open(folder / f"{command[0]}.log", "a", encoding="utf-8") as log,
        subprocess.Popen(
            [sys.executable, "-m", "dask", *command], cwd=folder, stdout=log, stderr=log, text=True
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()
