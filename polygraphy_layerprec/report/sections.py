"""Parts of what a terminal is shown, shortened together until they fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from polygraphy_layerprec.report.columns import display_width

__all__ = ["Section", "fit_sections"]


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands below it, of which some may be left out."""

    head: tuple[str, ...]
    """Lines above the items."""

    items: tuple[tuple[str, ...], ...] = ()
    """Each on one or more lines."""

    noun: str = ""
    """What an item is, in the singular."""

    plural: str = ""
    """The same in the plural."""

    least: int = 0
    """How many items are shown before other sections show more; fewer where there is no room."""

    order: tuple[int, ...] = ()
    """Places of the items, those to be left out last first; as they stand if it is empty."""

    def lines(self, shown: int, width: int) -> list[str]:
        """Returns the section with so many of its items, and how many others there are."""
        places = sorted((self.order or range(len(self.items)))[:shown])
        lines = [*self.head, *(line for place in places for line in self.items[place])]
        left_out = len(self.items) - shown
        if left_out:
            more = " more" if shown else ""
            told = f"{left_out}{more} {self.noun if left_out == 1 else self.plural}"
            if lines and display_width(lines[-1]) + len(told) + 3 <= width:
                lines[-1] = f"{lines[-1].rstrip(':')} | {told}"
            else:
                lines.append(f"  and {told}")
        return lines


def fit_sections(sections: Sequence[Section], room: int, *, width: int) -> list[list[str]]:
    """Returns the lines of each section, together at most `room` where they can be so few.

    Sections take turns in showing one item more, the first of them first. Where not even the least
    of each fits, the one with the most items gives way, the last of them first.

    Args:
        sections: The parts, from top to bottom.
        room: How many lines there are.
        width: Terminal cells in a line.
    """
    shown = [min(section.least, len(section.items)) for section in sections]
    lines = [section.lines(count, width) for section, count in zip(sections, shown, strict=True)]
    while sum(map(len, lines)) > room and any(shown):
        place = max(range(len(shown)), key=lambda place: (shown[place], place))
        shown[place] -= 1
        lines[place] = sections[place].lines(shown[place], width)
    grows = True
    while grows:
        grows = False
        for place, section in enumerate(sections):
            if shown[place] == len(section.items):
                continue
            longer = section.lines(shown[place] + 1, width)
            if sum(map(len, lines)) - len(lines[place]) + len(longer) <= room:
                shown[place] += 1
                lines[place] = longer
                grows = True
    return lines
