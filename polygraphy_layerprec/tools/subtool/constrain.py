"""`polygraphy layerprec constrain`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from polygraphy_layerprec._native import G_LOGGER
from polygraphy_layerprec.tools.args import (
    ArtefactArgs,
    RankedModelArgs,
    SampleArgs,
    SelectionArgs,
)
from polygraphy_layerprec.tools.subtool.selecting import SelectingSubtool

if TYPE_CHECKING:
    import argparse

__all__ = ["Constrain"]


class Constrain(SelectingSubtool):
    r"""
    Choose the layers that stay in FP32, from a ranking that was saved.

    A new tolerance or number of layers needs no new ranking. The typical usage of `constrain` is:

        polygraphy layerprec constrain ranking.json --top-k 10 --save-script constraints.py

    With the model and its inputs, sets of layers are measured, and the cheapest that meets a
    tolerance is found:

        polygraphy layerprec constrain ranking.json --model model.onnx --load-inputs inputs.npz \
            --tolerance 1e-3 --save-script constraints.py

    The exit code is 1 if no set of layers meets the tolerance.
    """

    def __init__(self) -> None:
        super().__init__("constrain")

    def get_subscriptions_impl(self) -> list[Any]:
        """Returns the argument groups."""
        return [
            RankedModelArgs(),
            SampleArgs(allow_custom_input_shapes=False),
            SelectionArgs(),
            ArtefactArgs(),
        ]

    def run_job(self, args: argparse.Namespace) -> int:  # noqa: ARG002 - parsed already
        """Selects, shows and saves."""
        ranked = self.arg_groups[RankedModelArgs]
        self.arg_groups[ArtefactArgs].check_model(ranked.model_path)
        ranking = ranked.load_ranking()
        graph = ranked.load_graph()
        samples = self.arg_groups[SampleArgs]
        if graph is None:
            G_LOGGER.info(
                "No model was given with `--model`, so nothing is measured: the forecast decides."
            )
        elif samples.is_using_random_data() and ranking.conditions.inputs == "user":
            G_LOGGER.warning(
                "The ranking was measured with your own inputs, but this selection is measured "
                "with made-up ones.\nGive the same inputs, for example with `--load-inputs`."
            )
        reached = self.select_and_save(
            ranking,
            model_path=ranked.model_path,
            graph=graph,
            measures=graph is not None,
            outputs=ranking.conditions.outputs or None,
            external_data_folder=ranked.external_data_dir,
        )
        return 0 if reached else 1
