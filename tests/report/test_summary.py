from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polygraphy_layerprec.records import MeasuredSet, Remedy, Selection, SelectionCost
from polygraphy_layerprec.report.columns import display_width
from polygraphy_layerprec.report.summary import format_summary, format_verdict_line
from tests.decisions import make_decision, make_outcome
from tests.rankings import make_layer, make_ranking, troubled_ranking

GOLDEN = Path(__file__).parent / "golden"


def choice_of(ranking, sets=7):
    """Returns the choice of all layers of a ranking, among so many sets."""
    decision = make_decision(layers=[layer.name for layer in ranking.layers])
    more = [
        MeasuredSet((), SelectionCost(9 + i, 0.5, 7), make_outcome(1e-4 / (i + 1)))
        for i in range(sets - len(decision.sets))
    ]
    remedy = Remedy("raise the epsilon to 1e-07 or more: it is 0 in FP16", "/norm/Add", "1e-12")
    decision = replace(decision, sets=(*decision.sets, *more), remedies=(remedy, remedy))
    cost = SelectionCost(len(ranking.layers), 0.125, 4)
    return Selection(
        layers=ranking.layers,
        cost=cost,
        forecast_error=0.0012,
        tolerance=None,
        reached=True,
        plain_cost=None,
        measurements=5,
        decision=decision,
    )


@pytest.mark.parametrize("width", [76, 116])
def test_the_summary_looks_as_it_should(width, check_golden):
    ranking = troubled_ranking()
    selection = choice_of(ranking)
    verdict = format_verdict_line(selection.decision, width=width)
    messages = format_summary(
        ranking, selection, hint="another: `constrain r.json --choose N`", width=width, room=22
    )

    text = "\n".join([verdict, *messages]) + "\n"

    check_golden(GOLDEN / f"summary_{width}.txt", text)


@pytest.mark.parametrize(
    ("worst", "channels", "part"),
    [
        (0.1, "", "a sample of y"),
        (0.1, "[:, 4:]", "a group of channels in a sample of y[:, 4:]"),
        (0.02, "", None),
    ],
)
def test_where_a_part_fails_by_more_than_the_whole_the_shares_say_of_what_they_are(
    worst, channels, part
):
    ranking = troubled_ranking()  # 0.0123 of all outputs
    selection = choice_of(ranking)
    lowered = make_outcome(worst)
    judged = tuple(replace(found, channels=channels) for found in lowered.judgements)
    decision = replace(selection.decision, lowered=replace(lowered, judgements=judged))

    found, _ = format_summary(ranking, replace(selection, decision=decision), width=300)

    assert ("shares of the RMS error of all outputs, 0.012" in str(found)) is (part is not None)
    assert part is None or f"0.012; {part} has 0.1" in str(found)


@given(
    width=st.integers(36, 200),
    name=st.text(min_size=1),
    reason=st.text(),
    count=st.integers(1, 60),
    room=st.integers(18, 30),
)
def test_any_model_fits(width, name, reason, count, room):
    layers = [
        make_layer(i, f"/{name}.{i}/{name}", op=name, block=name, reason=reason, overflow=True)
        for i in range(1, count + 1)
    ]
    ranking = make_ranking(*layers)

    messages = format_summary(ranking, choice_of(ranking), width=width, room=room)

    lines = [line for message in messages for line in message.split("\n")]
    assert all(line.isprintable() for line in lines)
    if width >= 76:
        assert len(lines) <= room
        assert max(map(display_width, lines)) <= width


def test_colours_say_what_is_broken_and_what_is_chosen():
    ranking = troubled_ranking()

    found, choice = format_summary(ranking, choice_of(ranking), width=116, room=22)

    assert len(found.styles) == len(found.split("\n"))
    assert (
        dict(zip(found.split("\n"), found.styles, strict=True))[
            "  /encoder/layer.11/attention/output/LayerNorm/Pow: Pow, 1 layer overflows, "
            "|x| up to 8.1e+05"
        ]
        == "bad"
    )
    assert choice.styles[0] == "chosen"
    assert choice.styles[-1] is None


@pytest.mark.parametrize(
    ("verdict", "error", "style"),
    [("fine", 1e-3, "good"), ("inaccurate", 1e-3, "doubtful"), ("unreachable", 1.0, "bad")],
)
def test_the_verdict_has_the_colour_of_how_it_ends(verdict, error, style):
    decision = replace(make_decision(error), verdict=verdict)

    assert {*format_verdict_line(decision, width=40).styles} == {style}


def test_without_a_measurement_the_forecast_is_told():
    ranking = make_ranking()
    selection = replace(choice_of(ranking), decision=None)

    _, choice = format_summary(ranking, selection, width=200)

    assert "RMS relative L2 error: forecast 0.0012" in choice
