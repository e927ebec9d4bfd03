"""Input samples that a user gives, checked against what the model wants."""

from __future__ import annotations

import difflib
import math
import os
import shlex
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from polygraphy_layerprec.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import numpy.typing as npt

    from polygraphy_layerprec.model import GraphInput

__all__ = [
    "NO_SAMPLE",
    "LabelledSample",
    "SampleError",
    "check_fits",
    "check_sample",
    "check_samples",
    "describe_input",
    "take_labels",
]

NO_SAMPLE: Final = "The input data hold no sample.\nGive at least one."
"""What is wrong with data of no samples, and what to do."""

_MORE_THAN_ANY_MACHINE: Final = 1 << 48
_MOST_NAMES_QUOTED: Final = 20


class SampleError(UserError):
    """Input data that the model cannot take; the text says what is wrong, where, what to do."""


class LabelledSample(dict[str, "npt.NDArray[Any]"]):
    """A sample with arrays that a metric is given and the model is not: `labels`, by name."""

    def __init__(
        self, arrays: Mapping[str, npt.NDArray[Any]], labels: Mapping[str, npt.NDArray[Any]]
    ) -> None:
        """Stores both."""
        super().__init__(arrays)
        self.labels = dict(labels)


def take_labels(
    sample: Mapping[str, Any], names: Sequence[str], *, where: str
) -> Mapping[str, Any]:
    """Returns a sample whose arrays of these names are labels, and no inputs.

    Args:
        sample: Arrays by name.
        names: Which of them are labels.
        where: As for `check_sample`.

    Raises:
        SampleError: If one is missing.
    """
    if not names or not hasattr(sample, "keys"):
        return sample
    missing = [name for name in names if name not in sample.keys()]  # noqa: SIM118 - any mapping
    if missing:
        raise SampleError(
            f"{where.capitalize()} has no label {_quote(missing)}.\n"
            f"Note: The sample has: {_quote(sample.keys())}.\n"
            f"Name arrays of the samples with `--labels`."
        )
    arrays = {name: sample[name] for name in sample.keys() if name not in names}  # noqa: SIM118
    labels = {name: _to_array(sample[name], name, where) for name in names}
    return LabelledSample(arrays, labels)


def check_sample(
    sample: Mapping[str, Any], inputs: Sequence[GraphInput], *, where: str
) -> dict[str, npt.NDArray[Any]]:
    """Returns the arrays of `sample` in the order of `inputs`, once they fit, with its labels.

    Args:
        sample: Arrays by input name.
        inputs: What the model wants.
        where: Which sample this is, for messages: `sample 3 of inputs.npz`.

    Raises:
        SampleError: If a name, dtype or shape is wrong, an array is empty, or a value is NaN.
    """
    if not hasattr(sample, "keys"):
        raise SampleError(
            f"Wrong input data: {where} is a {type(sample).__name__}, not arrays by name.\n"
            f"Give a dictionary from input names to arrays for each sample."
        )
    _check_names(list(sample.keys()), inputs, where)
    checked = {wanted.name: _check_array(sample[wanted.name], wanted, where) for wanted in inputs}
    return LabelledSample(checked, sample.labels) if isinstance(sample, LabelledSample) else checked


