"""Options about samples that are measured in several processes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NoReturn

from polygraphy.tools.args import util as args_util
from polygraphy.tools.args.base import BaseArgs

from polygraphy_layerprec._native import G_LOGGER, export
from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.tools.args.output_path import check_output_path

if TYPE_CHECKING:
    import argparse

    from polygraphy_layerprec.distribution.part import Shard

__all__ = ["PartialRankingArgs", "ThreadArgs"]


@export()
class ThreadArgs(BaseArgs):
    """
    Threads: choosing how many threads each session of ONNX-Runtime has.
    """

    def add_parser_args_impl(self) -> None:
        """Declares the options."""
        self.group.add_argument(
            "--threads",
            metavar="NUM",
            help="Threads of each ONNX-Runtime session. Equal ones give equal numbers, however "
            "samples are split among processes. For example: --threads 2. Defaults to all cores "
            "that the process may use, at most 16.",
            type=int,
            default=None,
        )

    def parse_impl(self, args: argparse.Namespace) -> None:
        """
        Parses command-line arguments and populates the following attributes:

        Attributes:
            threads (int): Threads of each session, or None.
        """
        self.threads = args_util.get(args, "threads")
        if self.threads is not None and self.threads < 1:
            G_LOGGER.critical(f"`--threads` must be at least 1, got: {self.threads}.")


@export()
class PartialRankingArgs(BaseArgs):
    """
    Partial Rankings: measuring a part of the samples, in one of the jobs of an array.
    """

    def add_parser_args_impl(self) -> None:
        """Declares the options."""
        self.group.add_argument(
            "--shard",
            metavar="I/N",
            help="Measure every N-th sample only, from the I-th on, and save what it says with "
            "`--save-partial`; `merge` makes a ranking of all N parts. For example: --shard 1/4.",
            default=None,
        )
        self.group.add_argument(
            "--save-partial",
            metavar="PATH",
            help="Path to save what the samples say, for `polygraphy layerprec merge`. No ranking "
            "is made. For example: --save-partial part-1.npz.",
            default=None,
        )

    def parse_impl(self, args: argparse.Namespace) -> None:
        """
        Parses command-line arguments and populates the following attributes:

        Attributes:
            shard (Shard): The samples to measure, or None for all of them.
            save_partial (str): Path to save what they say, or None.
        """
        self.shard = _parse_shard(args_util.get(args, "shard"))
        self.save_partial = args_util.get(args, "save_partial")
        check_output_path(self.save_partial, option="--save-partial", suffixes=(".npz",))
        if self.shard is not None and self.save_partial is None:
            G_LOGGER.critical(
                "`--shard` measures a part of the samples, of which no ranking can be made.\n"
                "Save the part with `--save-partial`, and merge all parts with "
                "`polygraphy layerprec merge`."
            )

    def refuse_beside(self, what: str) -> NoReturn:
        """Stops, since a part is asked for beside something that needs all samples."""
        G_LOGGER.critical(
            f"`--save-partial` saves a part of a ranking, and {what} needs the whole.\n"
            f"Leave it out: `polygraphy layerprec merge` chooses layers and saves files as `rank` "
            f"does, once all parts are there."
        )


def _parse_shard(text: str | None) -> Shard | None:
    if text is None:
        return None
    from polygraphy_layerprec.distribution.part import Shard

    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
    try:
        return Shard(int(found[1]), int(found[2])) if found else Shard(0, 0)
    except UserError:
        G_LOGGER.critical(f"`--shard` must be like 1/4, from 1/N to N/N, got: {text!r}.")
