"""Rules of attention and of rotary position embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np

from polygraphy_layerprec.arrays import namespace_of
from polygraphy_layerprec.divergence.rules.chain import sum_to
from polygraphy_layerprec.divergence.rules.registry import (
    Application,
    Array,
    Gradients,
    Reads,
    rule,
    single_output_rule,
)

__all__: list[str] = []

_QUERY, _KEY, _VALUE, _MASK, _PAST_KEY, _PAST_VALUE, _KEY_LENGTHS = range(7)
_SPLIT_RANK = 4


@rule("Attention", since=23, reads_inputs=Reads.ALL)
def _attention(application: Application, output_gradients: Gradients) -> Gradients:
    """ONNX Attention: Y = P V, P = softmax(cap(s Q K^T) + bias).

    So dV = P^T G, dP = G V^T, dS = P (dP - sum(dP P)) cap', dQ = s dS K, dK = s dS^T Q.
    """
    by_output, by_key, by_value, by_scores = (*output_gradients, None, None, None, None)[:4]
    if by_scores is not None:
        return ()
    heads = _Heads.of(application)
    results: list[Array | None] = [None] * len(application.input_shapes)
    if by_output is not None:
        by_query, key_part, value_part, mask_part = _through_softmax(application, heads, by_output)
        results[_QUERY] = _joined(by_query, application.input_shape(_QUERY))
        by_key = key_part if by_key is None else by_key + key_part
        by_value = value_part if by_value is None else by_value + value_part
        if _MASK in application.wanted:
            mask_shape = application.input_shape(_MASK)
            results[_MASK] = sum_to(mask_part[..., : mask_shape[-1]], mask_shape)
    for present, current, past in (
        (by_key, _KEY, _PAST_KEY),
        (by_value, _VALUE, _PAST_VALUE),
    ):
        if present is None:
            continue
        kept = application.input_shape(past)[2] if application.has_input(past) else 0
        results[current] = _joined(present[:, :, kept:], application.input_shape(current))
        if kept:
            results[past] = present[:, :, :kept]
    return results


@single_output_rule("RotaryEmbedding", since=23, reads_inputs=Reads.OTHERS)
def _rotary_embedding(application: Application, gradient: Array) -> Gradients:
    """ONNX RotaryEmbedding: rotates pairs of elements, so dx rotates those of g back."""
    attributes = application.attributes
    shape = gradient.shape
    cosine, sine = application.input(1), application.input(2)
    if application.has_input(3):
        cosine, sine = cosine[application.input(3)], sine[application.input(3)]
    # Heads come before the sequence in four dimensions, and after it in three.
    head_axis = 1 if len(shape) == _SPLIT_RANK else 2
    cosine, sine = np.expand_dims(cosine, head_axis), np.expand_dims(sine, head_axis)
    if len(shape) != _SPLIT_RANK:
        gradient = gradient.reshape(*shape[:2], attributes["num_heads"], -1)
    result = gradient.copy()
    rotated = 2 * cosine.shape[-1]
    if attributes.get("interleaved", 0):
        first, second = slice(0, rotated, 2), slice(1, rotated, 2)
    else:
        first, second = slice(0, rotated // 2), slice(rotated // 2, rotated)
    real, imaginary = gradient[..., first], gradient[..., second]
    result[..., first] = cosine * real + sine * imaginary
    result[..., second] = cosine * imaginary - sine * real
    return [result.reshape(shape)]


@dataclass(frozen=True, slots=True)
class _Heads:
    """The operands of attention, with heads split and the cache joined on."""

    query: Array
    """Shape `(batch, query heads, queries, size)`."""

    key: Array
    """Shape `(batch, key heads, keys, size)`."""

    value: Array
    """Shape `(batch, key heads, keys, value size)`."""

    scale: float
    """Factor of the scores."""

    @classmethod
    def of(cls, application: Application) -> _Heads:
        """Returns the operands of one node."""
        count = application.attributes.get
        query = _split(application.input(_QUERY), count("q_num_heads", 0))
        key = _split(application.input(_KEY), count("kv_num_heads", 0))
        value = _split(application.input(_VALUE), count("kv_num_heads", 0))
        if application.has_input(_PAST_KEY):
            key = np.concatenate([application.input(_PAST_KEY), key], axis=2)
            value = np.concatenate([application.input(_PAST_VALUE), value], axis=2)
        return cls(query, key, value, count("scale") or 1 / sqrt(query.shape[-1]))

    def by_key_head(self, values: Array) -> Array:
        """Returns values for each query head, `(batch, key heads, rows of all its heads, ...)`."""
        return values.reshape(*self.key.shape[:2], -1, values.shape[-1])


def _through_softmax(
    application: Application, heads: _Heads, gradient: Array
) -> tuple[Array, Array, Array, Array]:
    """Returns the gradients at the split query, key and value, and at the bias."""
    query, key = heads.by_key_head(heads.query), heads.key
    scores = (query @ key.swapaxes(-1, -2)) * heads.scale
    scores = scores.reshape(*heads.query.shape[:3], key.shape[2])
    softcap = application.attributes.get("softcap", 0.0)
    capped = np.tanh(scores / softcap) if softcap else None
    biased = scores if capped is None else softcap * capped
    weights = _softmax(biased + _bias(application, heads))
    by_output = _split(gradient, heads.query.shape[1])
    by_output = heads.by_key_head(by_output)
    by_value = heads.by_key_head(weights).swapaxes(-1, -2) @ by_output
    by_weights = (by_output @ heads.value.swapaxes(-1, -2)).reshape(weights.shape)
    by_weights *= weights
    by_bias = by_weights - weights * by_weights.sum(axis=-1, keepdims=True)
    by_scores = by_bias if capped is None else by_bias * (1 - capped * capped)
    by_scores = heads.by_key_head(by_scores) * heads.scale
    by_query = (by_scores @ key).reshape(heads.query.shape)
    return by_query, by_scores.swapaxes(-1, -2) @ query, by_value, by_bias


def _bias(application: Application, heads: _Heads) -> Array:
    """Returns what is added to the scores: the mask, causality, windows and padding."""
    queries, keys = heads.query.shape[2], heads.key.shape[2]
    minus_infinity, zero = heads.query.dtype.type(-np.inf), heads.query.dtype.type(0)
    attributes = application.attributes
    xp = namespace_of(heads.query)
    offset = xp.zeros((1, 1, 1, 1), np.int64)
    if application.has_input(_PAST_KEY):
        offset += application.input_shape(_PAST_KEY)[2]
    allowed = xp.ones((1, 1, queries, keys), bool)
    if application.has_input(_KEY_LENGTHS):
        lengths = xp.asarray(application.input(_KEY_LENGTHS)).reshape(-1, 1, 1, 1)
        allowed = allowed & (xp.arange(keys) < lengths)
        offset = lengths - queries
    ahead = xp.arange(keys) - xp.arange(queries)[:, None] - offset
    if attributes.get("is_causal", 0):
        allowed = allowed & (ahead <= 0)
    left, right = (attributes.get(f"{side}_window_size", -1) for side in ("left", "right"))
    if left >= 0:
        allowed = allowed & (-ahead <= left)
    if right >= 0:
        allowed = allowed & (ahead <= right)
    bias: Array = np.where(allowed, zero, minus_infinity)
    if not application.has_input(_MASK):
        return bias
    mask = xp.asarray(application.input(_MASK))
    if mask.dtype == np.bool_:
        mask = np.where(mask, zero, minus_infinity)
    if mask.shape[-1] < keys:
        missing = xp.full((*mask.shape[:-1], keys - mask.shape[-1]), minus_infinity)
        mask = np.concatenate([mask, missing], axis=-1)
    masked: Array = bias + mask
    return masked


def _softmax(scores: Array) -> Array:
    largest = scores.max(axis=-1, keepdims=True)
    # A row in which nothing is allowed has no weights at all.
    largest[np.isneginf(largest)] = 0
    weights: Array = np.exp(scores - largest)
    total = weights.sum(axis=-1, keepdims=True)
    total[total == 0] = 1
    weights /= total
    return weights


def _split(values: Array, heads: int) -> Array:
    """Returns `(batch, heads, sequence, size)` from that or `(batch, sequence, heads * size)`."""
    if values.ndim == _SPLIT_RANK:
        return values
    return np.swapaxes(values.reshape(*values.shape[:2], heads, -1), 1, 2)


def _joined(values: Array, shape: tuple[int, ...]) -> Array:
    """Undoes `_split` for an input of `shape`."""
    return values if len(shape) == _SPLIT_RANK else values.swapaxes(1, 2).reshape(shape)
