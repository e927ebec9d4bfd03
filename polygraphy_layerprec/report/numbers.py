"""Numbers as text, written the same in every report."""

from __future__ import annotations

from typing import Final

__all__ = ["format_error", "format_magnitude", "format_percent", "format_result"]

# Infinities count as the largest finite number when they are measured.
_INFINITE_ERROR: Final = 1e30


def format_error(error: float | None) -> str:
    """Returns an error in two digits, and a dash for None."""
    if error is None:
        return "\N{EN DASH}"
    if not error <= _INFINITE_ERROR:  # NaN as well
        return "inf"
    return "0" if error == 0.0 else f"{error:.1e}"


def format_magnitude(value: float) -> str:
    """Returns a largest |x| in two digits: a mask of 3.4e+38 is not infinite."""
    return "0" if value == 0.0 else f"{value:.1e}"


def format_result(error: float | None) -> str:
    """Returns an error as people say it: `0.29` rather than `2.9e-01`."""
    if error is not None and 0.1 <= error < 100.0:
        return f"{error:.2f}"
    return format_error(error)


def format_percent(fraction: float | None) -> str:
    """Returns a share of the whole as `12.3 %`, and a dash for None."""
    if fraction is None:
        return "\N{EN DASH}"
    return f"{100 * fraction:.1f} %"
