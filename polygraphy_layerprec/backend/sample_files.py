"""Samples from files of the user."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from polygraphy_layerprec.backend.json_files import read_polygraphy_json
from polygraphy_layerprec.execution.samples.given import SampleError
from polygraphy_layerprec.files.npz_file import NpzFile, open_npy

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from polygraphy_layerprec.files.npz_file import StoredArray
    from polygraphy_layerprec.model import GraphInput

__all__ = ["count_samples", "read_samples"]

_ENDINGS: Final = (".json", ".npy", ".npz")


def read_samples(path: str, inputs: Sequence[GraphInput]) -> Iterator[tuple[str, Any]]:
    """Yields the samples of a file, each with words that say which it is.

    An `.npz` file is one sample, an array for each input; an `.npy` file is one for a model with a
    single input. A JSON file as Polygraphy saves it holds a sample or a list of them. Of a folder
    every such file is read, ordered by name.

    Args:
        path: A file or a folder.
        inputs: What the model wants.

    Raises:
        SampleError: If a file cannot be read, or a folder holds none.
    """
    if os.path.isdir(path):
        for name in _files_in(path):
            yield from read_samples(os.path.join(path, name), inputs)
    elif path.lower().endswith(".npz"):
        yield f"sample {path}", _open_npz(path)
    elif path.lower().endswith(".npy"):
        yield f"sample {path}", _open_npy(path, inputs)
    else:
        content = _read_json(path)
        samples = content if isinstance(content, list) else [content]
        for index, sample in enumerate(samples):
            yield f"sample {index} of {path}", sample


def count_samples(path: str) -> int | None:
    """Returns how many samples a file or folder holds; None where it would have to be read."""
    if os.path.isdir(path):
        counts = [count_samples(os.path.join(path, name)) for name in _files_in(path)]
        return None if None in counts else sum(filter(None, counts))
    return 1 if path.lower().endswith((".npz", ".npy")) else None


def _files_in(folder: str) -> list[str]:
    names = sorted(name for name in os.listdir(folder) if name.lower().endswith(_ENDINGS))
    if not names:
        raise SampleError(
            f"The folder {folder!r} holds no input data.\n"
            f"Note: Files are read that end in {', '.join(_ENDINGS)}.\n"
            f"Write one for each sample, for example with `numpy.savez`."
        )
    return names


def _open_npz(path: str) -> NpzFile:
    try:
        return NpzFile(path)
    except ValueError as error:
        raise SampleError(
            f"{error}.\nWrite it with `numpy.savez`, one array for each input of the model."
        ) from error


def _open_npy(path: str, inputs: Sequence[GraphInput]) -> dict[str, StoredArray]:
    if len(inputs) != 1:
        names = ", ".join(f"{wanted.name}=..." for wanted in inputs)
        raise SampleError(
            f"{path!r} holds one array, but the model has {len(inputs)} inputs.\n"
            f"Put the arrays of a sample into one file: `numpy.savez('sample.npz', {names})`."
        )
    try:
        return {inputs[0].name: open_npy(path)}
    except ValueError as error:
        raise SampleError(f"{error}.\nWrite it with `numpy.save`.") from error


def _read_json(path: str) -> Any:
    try:
        return read_polygraphy_json(path, description="input data")
    except ValueError as error:
        raise SampleError(
            f"{path!r} holds no input data in JSON as Polygraphy saves it: {error}.\n"
            f"Write it with `polygraphy.json.save_json`, or give an `.npz` file."
        ) from error
