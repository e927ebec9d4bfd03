"""Samples for the demo model: sentences as token ids, padded to the model's length."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

__all__ = ["load_data"]

BATCH, SEQUENCE = 4, 16

SENTENCES = (
    "the film is long and the plot is thin",
    "a quiet story told with great care",
    "not one scene that i would cut",
    "the jokes are old and the ending is worse",
    "i have seen it twice and will again",
    "the sound is good but nothing else is",
    "warm funny and over too soon",
    "two hours that felt like four",
)


def load_data() -> Iterator[dict[str, npt.NDArray[np.int64]]]:
    """Yields a dictionary for each batch: what `--data-loader-script` calls."""
    words = sorted({word for sentence in SENTENCES for word in sentence.split()})
    numbers = {word: number for number, word in enumerate(words, start=1)}
    for first in range(0, len(SENTENCES), BATCH):
        ids = np.zeros((BATCH, SEQUENCE), np.int64)
        for row, sentence in enumerate(SENTENCES[first : first + BATCH]):
            tokens = [numbers[word] for word in sentence.split()]
            ids[row, : len(tokens)] = tokens
        yield {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64)}
