"""The layers of a ranking as a picture: impacts along the depth, and the worst of them."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.files.atomic_file import write_file
from polygraphy_layerprec.report.broken_axis import break_axis
from polygraphy_layerprec.report.columns import printable, shorten, wrap_text
from polygraphy_layerprec.report.headline import judge_ranking
from polygraphy_layerprec.report.kind_styles import KIND_STYLES, drawn_kind
from polygraphy_layerprec.report.plot_axis import break_y_axis
from polygraphy_layerprec.report.series import block_runs, execution_positions, finite_impact

if TYPE_CHECKING:
    from polygraphy_layerprec.report.ranking_report import RankingReport

__all__ = ["check_plot_package", "save_layer_plot"]

_LAYERS_NAMED: Final = 12
_NAME_WIDTH: Final = 46
_TITLE_WIDTH: Final = 110  # characters
_KEPT_COLOR: Final = "#0d8f62"
_LOWERED_COLOR: Final = "#b7bdc5"


def check_plot_package() -> None:
    """Checks, before work begins, that what draws pictures is installed.

    Raises:
        UserError: If it is not; the text says what to install.
    """
    if find_spec("matplotlib") is None:
        raise UserError(
            "A picture needs matplotlib.\n"
            "Install it with `pip install 'polygraphy-layerprec[plot]'`."
        )


def save_layer_plot(report: RankingReport, path: str) -> None:
    """Draws a ranking, in the format that the ending of `path` names; same report, same bytes.

    Raises:
        UserError: If `path` cannot be written, or matplotlib is not installed.
    """
    check_plot_package()
    import matplotlib as mpl  # noqa: PLC0415 - an optional dependency
    from matplotlib.figure import Figure  # noqa: PLC0415

    kind = os.path.splitext(path)[1].lstrip(".").lower()
    with mpl.rc_context({"svg.hashsalt": "layerprec"}):  # else identifiers are random
        figure = Figure(figsize=(12.0, 4.8), layout="constrained")
        figure.suptitle(_title(report), fontsize=11, fontweight="bold", parse_math=False)
        along, worst = figure.subplots(1, 2, width_ratios=(7, 4))
        _draw_depth(along, report)
        _draw_worst(worst, report)
        dateless = {"Date": None} if kind == "svg" else None
        write_file(path, lambda file: figure.savefig(file, format=kind, metadata=dateless, dpi=144))


def _title(report: RankingReport) -> str:
    name = shorten(printable(report.ranking.model.name), 60) or "model"
    return "\n".join(wrap_text(f"{name}: {judge_ranking(report).headline}", _TITLE_WIDTH))


def _draw_depth(axes: Any, report: RankingReport) -> None:
    layers = report.ranking.layers
    kept = {layer.name for layer in report.selection.layers}
    axis = break_axis(map(finite_impact, layers), beyond="NaN/Inf")
    places = dict(zip((layer.name for layer in layers), execution_positions(layers), strict=True))
    heights = {layer.name: axis.place(finite_impact(layer)) for layer in layers}
    for run in block_runs(layers)[1::2]:
        axes.axvspan(run.first - 0.5, run.last + 0.5, color="#f3f4f6", linewidth=0)
    stems = [layer.name for layer in layers if layer.name in kept]
    axes.vlines(
        [places[name] for name in stems],
        axis.drawn[0],
        [heights[name] for name in stems],
        color=_KEPT_COLOR,
        linewidth=1.0,
        alpha=0.7,
        label="stays in FP32" if stems else None,
    )
    for kind, style in KIND_STYLES.items():
        names = [layer.name for layer in layers if drawn_kind(layer.kind, layer.lost) == kind]
        if names:
            points = [places[name] for name in names], [heights[name] for name in names]
            axes.scatter(
                *points, marker=style.matplotlib, c=style.color, s=16, label=kind, zorder=3
            )
    break_y_axis(axes, axis)
    axes.set_xlabel("layers in execution order")
    axes.set_ylabel("impact: output error of this layer alone")
    axes.grid(visible=True, axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.13), frameon=False)


def _draw_worst(axes: Any, report: RankingReport) -> None:
    kept = {layer.name for layer in report.selection.layers}
    layers = report.ranking.layers[:_LAYERS_NAMED]
    widths = [0.0 if layer.lost else 100.0 * layer.share for layer in layers]
    colors = [_KEPT_COLOR if layer.name in kept else _LOWERED_COLOR for layer in layers]
    rows = list(range(len(layers)))
    axes.barh(rows, widths, color=colors, height=0.68)
    end = max([1.0, *widths])
    for row, layer in enumerate(layers):
        if layer.lost:
            color = _KEPT_COLOR if layer.name in kept else KIND_STYLES["overflow"].color
            axes.text(0.01 * end, row, layer.lost, color=color, fontsize=7, va="center")
    names = [shorten(printable(layer.name), _NAME_WIDTH) for layer in layers]
    # A name may hold what is mathematics to TeX.
    axes.set_yticks(rows, names, fontsize=7, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(left=0.0, right=1.02 * end)
    axes.set_xlabel("share of the output error in %")
    axes.grid(visible=True, axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
