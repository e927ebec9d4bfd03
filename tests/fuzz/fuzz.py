"""Looks for files on which a reader fails: `make fuzz`.

Each reader runs in a process of its own, with bounded memory; an example has bounded time. What
fails is shrunk and kept in `found/`, with its traceback beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import itertools
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from random import Random

FOLDER = Path(__file__).parent
FOUND = FOLDER / "found"
MEMORY_BYTES = 4 << 30
EXAMPLE_SECONDS = 20
EXAMPLES_AT_ONCE = 100


class TooSlowError(Exception):
    """An example took longer than any file may."""


def main() -> int:
    """Fuzzes all readers in turn; the exit code is 1 if anything was found."""
    from tests.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--target", choices=TARGETS, action="append")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    names = args.target or list(TARGETS)
    if args.child:
        return fuzz(names[0], 60 * args.minutes, args.seed)
    FOUND.mkdir(exist_ok=True)
    failed = [name for name in names if not _run_child(name, args.minutes / len(names), args.seed)]
    print(f"Failed: {', '.join(failed)}; see {FOUND}" if failed else "Nothing was found.")
    return 1 if failed else 0


def _run_child(name: str, minutes: float, first_seed: int) -> bool:
    command = [sys.executable, __file__, "--child", "--target", name]
    done = subprocess.run(
        [*command, "--minutes", str(minutes), "--seed", str(first_seed)], check=False
    )
    if done.returncode < 0:
        print(f"{name}: killed by signal {-done.returncode}; the file is {FOUND / name}.current")
    return done.returncode == 0


def fuzz(name: str, seconds: float, first_seed: int) -> int:
    """Fuzzes one reader in this process, and returns 1 if anything was found."""
    from tests.fuzz.targets import TARGETS, prepare

    target, found, count = TARGETS[name], set(), 0
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        prepare()
        seeds = list(target.seeds())
        seeds += [path.read_bytes() for path in sorted((FOLDER / "corpus" / name).glob("*"))]
        path = Path(f"fuzzed{target.suffix}")

        def read_one(content: bytes, random: Random) -> None:
            nonlocal count
            count += 1
            with contextlib.suppress(Exception):  # a file of the corpus may be past changing
                content = target.mutate(content, random)
            path.write_bytes(content)
            (FOUND / f"{name}.current").write_bytes(content)
            with _in_time(), contextlib.redirect_stdout(io.StringIO()):
                target.read(str(path))

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        for number in itertools.count(first_seed):
            if time.monotonic() > end:
                break
            try:
                _read_many(read_one, seeds, number)
            except Exception as error:  # noqa: BLE001 - this is what is looked for
                found.add(_keep(name, path, error))
    (FOUND / f"{name}.current").unlink(missing_ok=True)
    print(f"{name}: {count} files, {len(found)} failures", flush=True)
    return 1 if found else 0


def _read_many(
    read_one: Callable[[bytes, Random], None], seeds: Sequence[bytes], number: int
) -> None:
    """Reads as many files as Hypothesis makes of one seed; the last is the simplest that fails."""
    options = settings(
        max_examples=EXAMPLES_AT_ONCE,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    files = given(st.sampled_from(seeds), st.randoms(use_true_random=False))
    seed(number)(options(files(read_one)))()


def _keep(name: str, path: Path, error: Exception) -> str:
    """Keeps a file on which a reader failed, unless another failed at the same place."""
    place = repr(traceback.extract_tb(error.__traceback__)[-1])
    stem = FOUND / f"{name}-{hashlib.sha256(place.encode()).hexdigest()[:8]}"
    if not stem.with_suffix(".txt").exists():
        stem.with_suffix(path.suffix).write_bytes(path.read_bytes())
        text = "".join(traceback.format_exception(error))
        stem.with_suffix(".txt").write_text(text, errors="backslashreplace")
        print(f"{name}: {type(error).__name__}: {str(error)[:200]!r}", flush=True)
    return stem.name


@contextlib.contextmanager
def _in_time() -> Iterator[None]:
    def give_up(*_: object) -> None:
        raise TooSlowError

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(EXAMPLE_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    os.environ["TQDM_DISABLE"] = "1"
    sys.exit(main())
