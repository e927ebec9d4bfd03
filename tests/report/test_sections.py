from __future__ import annotations

import pytest

from polygraphy_layerprec.report.sections import Section, fit_sections

LAYERS = Section(
    ("Layers:",), tuple((f"  layer {i}", "    why") for i in range(5)), "layer", "layers"
)
SETS = Section(
    ("Sets:",), tuple((f"  set {i}",) for i in range(5)), "set", "sets", 1, (3, 2, 4, 1, 0)
)


def test_what_fits_is_shown_whole():
    lines = fit_sections([LAYERS, SETS], 17, width=80)

    assert lines == [
        ["Layers:", *(line for item in LAYERS.items for line in item)],
        ["Sets:", *(line for item in SETS.items for line in item)],
    ]


@pytest.mark.parametrize("room", range(3, 17))
def test_what_is_left_out_is_counted(room):
    layers, sets = fit_sections([LAYERS, SETS], room, width=80)

    assert len(layers) + len(sets) <= room
    for lines, noun, size in ((layers, "layer", 2), (sets, "set", 1)):
        left_out = 5 - (len(lines) - 1) // size
        told = lines[-1].rpartition(" | ")[2] if " | " in lines[-1] else ""
        assert told.startswith(str(left_out)) if left_out else told == ""
        assert noun in lines[-1] or not left_out


def test_the_most_important_stay_in_their_places():
    assert SETS.lines(3, 80) == ["Sets:", "  set 2", "  set 3", "  set 4 | 2 more sets"]


def test_a_count_that_does_not_fit_the_line_gets_its_own():
    assert SETS.lines(4, 12)[-1] == "  and 1 more set"


def test_a_heading_alone_says_how_many_there_are():
    assert LAYERS.lines(0, 80) == ["Layers | 5 layers"]


def test_the_least_is_shown_before_others_show_more():
    assert fit_sections([LAYERS, SETS], 3, width=80) == [
        ["Layers | 5 layers"],
        ["Sets:", "  set 3 | 4 more sets"],
    ]


def test_without_room_headings_are_left():
    assert fit_sections([LAYERS, SETS], 0, width=80) == [["Layers | 5 layers"], ["Sets | 5 sets"]]
