"""Options about the files that a selection becomes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from polygraphy.tools.args import util as args_util
from polygraphy.tools.args.base import BaseArgs

from polygraphy_layerprec._native import G_LOGGER, export
from polygraphy_layerprec.emit.text_emitters import TEXT_EMITTERS
from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.tools.args.output_path import check_output_path
from polygraphy_layerprec.tools.pair_artefacts import check_files_for, save_fewer_pairs

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.plan.widths import LeftNode
    from polygraphy_layerprec.records import Constraint, NetworkWidths, Ranking, Selection

__all__ = ["ArtefactArgs", "show_deviating", "show_left"]

_MOST_DEVIATING: Final = 3


@export()
class ArtefactArgs(BaseArgs):
    """
    Artefacts: saving what keeps the selected layers in FP32.
    """

    def add_parser_args_impl(self) -> None:
        """Declares the options."""
        self.group.add_argument(
            "--save-script",
            metavar="PATH",
            help="Path to save a TensorRT network postprocessing script that keeps the selected "
            "layers in FP32. Use it with `--trt-network-postprocess-script`. "
            "For example: --save-script constraints.py.",
            default=None,
        )
        self.group.add_argument(
            "--save-onnx",
            metavar="PATH",
            help="Path to save the model in mixed precision, for trtexec and ONNX-Runtime; with "
            "`--precision qdq`, the quantised model without the pairs of the selected layers. "
            "For example: --save-onnx mixed.onnx.",
            default=None,
        )
        for emitter in TEXT_EMITTERS:
            self.group.add_argument(emitter.option, metavar="PATH", help=emitter.help, default=None)
        self.group.add_argument(
            "--io-precision",
            help="Type of the float inputs and outputs of what is built: {'fp32': as in the model, "
            "'low': the low precision}. Defaults to fp32.",
            choices=["fp32", "low"],
            default=None,
        )
        self.group.add_argument(
            "--allow-unmatched",
            help="Let the script warn about constraints that match no layer of the network, "
            "instead of failing.",
            action="store_true",
            default=None,
        )

    def parse_impl(self, args: argparse.Namespace) -> None:
        """
        Parses command-line arguments and populates the following attributes:

        Attributes:
            save_script (str): Path to save the TensorRT script, or None.
            save_onnx (str): Path to save the mixed-precision model, or None.
            text_paths (Dict[str, str]): Paths of text files to save, by the emitter's option.
            io_precision (str): Type of float inputs and outputs.
            allow_unmatched (bool): Whether unmatched constraints are a warning.
        """
        self.save_script = args_util.get(args, "save_script")
        self.save_onnx = args_util.get(args, "save_onnx")
        paths = {e.option: args_util.get(args, _attribute(e.option)) for e in TEXT_EMITTERS}
        self.text_paths = {option: path for option, path in paths.items() if path is not None}
        self.io_precision = args_util.get(args, "io_precision") or "fp32"
        self.allow_unmatched = bool(args_util.get(args, "allow_unmatched"))
        check_output_path(self.save_script, option="--save-script", suffixes=(".py",))
        check_output_path(self.save_onnx, option="--save-onnx", suffixes=(".onnx",))
        for option, path in self.text_paths.items():
            check_output_path(path, option=option)

    @property
    def is_wanted(self) -> bool:
        """Whether any file was asked for."""
        return bool(self.save_script or self.save_onnx or self.text_paths)

    def check_precision(self, precision: str) -> None:
        """Stops, before any work begins, at files that make no sense for what is ranked."""
        check_files_for(
            precision,
            text_paths=self.text_paths,
            save_script=self.save_script,
            io_precision=self.io_precision,
        )

    def check_model(self, model_path: str | None) -> None:
        """Stops, before any work begins, unless the model is there that `--save-onnx` needs."""
        if self.save_onnx is not None and model_path is None:
            G_LOGGER.critical(
                "`--save-onnx` needs the model.\nName it, for example: --model model.onnx."
            )

    def save(
        self,
        ranking: Ranking,
        selection: Selection,
        model_path: str | None,
        *,
        graph: Graph | None = None,
        external_data_folder: str | None = None,
    ) -> None:
        """Saves the files that were asked for; `check_model` comes first.

        With a `graph`, a script holds the plan for every tensor; without, it decides by itself.
        """
        from polygraphy_layerprec.selection import constraints_of, constraints_of_members

        constraints = constraints_of(selection)
        if self.save_script is not None:
            self._save_script(ranking, constraints, graph)
        of_pairs = ranking.precision == "qdq"
        if self.save_onnx is not None and model_path is not None and of_pairs:
            save_fewer_pairs(constraints, graph, model_path, self.save_onnx)
        elif self.save_onnx is not None and model_path is not None:
            self._save_onnx(ranking, constraints, model_path, external_data_folder)
        self._save_texts(constraints_of_members(selection) if of_pairs else constraints)

    def _save_script(
        self, ranking: Ranking, constraints: tuple[Constraint, ...], graph: Graph | None
    ) -> None:
        from polygraphy_layerprec.emit.network_script import (
            render_network_script,
            save_network_script,
        )
        from polygraphy_layerprec.precision import PRECISIONS

        widths = None if graph is None else self._widths(graph, ranking, constraints)
        try:
            text = render_network_script(
                constraints,
                precision=PRECISIONS[ranking.precision],
                model_name=ranking.model.name,
                model_digest=ranking.model.digest,
                allow_unmatched=self.allow_unmatched,
                io_precision=self.io_precision,
                widths=widths,
            )
        except UserError as error:  # a precision that TensorRT does not have
            G_LOGGER.critical(f"Cannot save {self.save_script!r}: {error}.")
        save_network_script(text, self.save_script)
        G_LOGGER.info(f"Saved the script to {self.save_script}")

    def _widths(
        self, graph: Graph, ranking: Ranking, constraints: tuple[Constraint, ...]
    ) -> NetworkWidths:
        from polygraphy_layerprec.matching.requested_precisions import widths_of

        widths = widths_of(graph, ranking.precision, constraints, io_precision=self.io_precision)
        show_left("the script", widths.left)
        return widths

    def _save_onnx(
        self,
        ranking: Ranking,
        constraints: tuple[Constraint, ...],
        model_path: str,
        external_data_folder: str | None,
    ) -> None:
        from polygraphy_layerprec.emit.mixed_onnx import save_mixed_onnx
        from polygraphy_layerprec.precision import PRECISIONS

        outputs = [_first_output(constraint) for constraint in constraints]
        try:
            summary = save_mixed_onnx(
                model_path,
                self.save_onnx,
                outputs,
                precision=PRECISIONS[ranking.precision],
                io_precision=self.io_precision,
                external_data_folder=external_data_folder,
            )
        except UserError as error:  # a model that cannot be lowered, or data files in the way
            G_LOGGER.critical(f"Cannot save {self.save_onnx!r}: {str(error).rstrip('.')}.")
        show_left("the mixed-precision model", summary.left_in_fp32)
        show_deviating(summary.deviating)
        if summary.raised_opset is not None:
            old, new = summary.raised_opset
            G_LOGGER.info(
                f"Raised the opset of the mixed-precision model from {old} to {new}, since opset "
                f"{old} has no {ranking.precision.upper()} for some of its operators."
            )
        G_LOGGER.info(
            f"Saved the mixed-precision model to {self.save_onnx} | {summary.lowered} nodes "
            f"lowered, {summary.casts} casts"
        )

    def _save_texts(self, constraints: tuple[Constraint, ...]) -> None:
        from polygraphy_layerprec.emit.command_arguments import unnamed_constraints
        from polygraphy_layerprec.files.atomic_file import write_text_file

        for emitter in TEXT_EMITTERS:
            path = self.text_paths.get(emitter.option)
            if path is None:
                continue
            unnamed = unnamed_constraints(constraints) if emitter.tells_layers_by_name else 0
            if unnamed:
                G_LOGGER.warning(
                    f"{unnamed} of the selected layers have no name in the model, or one that is "
                    f"taken for an option, so these arguments leave them out. "
                    f"`{'--save-onnx' if emitter.of_pairs else '--save-script'}` keeps them."
                )
            write_text_file(path, emitter.render(constraints))
            G_LOGGER.info(f"Saved arguments to {path}")


def _first_output(constraint: Constraint) -> str:
    name = next(filter(None, constraint.outputs), None)
    if name is None:
        G_LOGGER.critical(
            f"The layer {constraint.name!r} of the ranking has no output, so it is none of the "
            f"model's.\nRank the model again."
        )
    return name


def show_left(where: str, left: Sequence[Constraint | LeftNode]) -> None:
    """Names the nodes that a rule leaves in FP32, grouped by the reason."""
    by_reason: dict[str, list[str]] = {}
    for node in left:
        by_reason.setdefault(node.reason, []).append(node.name or node.op)
    for reason, names in by_reason.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        G_LOGGER.info(f"Stays in FP32 in {where}: {names[0]!a}{more} | {reason}")


def show_deviating(nodes: Sequence[LeftNode]) -> None:
    """Names the nodes of a mixed-precision model that a network lowers otherwise."""
    for node in nodes[:_MOST_DEVIATING]:
        G_LOGGER.info(f"Lowered otherwise than in a network: {node.name!a} | {node.reason}")
    if len(nodes) > _MOST_DEVIATING:
        G_LOGGER.info(f"Lowered otherwise than in a network: {len(nodes) - _MOST_DEVIATING} more")


def _attribute(option: str) -> str:
    return option.removeprefix("--").replace("-", "_")
