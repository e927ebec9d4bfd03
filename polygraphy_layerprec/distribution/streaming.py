"""Samples to workers and what they say back, a few at a time, in the order of the data set."""

from __future__ import annotations

import contextlib
import itertools
import queue
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from polygraphy_layerprec.execution.errors import WorkersError

if TYPE_CHECKING:
    from distributed import Client, Future

__all__ = ["NO_WORKER_SECONDS", "SampleMissing", "stream", "wait_for_worker"]

NO_WORKER_SECONDS: Final = 60.0
"""Time without any worker after which nobody waits on."""

_AHEAD: Final = 2  # for each worker: one that it measures, one that it takes next
_LAG: Final = 8  # for each worker: results that wait for an earlier one
_LISTENING_SECONDS: Final = 1.0
_ANSWERING_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True)
class SampleMissing:
    """What a worker returns that was thought to remember a sample, and does not."""


@dataclass(slots=True)
class _Flight:
    """What is with the workers, and what came back too early."""

    submit: Callable[..., Future]
    """Has a worker measure a sample: `submit(index, sample, workers=…)`."""

    homes: Mapping[int, str]
    """Addresses of the workers that remember samples."""

    done: queue.SimpleQueue[str]
    """Keys of what came back."""

    samples: dict[int, Any]
    """Samples that were not handed on yet, in their order."""

    results: dict[int, Any]
    """Results that wait for an earlier one."""

    by_key: dict[str, tuple[int, Future]]
    """What workers are at."""


def stream(
    client: Client,
    measure: Callable[..., Any],
    request: Any,
    samples: Iterable[tuple[int, Any]],
    *,
    homes: Mapping[int, str] | None = None,
    no_worker_seconds: float = NO_WORKER_SECONDS,
) -> Iterator[tuple[int, Any, Any]]:
    """Yields each sample with its index and what `measure(request, index, sample)` returned.

    They come in the order of `samples`, which is read as workers get free. What a worker was at
    when it died is measured by another.

    Args:
        client: The connection to the workers.
        measure: A function that workers can import.
        request: Its first argument.
        samples: Each with its index.
        homes: Addresses of the workers that remember samples, by index. They are asked with None
            for the sample; whoever else takes over returns `SampleMissing` and is asked again.
        no_worker_seconds: Time without any worker after which it is an error.

    Raises:
        WorkersError: If the scheduler is gone, no worker is left, a sample ends each worker that
            takes it, or `measure` fails.
    """
    submit = partial(client.submit, measure, request, pure=False)
    flight = _Flight(submit, homes or {}, queue.SimpleQueue(), {}, {}, {})
    watch = _Watch(client, no_worker_seconds)
    ahead = _AHEAD if homes is None else _LAG  # what is remembered is not sent
    remaining = iter(samples)
    try:
        while True:
            room = ahead * watch.workers - len(flight.by_key)
            room = min(room, _LAG * watch.workers - len(flight.samples))
            for index, sample in itertools.islice(remaining, max(room, 0)):
                flight.samples[index] = sample
                _submit(flight, index, flight.homes.get(index))
            if not flight.samples:
                return
            first = next(iter(flight.samples))
            if first in flight.results:
                result = flight.results.pop(first)
                if isinstance(result, WorkersError):
                    raise result
                yield first, flight.samples.pop(first), result
            else:
                _collect(flight, watch)
    finally:
        _cancel(client, flight)


def wait_for_worker(client: Client, *, seconds: float = NO_WORKER_SECONDS) -> dict[str, int]:
    """Returns how many tasks each worker runs at once, by address, once there is a worker.

    Raises:
        WorkersError: If there is none within `seconds`, or the scheduler is gone.
    """
    watch = _Watch(client, seconds)
    while not watch.threads:
        time.sleep(min(_LISTENING_SECONDS, seconds / 10))
        watch.look()
    return watch.threads


