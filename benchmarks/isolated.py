"""Runs one function in a fresh process and measures its time and peak memory there.

As a script, this file is the fresh process: `python isolated.py MODULE:FUNCTION ARGUMENTS_JSON`.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Measurement", "measure"]

_ROOT = Path(__file__).resolve().parents[1]
_ANSWER = "measurement: "
_SAID = 500  # characters of an error message; some list every tensor


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one function cost in a process of its own."""

    seconds: float
    """Wall time of the call; imports are excluded."""

    peak_bytes: int
    """Peak resident memory less what was resident after the imports."""

    result: Any
    """What the function returned, through JSON."""

    user_seconds: float = 0.0
    """Time its threads were computing; unlike wall time it does not grow while others compute."""


def measure(
    target: str,
    arguments: Mapping[str, object],
    *,
    python: str | Path = sys.executable,
    timeout_seconds: float = 3600.0,
) -> Measurement:
    """Returns the cost and the result of `target` called in a fresh process.

    Args:
        target: `module:function`, importable from the root of the repository. What the function
            needs must be imported by the module, or its import counts.
        arguments: Keyword arguments of the function; anything that JSON can hold.
        python: Interpreter to run.
        timeout_seconds: Time after which the process is ended.

    Raises:
        RuntimeError: If the function fails or takes too long; the message ends with what it said.
    """
    command = [str(python), str(Path(__file__).resolve()), target, json.dumps(dict(arguments))]
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{target} took more than {timeout_seconds:.0f} s") from error
    answers = [line for line in done.stdout.splitlines() if line.startswith(_ANSWER)]
    if done.returncode != 0 or not answers:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise RuntimeError(f"{target} failed ({done.returncode}): {' / '.join(said[-3:])[:_SAID]}")
    return Measurement(**json.loads(answers[-1].removeprefix(_ANSWER)))


def _main() -> None:
    target, arguments = sys.argv[1:]
    module, _, function = target.partition(":")
    sys.path[0] = str(_ROOT)  # not this folder, whose file names would hide other modules
    call = getattr(importlib.import_module(module), function)
    resident_bytes = _resident_bytes()
    user_start = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    start = time.perf_counter()
    result = call(**json.loads(arguments))
    seconds = time.perf_counter() - start
    user_seconds = resource.getrusage(resource.RUSAGE_SELF).ru_utime - user_start
    peak_bytes = _peak_resident_bytes() - resident_bytes
    measured = Measurement(seconds, peak_bytes, result, user_seconds)
    print(_ANSWER + json.dumps(asdict(measured)))


def _resident_bytes() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return _peak_resident_bytes()
    return pages * resource.getpagesize()


def _peak_resident_bytes() -> int:
    """Returns the peak of this program alone.

    `ru_maxrss` outlives exec, so in a child it starts at the peak of the parent (Linux 6.x).
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    _main()
