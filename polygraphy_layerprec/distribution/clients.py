"""A connection to workers: those of one's own, or those of a cluster that the user runs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from polygraphy_layerprec.execution.errors import WorkersError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from distributed import Client, Security

__all__ = ["ClusterAddress", "TlsFiles", "Workers", "connected"]

_CONNECTING_SECONDS: Final = 30


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """What proves to a cluster who one is, and to one that it is the cluster."""

    authority: str
    """Path to the certificate of the authority."""

    certificate: str
    """Path to one's own certificate."""

    key: str
    """Path to its key."""


@dataclass(frozen=True, slots=True)
class ClusterAddress:
    """A cluster that the user runs."""

    place: str
    """Address of the scheduler, or path to the scheduler file that it wrote."""

    tls: TlsFiles | None = None
    """How to prove who one is; None where anybody may come."""


Workers = int | ClusterAddress
"""How many processes to start on this machine, or where a cluster is."""


@contextlib.contextmanager
def connected(workers: Workers, gpus: Sequence[str] = ()) -> Iterator[Client]:
    """Yields a client of the workers; what was started for it ends with the block.

    Args:
        workers: Where they are.
        gpus: For each that is started, what it sees of the GPUs; all of them by default.

    Raises:
        WorkersError: If Dask is not installed, or no scheduler answers.
    """
    with _quiet_dask(), contextlib.ExitStack() as stack:
        client = _started(workers, gpus, stack) if isinstance(workers, int) else _found(workers)
        stack.callback(_close, client)
        yield client


def _started(count: int, gpus: Sequence[str], stack: contextlib.ExitStack) -> Client:
    from distributed import Client

    from polygraphy_layerprec.distribution.own_cluster import own_cluster

    try:
        cluster = stack.enter_context(own_cluster(count, gpus))
    except ImportError as error:  # `cryptography`, which Dask asks for late
        raise _lacking(error) from error
    return Client(cluster, set_as_default=False)


def _found(cluster: ClusterAddress) -> Client:
    from distributed import Client, Security

    security = Security()
    if cluster.tls is not None:
        security = Security(
            tls_ca_file=cluster.tls.authority,
            tls_client_cert=cluster.tls.certificate,
            tls_client_key=cluster.tls.key,
            require_encryption=True,
        )
    try:
        address = _scheduler_in(cluster.place)
        # A client that fails to connect leaves threads behind, which keep the program from ending.
        asyncio.run(_call_on(address, security))
        return Client(address, security=security, timeout=_CONNECTING_SECONDS, set_as_default=False)
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise WorkersError(
            f"No scheduler answers at {cluster.place!r}.\n"
            f"Note: {type(error).__name__}: {str(error).strip():.300}\n"
            f"Give its address, such as tls://host:8786, or the scheduler file that it wrote. One "
            f"that asks for TLS needs `--cluster-tls-ca`, `--cluster-tls-cert` and "
            f"`--cluster-tls-key`."
        ) from error


def _scheduler_in(place: str) -> str:
    """The address of a scheduler, which a file may hold."""
    if not os.path.isfile(place):
        return place
    with open(place, encoding="utf-8") as file:
        return str(json.load(file)["address"])


async def _call_on(address: str, security: Security) -> None:
    from distributed.comm import connect

    connection = await connect(
        address, timeout=_CONNECTING_SECONDS, **security.get_connection_args("client")
    )
    await connection.close()


def _close(client: Client) -> None:
    with contextlib.suppress(OSError, RuntimeError, TimeoutError):  # of a scheduler that is gone
        client.close(timeout=2)


@contextlib.contextmanager
def _quiet_dask() -> Iterator[None]:
    """Keeps Dask from logging what is told as an error, and from warning of large samples."""
    try:
        import dask
        import distributed
    except ImportError as error:
        raise _lacking(error) from error
    logger = logging.getLogger(distributed.__name__)
    levels = {
        name: logging.getLogger(name).level
        for name in (logger.name, *logging.root.manager.loggerDict)
        if name.split(".")[0] == logger.name
    }
    for name in levels:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TiB"}):
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _lacking(error: ImportError) -> WorkersError:
    return WorkersError(
        f"`--workers` and `--cluster` need Dask: {error}.\n"
        f"Install it with `pip install 'polygraphy-layerprec[dask]'`, or split the samples among "
        f"jobs with `--shard`."
    )
