"""Word error rate of what a model with connectionist temporal classification reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

__all__ = ["decode", "edits", "metric"]

Arrays = Mapping[str, np.ndarray]

SYMBOLS = "\0 abcdefghijklmnopqrstuvwxyz"
"""The first is the blank."""


def metric(outputs: Iterator[Arrays], samples: Iterator[Arrays]) -> float:
    """Returns 1 without the share of words that have to be changed: higher is better."""
    errors = words = 0
    for output, sample in zip(outputs, samples, strict=True):
        wanted = str(sample["text"]).split()
        errors += edits(decode(output["y"]), wanted)
        words += len(wanted)
    return 1 - errors / words


def decode(scores: np.ndarray) -> list[str]:
    """Returns the words of the best symbol of each step, without repetitions and blanks."""
    best = scores.argmax(axis=-1)
    new = np.diff(best, prepend=0) != 0
    return "".join(SYMBOLS[symbol] for symbol in best[new] if symbol).split()


def edits(found: Sequence[str], wanted: Sequence[str]) -> int:
    """Returns Levenshtein's distance, in words."""
    row = list(range(len(wanted) + 1))
    for i, word in enumerate(found, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(wanted, start=1):
            changed = diagonal + (word != other)
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, changed)
    return row[-1]