def check_samples(
    samples: Iterable[Mapping[str, Any]], inputs: Sequence[GraphInput]
) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Yields samples that come without words of their own, each once `check_sample` let it pass.

    Raises:
        SampleError: As `check_sample`.
    """
    for index, sample in enumerate(samples):
        yield check_sample(sample, inputs, where=f"sample {index}")


def check_fits(arrays: Mapping[str, tuple[Sequence[int], int]]) -> None:
    """Checks, before anything is allocated, that a sample leaves room to run a model on it.

    Args:
        arrays: Shape and bytes per element of each array, by input.

    Raises:
        SampleError: If they take more than half of all memory, where the largest is named, or one
            has more axes than numpy's arrays may.
    """
    for name, (shape, _) in arrays.items():
        _check_axes(name, shape)
    sizes = {name: math.prod(shape) * itemsize for name, (shape, itemsize) in arrays.items()}
    total, memory = sum(sizes.values()), _memory_bytes()
    if total > memory / 2:
        name = max(sizes, key=sizes.__getitem__)
        raise SampleError(
            f"The input {name!r} is too large: {list(arrays[name][0])} takes "
            f"{sizes[name] / 2**30:.3g} GiB, and all inputs {total / 2**30:.3g} GiB.\n"
            f"Note: This machine has {memory / 2**30:.3g} GiB of memory, and running the model "
            f"takes a multiple.\n"
            f"Give smaller shapes with `--input-shapes`, or export the model with smaller ones."
        )


def _check_axes(name: str, shape: Sequence[int]) -> None:
    try:
        np.empty((0,) * len(shape))
    except ValueError as error:
        raise SampleError(
            f"The input {name!r} has {len(shape)} axes, which is too many: {error}.\n"
            f"Export the model with fewer."
        ) from error


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on every platform
        return _MORE_THAN_ANY_MACHINE


def describe_input(wanted: GraphInput) -> str:
    """Returns an input in words: `input_ids: int64 [batch, 128]`, unknown extents as `?`."""
    if wanted.shape is None:
        return f"{wanted.name}: {wanted.dtype} of any shape"
    extents = ", ".join("?" if extent is None else str(extent) for extent in wanted.shape)
    return f"{wanted.name}: {wanted.dtype} [{extents}]"


def _check_names(given: Sequence[str], inputs: Sequence[GraphInput], where: str) -> None:
    wanted = [graph_input.name for graph_input in inputs]
    missing = [name for name in wanted if name not in given]
    unknown = [name for name in given if name not in wanted]
    if not missing and not unknown:
        return
    problem = (
        f"has no array for the model's input {_quote(missing)}"
        if missing
        else f"has an array for {_quote(unknown)}, which is no input of the model"
    )
    guess = difflib.get_close_matches(missing[0], unknown, 1) if missing else []
    hint = f" Is {guess[0]!r} meant to be {missing[0]!r}?" if guess else ""
    if not missing:
        hint = (
            f"\nIf {_quote(unknown)} {'is' if len(unknown) == 1 else 'are'} for a metric and not "
            f"for the model, name it: --labels {' '.join(map(shlex.quote, unknown))}."
        )
    raise SampleError(
        f"Wrong input name: {where} {problem}.\n"
        f"Note: The sample has: {_quote(given)}. "
        f"The model wants: {'; '.join(map(describe_input, inputs))}.\n"
        f"Give one array for each input of the model, under its name.{hint}"
    )


def _check_array(value: Any, wanted: GraphInput, where: str) -> npt.NDArray[Any]:
    # What is still in a file says what it is before it is read.
    is_array = isinstance(getattr(value, "dtype", None), np.dtype)
    claims = value if is_array else _to_array(value, wanted.name, where)
    found = f"{claims.dtype} {list(claims.shape)}"
    note = f"Note: The model wants: {describe_input(wanted)}. {where.capitalize()} has: {found}."
    if not _same_dtype(claims.dtype, wanted.dtype):
        raise SampleError(
            f"Wrong dtype of input {wanted.name!r} in {where}.\n{note}\n"
            f"Convert it, for example with `.astype({str(wanted.dtype)!r})`."
        )
    if wanted.shape is not None and not _fits(claims.shape, wanted.shape):
        raise SampleError(
            f"Wrong shape of input {wanted.name!r} in {where}.\n{note}\n"
            f"Give arrays of the model's shape; a sample includes the batch axis."
        )
    if 0 in claims.shape:
        raise SampleError(
            f"Input {wanted.name!r} in {where} has no elements.\n{note}\n"
            f"Give at least one element, or leave the sample out."
        )
    array = _to_array(claims, wanted.name, where)
    nan_count = _count_nan(array)
    if nan_count:
        raise SampleError(
            f"NaN in input {wanted.name!r} of {where}: {nan_count} of {array.size} elements.\n"
            f"{note}\nEvery output would be NaN: remove or correct the sample."
        )
    return array


def _to_array(value: Any, name: str, where: str) -> npt.NDArray[Any]:
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:  # rows of different lengths, for example
        raise SampleError(
            f"Input {name!r} in {where} is not an array: {error}.\n"
            f"Give numbers in rows of equal length, best as an array of numpy's."
        ) from error


def _same_dtype(given: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    # Text comes as fixed-width or object arrays, and ONNX-Runtime takes both.
    return given == wanted or (wanted.kind in "OSU" and given.kind in "OSU")


def _fits(given: Sequence[int], wanted: Sequence[int | str | None]) -> bool:
    return len(given) == len(wanted) and all(
        extent == fixed
        for extent, fixed in zip(given, wanted, strict=True)
        if isinstance(fixed, int)
    )


def _count_nan(array: npt.NDArray[Any]) -> int:
    if array.dtype.kind in "biuOSU":
        return 0
    # `!=` works for the types of ml_dtypes as well, on which `isnan` may not be defined.
    return int(np.count_nonzero(array != array))  # noqa: PLR0124 - true for NaN alone


def _quote(names: Iterable[str]) -> str:
    quoted = [repr(name) for name in names]
    more = len(quoted) - _MOST_NAMES_QUOTED
    shown = ", ".join(quoted[:_MOST_NAMES_QUOTED]) or "nothing"
    return f"{shown} and {more} more" if more > 0 else shown