class _Watch:
    """Looks after scheduler and workers while nothing comes back."""

    def __init__(self, client: Client, no_worker_seconds: float) -> None:
        self._client = client
        self._no_worker_seconds = no_worker_seconds
        self._last_seen = time.monotonic()
        self.threads: dict[str, int] = {}
        self.look()

    @property
    def workers(self) -> int:
        """How many workers there are, at least 1."""
        return max(len(self.threads), 1)

    def look(self) -> None:
        """Counts the workers.

        Raises:
            WorkersError: If nobody answers, or there has been no worker for long.
        """
        try:
            self.threads = dict(
                self._client.sync(
                    self._client.scheduler.ncores,
                    workers=None,
                    callback_timeout=_ANSWERING_SECONDS,
                )
            )
        except Exception as error:
            # Of a connection that is lost, Dask raises half a dozen types.
            raise self.lost() from error
        now = time.monotonic()
        if self.threads:
            self._last_seen = now
        elif now - self._last_seen >= self._no_worker_seconds:
            raise WorkersError(
                f"The scheduler {self._address} has had no worker for "
                f"{self._no_worker_seconds:.0f} seconds.\n"
                f"Start workers, for example with `dask worker {self._address} --nthreads 1`, and "
                f"see in their logs why others ended."
            )

    def lost(self) -> WorkersError:
        """Returns the error that says that the scheduler is gone."""
        return WorkersError(
            f"The scheduler {self._address} is gone.\n"
            f"Nothing was written. See in its log why it ended, and run the command again."
        )

    @property
    def _address(self) -> str:
        scheduler = self._client.scheduler
        return "" if scheduler is None else str(getattr(scheduler, "address", ""))


def _submit(flight: _Flight, index: int, home: str | None) -> None:
    if home is None:
        future = flight.submit(index, flight.samples[index])
    else:
        future = flight.submit(index, None, workers=[home], allow_other_workers=True)
    flight.by_key[future.key] = index, future
    future.add_done_callback(lambda finished: flight.done.put(finished.key))


def _collect(flight: _Flight, watch: _Watch) -> None:
    """Takes one result, or looks after the workers when there is none for a while."""
    try:
        key = flight.done.get(timeout=_LISTENING_SECONDS)
    except queue.Empty:
        watch.look()
        return
    if key not in flight.by_key:
        return
    index, future = flight.by_key.pop(key)
    if future.status == "finished":
        result = _fetched(future, watch)
        if isinstance(result, SampleMissing):
            _submit(flight, index, None)
        else:
            flight.results[index] = result
    elif future.status == "error":
        # Dask blames whatever waited at a worker that ended: the first in order is what ran.
        flight.results[index] = _failure(index, future)
    else:  # cancelled, which is what Dask does with all of them once it has lost the scheduler
        raise watch.lost()


def _fetched(future: Future, watch: _Watch) -> Any:
    try:
        return future.result(timeout=_ANSWERING_SECONDS)
    except Exception as error:  # as in `_Watch.look`
        raise watch.lost() from error


def _failure(index: int, future: Future) -> WorkersError:
    from distributed.scheduler import KilledWorker

    error = future.exception(timeout=_ANSWERING_SECONDS)
    if isinstance(error, KilledWorker):
        return WorkersError(
            f"Sample {index} ended {error.allowed_failures + 1} workers, one after the other.\n"
            f"It may need more memory than there is: use fewer workers or a lower "
            f"`--max-memory`, and see in their logs why they ended."
        )
    if isinstance(error, ImportError):
        return WorkersError(
            f"A worker cannot import what it is to run: {error}.\n"
            f"Install polygraphy-layerprec in the same version on every worker."
        )
    return WorkersError(
        f"A worker failed on sample {index}: {type(error).__name__}: {error!s:.500}"
    )


def _cancel(client: Client, flight: _Flight) -> None:
    futures = [future for _, future in flight.by_key.values()]
    flight.by_key.clear()
    if futures and client.status == "running":
        with contextlib.suppress(Exception):  # as in `_Watch.look`; what matters was raised
            client.cancel(futures, force=True)
