"""Files that a choice among the layers of a quantised model becomes, and those that it cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from polygraphy_layerprec._native import G_LOGGER
from polygraphy_layerprec.emit.text_emitters import TEXT_EMITTERS
from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.records.numbers import count_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.records import Constraint

__all__ = ["check_files_for", "save_fewer_pairs"]

_WHAT_TO_SAVE: Final = (
    "Save the model without the pairs of the chosen layers with `--save-onnx`, or what to leave "
    "out when it is quantised again with `--save-exclude`."
)


def check_files_for(
    precision: str, *, text_paths: Collection[str], save_script: str | None, io_precision: str
) -> None:
    """Stops at files that make no sense for what is ranked.

    Args:
        precision: Name of the low precision; `qdq` for the pairs of a quantised model.
        text_paths: Options of the text files that are wanted.
        save_script: Path of the script that is wanted, or None.
        io_precision: Type of float inputs and outputs.
    """
    of_pairs = precision == "qdq"
    for emitter in TEXT_EMITTERS:
        if emitter.option in text_paths and emitter.of_pairs != of_pairs:
            about = "the pairs of a quantised model" if emitter.of_pairs else "FP16 and BF16"
            G_LOGGER.critical(
                f"`{emitter.option}` is about {about}, and the precision is {precision}.\n"
                f"{_WHAT_TO_SAVE if of_pairs else 'Rank a quantised model: `--precision qdq`.'}"
            )
    if of_pairs and save_script is not None:
        G_LOGGER.critical(
            "`--save-script` makes no sense for a quantised model: the pairs stand in the model, "
            f"and a script that changes types in the network would leave them there.\n"
            f"{_WHAT_TO_SAVE}"
        )
    if of_pairs and io_precision != "fp32":
        G_LOGGER.critical(
            "`--io-precision` is about FP16 and BF16: pairs leave inputs and outputs as they are.\n"
            "Leave it out."
        )


def save_fewer_pairs(
    constraints: Sequence[Constraint], graph: Graph | None, model_path: str, output_path: str
) -> None:
    """Saves the quantised model without the pairs of the layers that are kept, and says so."""
    from polygraphy_layerprec.emit.mixed_onnx.pruning import save_pruned_onnx
    from polygraphy_layerprec.model.quantized import QuantizedGraph

    assert isinstance(graph, QuantizedGraph), "the ranking is about pairs"
    outputs = [name for constraint in constraints for name in constraint.outputs if name]
    try:
        summary = save_pruned_onnx(graph, model_path, output_path, outputs)
    except UserError as error:  # data files in the way, or a model that cannot be rewritten
        G_LOGGER.critical(f"Cannot save {output_path!r}: {str(error).rstrip('.')}.")
    if summary.dequantized_constants:
        G_LOGGER.warning(
            f"In the layers that are kept, {count_of(summary.dequantized_constants, 'constant')} "
            f"got what the quantised values stand for, since nobody gave the float ones.\n"
            f"Give the float model with `--reference`."
        )
    G_LOGGER.info(
        f"Saved the quantised model to {output_path} | {summary.removed_pairs} of "
        f"{summary.removed_pairs + summary.left_pairs} pairs removed, "
        f"{count_of(summary.restored_constants, 'constant')} in floats again"
    )
