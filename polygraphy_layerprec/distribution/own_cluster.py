"""Workers of this machine, closed to everybody else, for as long as a block lasts."""

from __future__ import annotations

import contextlib
import logging
import signal
import tempfile
import threading
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any, Final

from distributed import Nanny, Scheduler, Security, SpecCluster, Worker
from distributed.http.routing import RoutingApplication
from tornado.httpserver import HTTPServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["own_cluster"]

_LOOPBACK: Final = "127.0.0.1"
_CLOSING_SECONDS: Final = 10


@contextlib.contextmanager
def own_cluster(count: int, gpus: Sequence[str] = ()) -> Iterator[SpecCluster]:
    """Yields a cluster of `count` processes that ends with the block, whatever ends it.

    Each sees one of `gpus`, if there are any.

    Who cannot show a key that was made for it, and never leaves these processes, gets no answer. It
    listens on the loopback interface alone, and has no page to look at.
    """
    with tempfile.TemporaryDirectory(prefix="layerprec-", ignore_cleanup_errors=True) as folder:
        security = Security.temporary()
        shared: dict[str, Any] = {"host": _LOOPBACK, "protocol": "tls://", "security": security}
        worker = {
            "cls": Nanny,
            "options": {
                **shared,
                "nthreads": 1,  # sessions have threads of their own
                "memory_limit": 0,  # activations have a limit; to kill at another helps nobody
                "local_directory": folder,
                "worker_class": _ClosedWorker,
                "dashboard": False,
                "silence_logs": logging.CRITICAL,
            },
        }
        scheduler = {"cls": _ClosedScheduler, "options": {**shared, "port": 0, "dashboard": False}}
        with contextlib.ExitStack() as stack:
            with _interrupts_after():
                cluster = SpecCluster(
                    workers={i: _with_gpu(worker, gpus[i : i + 1]) for i in range(count)},
                    scheduler=scheduler,
                    security=security,
                    silence_logs=logging.CRITICAL,
                    name="layerprec",
                )
                stack.callback(_close, cluster)
            yield cluster


def _with_gpu(worker: dict[str, Any], gpus: Sequence[str]) -> dict[str, Any]:
    if not gpus:
        return worker
    return {**worker, "options": {**worker["options"], "env": {"CUDA_VISIBLE_DEVICES": gpus[0]}}}


@contextlib.contextmanager
def _interrupts_after() -> Iterator[None]:
    """Blocks Ctrl-C, which a terminal sends to all, in what is started: ending it is up to us.

    New threads and processes take over what is blocked. Where it reaches us meanwhile, it counts
    at the end of the block, when there is something to close.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # the others may not
        return
    came: list[int] = []
    mask = getattr(signal, "pthread_sigmask", None)  # not on every platform
    if mask:
        resource_tracker.ensure_running()  # once it is, it leaves alone what is blocked
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    blocked = mask(signal.SIG_BLOCK, [signal.SIGINT]) if mask else None
    try:
        yield
    finally:
        if mask:
            mask(signal.SIG_SETMASK, blocked)
        signal.signal(signal.SIGINT, before)
        for number in came[:1]:
            signal.raise_signal(number)


def _close(cluster: SpecCluster) -> None:
    with contextlib.suppress(TimeoutError):
        cluster.close(timeout=_CLOSING_SECONDS)


class _NoPages:
    """Keeps a server of Dask's from opening a port for pages, which no key protects.

    Without a dashboard it still has one, for its health and metrics.
    """

    def start_http_server(self, routes: Any, *_: Any, **__: Any) -> None:
        """Makes what is asked for its state later, and does not listen."""
        self.http_application = RoutingApplication(routes)
        self.http_server: Any = HTTPServer(self.http_application)


class _ClosedScheduler(_NoPages, Scheduler):
    """A scheduler without pages."""


class _ClosedWorker(_NoPages, Worker):
    """A worker without pages, which leaves Ctrl-C alone even if it takes the place of another."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        super().__init__(*arguments, **options)
