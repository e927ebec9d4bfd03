"""What an axis of unknown extent is, by its name and its place, and which extents are plausible."""

from __future__ import annotations

import re
from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from polygraphy_layerprec.model import GraphInput

__all__ = ["PLAUSIBLE_EXTENTS", "AxisRole", "has_sample_rate", "is_sample_rate", "role_of"]


class AxisRole(Enum):
    """What an axis counts; where names and places disagree, the first of these holds."""

    BATCH = "batch"
    FRAMES = "frames of a video"
    IMAGE_SIDE = "side of an image"
    AUDIO = "audio samples"
    PAST = "steps of the past"
    SEQUENCE = "sequence"
    CHANNELS = "channels"
    OTHER = "unknown"


PLAUSIBLE_EXTENTS: Final[dict[AxisRole, tuple[int, ...]]] = {
    AxisRole.BATCH: (1, 2, 4, 8),
    AxisRole.FRAMES: (16, 8, 32),
    AxisRole.IMAGE_SIDE: (224, 320, 640, 256, 512, 384, 416, 64, 32),
    # A second at 16 kHz, then the chunks that voice detectors take.
    AxisRole.AUDIO: (16000, 512, 1536, 8000, 32000, 48000),
    AxisRole.PAST: (16, 128, 1),
    # 3000 frames are the 30 seconds that speech encoders take, and no others.
    AxisRole.SEQUENCE: (128, 64, 256, 512, 16, 3000, 32, 8, 1),
    AxisRole.CHANNELS: (3, 1, 4, 2),
    AxisRole.OTHER: (4, 2, 8, 3, 16, 64, 128, 1),
}
"""Extents to try, the most plausible first; 1 comes late, since it broadcasts to what is wrong."""

_BATCH_NAMES: Final = frozenset(["b", "n", "bs", "bsz"])
_NAMED: Final = (
    (AxisRole.PAST, re.compile(r"past|cache|history|prev", re.IGNORECASE)),
    (AxisRole.BATCH, re.compile(r"batch", re.IGNORECASE)),
    (AxisRole.CHANNELS, re.compile(r"channel", re.IGNORECASE)),
    (
        AxisRole.IMAGE_SIDE,
        re.compile(r"height|width|(?:^|[^a-z])(?:h|w|rows|cols)(?:$|[^a-z])", re.IGNORECASE),
    ),
    (AxisRole.AUDIO, re.compile(r"audio|wav|pcm|samples", re.IGNORECASE)),
    (
        AxisRole.SEQUENCE,
        re.compile(
            r"seq|len|token|text|time|frame|word|char|phone|step|context|(?:^|[^a-z])[lt](?:$|[^a-z])",
            re.IGNORECASE,
        ),
    ),
)
# What exporters call an axis of which they know nothing: `unk__214`, `DynamicDimension.0`, `s77`.
_NAMELESS: Final = re.compile(
    r"(?:p2o\.?|dynamic|dimension|dim|axes|axis|unk|unknown|unnamed|none|any|arg|input|[dsux]|[\W\d_])+",
    re.IGNORECASE,
)
_STATE: Final = re.compile(
    r"state|hidden|cell|memory|(?:^|[^a-z])[hc]x?[0-9n]?(?:$|[^a-z0-9])", re.IGNORECASE
)
_PAST: Final = re.compile(r"past|cache", re.IGNORECASE)
_AUDIO: Final = re.compile(r"audio|wav|speech|pcm|signal|sound|input_values", re.IGNORECASE)
_IMAGE: Final = re.compile(r"image|img|pixel|photo", re.IGNORECASE)
_SAMPLE_RATE: Final = re.compile(r"^(?:sr|fs|sampl(?:e|ing)_?rate)$", re.IGNORECASE)
_IMAGE_CHANNELS: Final = frozenset([1, 3, 4])
_COLOURS: Final = 3
_VIDEO_RANK: Final = 5
_IMAGE_RANK: Final = 4


def role_of(symbol: str | None, graph_input: GraphInput, axis: int, *, audio: bool) -> AxisRole:
    """Returns what the axis `axis` of an input counts.

    Args:
        symbol: What the model calls its extent, None for nothing.
        graph_input: The input, of known rank.
        axis: Which axis.
        audio: Whether the model is about sound, as one with a sample rate is.
    """
    shape = graph_input.shape or ()
    placed = _role_by_place(graph_input, shape, axis, audio=audio)
    if symbol is None or len(shape) == _VIDEO_RANK:
        return placed
    if symbol.lower() in _BATCH_NAMES:
        return AxisRole.BATCH
    named = next((role for role, pattern in _NAMED if pattern.search(symbol)), None)
    if named is not None:
        # A model about sound may call its samples a sequence.
        return placed if (placed, named) == (AxisRole.AUDIO, AxisRole.SEQUENCE) else named
    in_known_place = placed in {AxisRole.BATCH, AxisRole.IMAGE_SIDE, AxisRole.AUDIO}
    if in_known_place or _NAMELESS.fullmatch(symbol.replace(graph_input.name, "")):
        return placed
    return AxisRole.OTHER


def has_sample_rate(inputs: Sequence[GraphInput]) -> bool:
    """Returns whether an input is a sample rate, so that the model is about sound."""
    return any(is_sample_rate(graph_input.name) for graph_input in inputs)


def is_sample_rate(name: str) -> bool:
    """Returns whether an input of this name is a sample rate in Hz."""
    return bool(_SAMPLE_RATE.match(name))


def _role_by_place(
    graph_input: GraphInput, shape: Sequence[int | str | None], axis: int, *, audio: bool
) -> AxisRole:
    name, kind = graph_input.name, graph_input.dtype.kind
    if _PAST.search(name) or _STATE.search(name):
        return _role_in_state(name, shape, axis)
    is_sound = kind == "f" and len(shape) <= 2 and (audio or bool(_AUDIO.search(name)))
    if is_sound and axis == len(shape) - 1:
        return AxisRole.AUDIO
    if len(shape) == _COLOURS and _is_unbatched_image(graph_input, shape):
        return AxisRole.IMAGE_SIDE
    if axis == 0:
        return AxisRole.BATCH
    holds_pixels = kind == "f" or str(graph_input.dtype) in {"uint8", "int8"}
    if len(shape) >= _IMAGE_RANK and holds_pixels:
        return _role_in_image(shape, axis)
    return AxisRole.SEQUENCE


def _role_in_state(name: str, shape: Sequence[int | str | None], axis: int) -> AxisRole:
    # Keys and values: batch, heads, steps, width. A recurrent state: layers, batch, width.
    if _PAST.search(name) and len(shape) == _IMAGE_RANK:
        return {0: AxisRole.BATCH, 2: AxisRole.PAST}.get(axis, AxisRole.OTHER)
    return AxisRole.BATCH if axis <= 1 else AxisRole.OTHER


def _is_unbatched_image(graph_input: GraphInput, shape: Sequence[int | str | None]) -> bool:
    told = graph_input.dtype == "uint8" or bool(_IMAGE.search(graph_input.name))
    return shape[0] == _COLOURS or (told and shape[2] in _IMAGE_CHANNELS)


def _role_in_image(shape: Sequence[int | str | None], axis: int) -> AxisRole:
    channels_last = shape[-1] in _IMAGE_CHANNELS and not isinstance(shape[1], int)
    channels = len(shape) - 1 if channels_last else 1
    if axis == channels:
        return AxisRole.CHANNELS
    if len(shape) == _VIDEO_RANK and axis == (1 if channels_last else 2):
        return AxisRole.FRAMES
    return AxisRole.IMAGE_SIDE
