"""Options about the processes that samples are measured in."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from polygraphy.tools.args import util as args_util
from polygraphy.tools.args.base import BaseArgs

from polygraphy_layerprec._native import G_LOGGER, export

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from polygraphy_layerprec.distribution.clients import Workers
    from polygraphy_layerprec.distribution.worker_pool import WorkerPool
    from polygraphy_layerprec.model import Graph

__all__ = ["WorkerArgs"]


@export()
class WorkerArgs(BaseArgs):
    """
    Workers: measuring samples in many processes, on this machine or on others.
    """

    def add_parser_args_impl(self) -> None:
        """Declares the options."""
        place = self.group.add_mutually_exclusive_group()
        place.add_argument(
            "--workers",
            metavar="NUM",
            help="Measure samples in this many processes on this machine, which share its cores; "
            "with `--providers cuda`, on a GPU each. Functions of your own scripts are called in "
            "the command itself, to which the outputs are sent. Needs "
            "`pip install 'polygraphy-layerprec[dask]'`. For example: --workers 4.",
            type=int,
            default=None,
        )
        place.add_argument(
            "--cluster",
            metavar="ADDRESS|FILE",
            help="Measure samples on a Dask cluster that runs already: the address of its "
            "scheduler, or the scheduler file that it wrote. Its workers find the model under the "
            "same path. For example: --cluster tls://head:8786.",
            default=None,
        )
        for name, what in (
            ("ca", "the certificate of the authority that the cluster trusts"),
            ("cert", "your certificate for the cluster"),
            ("key", "the key of your certificate for the cluster"),
        ):
            self.group.add_argument(
                f"--cluster-tls-{name}",
                metavar="PATH",
                help=f"Path to {what}, as PEM. For example: --cluster-tls-{name} {name}.pem.",
                default=None,
            )

    def parse_impl(self, args: argparse.Namespace) -> None:
        """
        Parses command-line arguments and populates the following attributes:

        Attributes:
            workers (Union[int, ClusterAddress]): Processes to start, where a cluster is, or None.
        """
        self.workers: Workers | None = args_util.get(args, "workers")
        cluster = args_util.get(args, "cluster")
        if isinstance(self.workers, int) and self.workers < 1:
            G_LOGGER.critical(f"`--workers` must be at least 1, got: {self.workers}.")
        paths = {name: args_util.get(args, f"cluster_tls_{name}") for name in ("ca", "cert", "key")}
        given = {name: path for name, path in paths.items() if path is not None}
        if given and (cluster is None or len(given) < len(paths)):
            G_LOGGER.critical(
                "`--cluster-tls-ca`, `--cluster-tls-cert` and `--cluster-tls-key` belong "
                "together, and to `--cluster`.\nGive all four, or none of the three."
            )
        for name, path in given.items():
            if not os.path.isfile(path):
                G_LOGGER.critical(f"No such file for `--cluster-tls-{name}`: {path!r}.")
        if cluster is not None:
            from polygraphy_layerprec.distribution.clients import ClusterAddress, TlsFiles

            tls = TlsFiles(paths["ca"], paths["cert"], paths["key"]) if given else None
            self.workers = ClusterAddress(cluster, tls)

    @contextmanager
    def pool(
        self,
        graph: Graph,
        path: str,
        *,
        threads: int | None,
        external_data_folder: str | None = None,
        max_memory_bytes: int | None = None,
        on_gpu: bool = False,
    ) -> Iterator[WorkerPool | None]:
        """Yields workers for a model, if they are asked for; sessions have so many threads.

        Args:
            graph: The model.
            path: Its path.
            threads: Threads of each session; None for what the cores allow.
            external_data_folder: Where its data files are, if not beside it.
            max_memory_bytes: Memory of each worker for activations.
            on_gpu: Whether each has a GPU run the model.

        Raises:
            ExecutionError: If there are no workers, or they cannot take part.
        """
        from polygraphy_layerprec.execution.kernels.sessions import threads_per_session

        if self.workers is None:
            with threads_per_session(threads):
                yield None
            return
        from polygraphy_layerprec.backend.engines.tensorrt_module import count_gpus
        from polygraphy_layerprec.distribution.worker_pool import worker_pool

        with worker_pool(
            self.workers,
            path,
            graph,
            external_data_folder=external_data_folder,
            threads=threads,
            max_memory_bytes=max_memory_bytes,
            gpus=count_gpus() if on_gpu else None,
        ) as pool:
            yield pool

    def refuse_beside(self, what: str) -> None:
        """Stops if workers are asked for beside something that is done in one process."""
        if self.workers is not None:
            G_LOGGER.critical(
                f"`--workers` and `--cluster` cannot be combined with {what}, which is done in one "
                f"process.\nLeave one of them out."
            )

    def refuse_without_model(self) -> None:
        """Stops if workers are asked for and there is no model that they could measure."""
        if self.workers is not None:
            G_LOGGER.critical(
                "`--workers` and `--cluster` measure sets of layers, and no model was given.\n"
                "Give it with `--model`, and its inputs, or leave them out."
            )
