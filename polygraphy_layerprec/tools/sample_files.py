"""Samples from files and scripts of the user."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from polygraphy_layerprec.backend.json_files import read_polygraphy_json
from polygraphy_layerprec.tools.user_script import load_iterator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from polygraphy_layerprec.report.npz_file import NpzFile

__all__ = ["call_script", "read_samples"]


def read_samples(path: str) -> Iterator[tuple[str, Any]]:
    """Yields the samples of a file, each with words that say which it is.

    An `.npz` file is one sample, an array for each input. A JSON file as Polygraphy saves it holds
    a sample or a list of them; of a directory every JSON file is read, ordered by name.

    Raises:
        SampleError: If the file cannot be read.
    """
    if os.path.isdir(path):
        for name in sorted(os.listdir(path)):
            if name.endswith(".json"):
                yield from read_samples(os.path.join(path, name))
    elif path.lower().endswith(".npz"):
        yield f"sample {path}", _open_npz(path)
    else:
        content = _read_json(path)
        samples = content if isinstance(content, list) else [content]
        for index, sample in enumerate(samples):
            yield f"sample {index} of {path}", sample


def call_script(path: str, function_name: str) -> Iterator[tuple[str, Any]]:
    """Yields the samples that a function without arguments in a Python script returns.

    Raises:
        UserScriptError: If the script fails.
    """
    # Not `DataLoaderArgs.get_data_loader`: before Polygraphy 0.53 it silently falls back to random
    # data under Python 3.13, where `locals()` no longer shows what `exec` defined (PEP 667).
    given = load_iterator(path, function_name, option="--data-loader-script")
    for index, sample in enumerate(given):
        yield f"sample {index} of {path}", sample


def _open_npz(path: str) -> NpzFile:
    from polygraphy_layerprec.execution.samples import SampleError
    from polygraphy_layerprec.report.npz_file import NpzFile

    try:
        return NpzFile(path)
    except ValueError as error:
        raise SampleError(
            f"{error}.\nWrite it with `numpy.savez`, one array for each input of the model."
        ) from error


def _read_json(path: str) -> Any:
    from polygraphy_layerprec.execution.samples import SampleError

    try:
        return read_polygraphy_json(path, description="input data")
    except ValueError as error:
        raise SampleError(
            f"{path!r} holds no input data in JSON as Polygraphy saves it: {error}.\n"
            f"Write it with `polygraphy.json.save_json`, or give an `.npz` file."
        ) from error
