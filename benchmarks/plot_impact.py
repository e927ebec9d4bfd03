"""Draws introduced error, cumulative divergence and impact against the truth.

Usage: python benchmarks/plot_impact.py LAYERS.csv FOLDER

The file comes from `impact_truth.py --save-layers`. Two pictures are written to the folder,
`impact-against-truth.svg` and `along-the-depth.svg`; the same file gives the same bytes. They have
no background, and colours that stand out from a white one as well as from a black one.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.orders import spearman
from benchmarks.truth_layers import TrueLayer, read_layers

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from matplotlib.axes import Axes

__all__ = ["draw_against_truth", "draw_depth", "main"]

_GREY = "#767676"
_COLOURS = {
    "introduced": "#2e9960",
    "cumulative": "#d1661f",
    "impact": "#3b7dd8",
    "truth": _GREY,
}
_TITLES = {
    "introduced": "introduced error",
    "cumulative": "cumulative divergence",
    "impact": "impact",
    "truth": "truth: output error when the layer alone rounds",
}
_SCORES = ("introduced", "cumulative", "impact")
_PICTURED = ("MiniLM", "digits CNN", "ResNet-50-sized CNN")
_DEEP_MODEL = "MiniLM"
_STYLE: Any = {
    "axes.edgecolor": _GREY,
    "axes.labelcolor": _GREY,
    "axes.titlecolor": _GREY,
    "axes.titlesize": 10,
    "font.size": 9,
    "grid.alpha": 0.3,
    "grid.color": _GREY,
    "legend.frameon": False,
    "legend.labelcolor": _GREY,
    "path.simplify": False,
    "svg.fonttype": "none",  # text stays text: smaller, and it can be searched
    "svg.hashsalt": "layerprec",  # else identifiers in the file are random
    "text.color": _GREY,
    "xtick.color": _GREY,
    "ytick.color": _GREY,
}


def main() -> None:
    """Draws what the command line names."""
    parser = argparse.ArgumentParser(description="Draw scores of layers against the truth.")
    parser.add_argument("layers", type=Path, help="CSV file of impact_truth.py --save-layers.")
    parser.add_argument("folder", type=Path, help="Where to write the pictures.")
    arguments = parser.parse_args()
    layers = read_layers(arguments.layers)
    draw_against_truth(layers, arguments.folder / "impact-against-truth.svg")
    draw_depth(layers, arguments.folder / "along-the-depth.svg")


def draw_against_truth(layers: Sequence[TrueLayer], path: Path) -> None:
    """Writes a picture with a panel for each model and score: a point for each layer.

    Layers that do nothing to the outputs have no place on logarithmic axes.
    """
    known = {layer.model for layer in layers}
    models = [model for model in _PICTURED if model in known]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.5, 2.3 * len(models) + 0.3), layout="constrained")
        panels = figure.subplots(len(models), len(_SCORES), sharey="row", squeeze=False)
        for row, model in zip(panels, models, strict=True):
            chosen = _layers_of(layers, model)
            for panel, score in zip(row, _SCORES, strict=True):
                _scatter(panel, chosen, score)
            row[0].set_ylabel(f"{model}\ntruth")
        for panel, score in zip(panels[0], _SCORES, strict=True):
            panel.set_title(_TITLES[score])
        _save(figure, path)


def draw_depth(layers: Sequence[TrueLayer], path: Path) -> None:
    """Writes a picture of all scores of one deep model, from its first layer to its last."""
    chosen = [layer for layer in _layers_of(layers, _DEEP_MODEL) if layer.truth > 0.0]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.5, 4.6), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True)
        for panel, scores in ((upper, ("cumulative", "introduced")), (lower, ("truth", "impact"))):
            for score in scores:
                _line(panel, chosen, score)
            panel.set_yscale("log")
            panel.minorticks_off()
            panel.grid(visible=True)
            panel.legend(loc="lower center", ncols=2, bbox_to_anchor=(0.5, 1.0))
            panel.set_ylabel("relative L2 error")
        lower.set_xlabel(f"layers of {_DEEP_MODEL}, from the inputs to the output")
        _save(figure, path)


def _layers_of(layers: Sequence[TrueLayer], model: str) -> list[TrueLayer]:
    return [layer for layer in layers if layer.model == model]


def _scatter(panel: Axes, layers: Sequence[TrueLayer], score: str) -> None:
    agreement = spearman(_values(layers, score).tolist(), _values(layers, "truth").tolist())
    shown = [layer for layer in layers if layer.truth > 0.0]
    horizontal, truth = _values(shown, score), _values(shown, "truth")
    panel.loglog(horizontal, truth, "o", markersize=3, color=_COLOURS[score], mew=0)
    panel.minorticks_off()
    panel.grid(visible=True)
    panel.xaxis.set_major_locator(LogLocator(numticks=4))
    decades = np.log10(horizontal)
    panel.set_xlim(10.0 ** np.floor(decades.min()), 10.0 ** np.ceil(decades.max()))
    label = f"rank correlation {agreement:.2f}"
    panel.text(0.03, 0.96, label, transform=panel.transAxes, va="top")
    if score == "impact":
        ends = [truth.min(), truth.max()]
        panel.plot(ends, ends, "-", linewidth=0.8, color=_GREY, zorder=0)
    panel.set_ylim(truth.min() / 2, truth.max() * 12)  # room for the text


def _line(panel: Axes, layers: Sequence[TrueLayer], score: str) -> None:
    is_truth = score == "truth"
    panel.plot(
        [layer.position for layer in layers],
        _values(layers, score),
        marker="o",
        markersize=4.5 if is_truth else 2.5,
        linewidth=0.0 if is_truth else 1.0,
        label=_TITLES[score],
        color=_COLOURS[score],
    )


def _values(layers: Sequence[TrueLayer], score: str) -> npt.NDArray[np.float64]:
    return np.array([getattr(layer, score) for layer in layers], np.float64)


def _save(figure: Figure, path: Path) -> None:
    text = io.StringIO()
    # A date would make every file differ.
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    # A tenth of a point is enough for a dot, and its six digits are most of the file.
    path.write_text(re.sub(r'( [xy]="-?\d+\.\d)\d+', r"\1", text.getvalue()), encoding="utf-8")


if __name__ == "__main__":
    main()
