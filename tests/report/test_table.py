from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polygraphy_layerprec.records import OutputDivergence, OutputError, UnmeasuredLayer
from polygraphy_layerprec.report.columns import display_width
from polygraphy_layerprec.report.table import format_ranking
from tests.rankings import make_layer, make_ranking, troubled_ranking

GOLDEN = Path(__file__).parent / "golden"


def listed_names(lines, names):
    """Returns `names` in the order in which lines list them."""
    return [name for line in lines for name in names if f" {name} " in line]


@pytest.mark.parametrize("width", [76, 120, 160])
def test_the_report_looks_as_it_should(width, check_golden):
    text = "\n".join(format_ranking(troubled_ranking(), width=width)) + "\n"

    check_golden(GOLDEN / f"table_{width}.txt", text)


@given(width=st.integers(72, 200), name=st.text(min_size=1), reason=st.text())
def test_no_name_makes_a_line_too_wide_or_unprintable(width, name, reason):
    layers = [make_layer(1, name, op=name, reason=reason), make_layer(2, "other", block=name)]

    lines = format_ranking(make_ranking(*layers), width=width)

    assert all(display_width(line) <= width for line in lines)
    assert all(line.isprintable() for line in lines)


def test_everything_troubling_is_shown():
    text = "\n".join(format_ranking(troubled_ranking(), width=160))

    assert "measured: 0.0123, forecast from the impacts: 0.012" in text
    assert "no kernel for domain 'acme'" in text
    assert "Infinity: starts in /encoder/layer.11/attention/output/LayerNorm/Pow" in text
    assert "layer0 -> layer1 -> layer2 -> (3 more) -> layer6 -> layer7 -> layer8" in text
    assert "2.0e-02~" in text
    assert "~ estimated by another method" in text
    assert "Stability of the order: 0.99, the rank correlation between samples" in text


def test_overflow_and_nan_stand_where_no_number_holds():
    ranking = make_ranking(
        make_layer(1, "a", overflow=True, impact=4e-12),
        make_layer(2, "b", keeps_finite=True, impact=5e-12),
        make_layer(3, "c", impact=0.25, share=0.125),
    )

    _, _, *rows = format_ranking(ranking, width=160)

    assert [row.split()[3:5] for row in rows[:3]] == [
        ["overflow", "overflow"],
        ["NaN/Inf", "NaN/Inf"],
        ["2.5e-01", "12.5%"],
    ]
    assert rows[3].startswith("  Impact: output error by rounding it alone; Share: its part")


def test_only_the_top_layers_are_listed():
    ranking = make_ranking(*(make_layer(rank, f"layer{rank}") for rank in range(1, 6)))

    lines = format_ranking(ranking, top=2, width=120)

    names = [f"layer{rank}" for rank in range(1, 6)]
    assert listed_names(lines, names) == ["layer1", "layer2"]
    assert "2 of 5 layers" in lines[0]


@pytest.mark.parametrize(
    ("sort_by", "order"),
    [
        ("impact", ["c", "a", "b"]),
        ("introduced", ["b", "c", "a"]),
        ("cumulative", ["a", "b", "c"]),
        ("name", ["a", "b", "c"]),
    ],
)
def test_layers_are_listed_in_the_order_asked_for(sort_by, order):
    ranking = make_ranking(
        make_layer(1, "c", introduced_error=0.2, cumulative_error=None),
        make_layer(2, "a", introduced_error=0.1, cumulative_error=0.9),
        make_layer(3, "b", introduced_error=0.3, cumulative_error=0.5),
    )

    assert listed_names(format_ranking(ranking, sort_by=sort_by, width=120), "abc") == order


def test_narrow_tables_put_the_whole_name_and_reason_below_the_figures():
    reason = "overflow: " + "the partial sums pass the largest number " * 3
    ranking = make_ranking(make_layer(1, "layer_a", reason=reason), make_layer(2, "layer_b"))

    lines = format_ranking(ranking, width=76)

    first, second = (
        next(i for i, line in enumerate(lines) if f" {name} |" in line)
        for name in ("layer_a", "layer_b")
    )
    below = " ".join(" ".join(lines[first : second - 1]).split())
    assert below == f"layer_a | {reason.strip()}"


def test_layers_unmeasured_for_one_reason_are_told_together():
    layers = [UnmeasuredLayer(f"l{i}", "Exp", ("y",), "no kernel") for i in range(5)]

    lines = format_ranking(make_ranking(unmeasured=tuple(layers)), width=120)

    at = lines.index("Unmeasured: 5 layers")
    assert lines[at + 1 :] == ["    l0 (Exp), l1 (Exp), l2 (Exp) and 2 more | no kernel"]


def test_an_error_that_no_output_has_is_unknown():
    error = OutputError(0.0, 0.0, (OutputDivergence("y", None, None, 0, 1.0),))

    assert "measured: unknown" in "\n".join(format_ranking(make_ranking(output_error=error)))


def test_the_error_of_an_integer_output_is_the_share_of_unequal_elements():
    for share in (0.0, 0.25):
        error = OutputError(share, 0.0, (OutputDivergence("label", None, None, 0, share),))

        text = "\n".join(format_ranking(make_ranking(output_error=error)))

        assert f"measured: {share:.3g}" in text


def test_one_sample_cannot_say_how_stable_the_order_is():
    one = replace(make_ranking().conditions, sample_count=1)

    text = "\n".join(format_ranking(make_ranking(stability=None, conditions=one), width=200))

    assert "Stability of the order: unknown: one sample cannot say" in text


def test_samples_without_an_order_leave_the_stability_unknown():
    text = "\n".join(format_ranking(make_ranking(stability=None), width=200))

    assert "Stability of the order: unknown\n" in text


@pytest.mark.parametrize(
    ("uncertainty", "impact", "share"),
    [
        (None, "1.2e-03", "42.3%"),
        (0.0, "1.2e-03", "42.3%"),
        (0.005, "1.2e-03", "42.3%"),
        (0.05, "1.2e-03", "42%"),
        (0.06, "1e-03", "42%"),
    ],
)
def test_figures_have_as_many_digits_as_they_are_sure_of(uncertainty, impact, share):
    layer = make_layer(impact=1.23e-3, share=0.4231, impact_uncertainty=uncertainty)

    cells = format_ranking(make_ranking(layer), width=200)[2].split()

    assert impact in cells
    assert share in cells


def test_a_refuted_forecast_is_not_shown_as_an_answer():
    error = OutputError(0.86, 0.06, (OutputDivergence("y", 0.86, 1.0, 0, 1.0),))

    text = " ".join(" ".join(format_ranking(make_ranking(output_error=error))).split())

    assert "measured: 0.86, which refutes the forecast from the impacts: 0.06" in text


def test_a_single_operator_or_block_is_not_rolled_up():
    ranking = make_ranking(make_layer(1, op="Add"), make_layer(2, op="Mul"))

    text = "\n".join(format_ranking(ranking))

    assert "By operator" in text
    assert "By block" not in text


def test_long_lists_say_how_much_more_there_is():
    groups = [make_layer(rank, f"layer{rank}", op=f"Op{rank}") for rank in range(1, 12)]

    text = "\n".join(format_ranking(make_ranking(*groups)))

    assert "and 3 more with smaller shares" in text
