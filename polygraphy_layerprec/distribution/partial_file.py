"""Partial rankings as files: NPZ without pickle, a record in JSON among the arrays."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NoReturn

import numpy as np
from numpy.lib import format as npy

from polygraphy_layerprec.distribution.observed_arrays import (
    ObservedRecord,
    comparison_from,
    observed_arrays,
    observed_record,
)
from polygraphy_layerprec.distribution.part import Part, PartConditions, Shard
from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.execution.samples.given import check_sample
from polygraphy_layerprec.files.atomic_file import write_file
from polygraphy_layerprec.files.npz_file import NpzFile
from polygraphy_layerprec.files.record_codec import from_json_value, to_json_value

if TYPE_CHECKING:
    from polygraphy_layerprec.execution.comparison.side_by_side import Comparison
    from polygraphy_layerprec.model import Graph, GraphInput

__all__ = ["PARTIAL_VERSION", "PartialFile", "open_partial", "save_partial"]

PARTIAL_VERSION: Final = 1
"""Version of the layout."""

_RECORD: Final = "record"
_LARGEST_RECORD_BYTES: Final = 1 << 28


@dataclass(frozen=True, slots=True)
class _Record:
    shard: Shard
    conditions: PartConditions
    observed: ObservedRecord
    id_samples: tuple[int, ...]
    lost_samples: tuple[int, ...]


def save_partial(part: Part, path: str, graph: Graph) -> None:
    """Writes a part to `path`; the same part gives the same bytes.

    The file appears complete or not at all.

    Args:
        part: What is written.
        path: The file.
        graph: The model, whose inputs the samples are for.

    Raises:
        UserError: If `path` cannot be written.
        OSError: If writing fails half-way.
    """
    kept = part.comparison
    record = _Record(
        part.shard,
        part.conditions,
        observed_record(kept),
        tuple(kept.id_samples),
        tuple(kept.lost_samples),
    )
    content = {"partial_version": PARTIAL_VERSION, **to_json_value(record)}
    text = json.dumps(content, allow_nan=False).encode()
    arrays = {_RECORD: np.frombuffer(text, np.uint8), **observed_arrays(kept)}
    for index, sample in {**kept.id_samples, **kept.lost_samples}.items():
        for place, wanted in enumerate(graph.inputs):
            arrays[_sample_name(index, place)] = _storable(np.asarray(sample[wanted.name]))
    write_file(path, lambda file: _write_arrays(file, arrays))


def _write_arrays(file: BinaryIO, arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
    # Not `np.savez`: before 2.1 it pickles what is no plain array.
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                npy.write_array(member, array, allow_pickle=False)


class PartialFile:
    """A part on file: how it was measured is read at once, what was measured with the model."""

    def __init__(self, path: str) -> None:
        """Reads the record.

        Raises:
            UserError: If the file is none of a part, or of another version; the text names it.
            OSError: If it cannot be read.
        """
        self.path = path
        try:
            self._arrays = NpzFile(path)
            self._record = _read_record(self._arrays)
        except RecursionError as error:
            raise _unreadable(path, "its brackets are nested too deeply") from error
        except ValueError as error:  # JSON and Unicode errors as well
            raise _unreadable(path, str(error)) from error

    @property
    def shard(self) -> Shard:
        """Which part it is."""
        return self._record.shard

    @property
    def conditions(self) -> PartConditions:
        """How it was measured."""
        return self._record.conditions

    def read(self, nothing: Comparison, graph: Graph) -> Comparison:
        """Returns what its samples said.

        Args:
            nothing: What no sample says; it is filled.
            graph: The model that was measured.

        Raises:
            UserError: If a number or a sample is wrong; the text names the file.
        """
        record = self._record
        try:
            found = comparison_from(
                record.observed, self._arrays, nothing, node_count=len(graph.nodes)
            )
            _check_samples(found, record)
            found.id_samples = self._samples(record.id_samples, graph.inputs)
            found.lost_samples = self._samples(record.lost_samples, graph.inputs)
        except ValueError as error:
            raise _unreadable(self.path, str(error)) from error
        return found

    def _samples(
        self, indices: tuple[int, ...], inputs: tuple[GraphInput, ...]
    ) -> dict[int, Mapping[str, np.ndarray[Any, Any]]]:
        return {
            index: check_sample(
                {
                    wanted.name: _restored(self._arrays, _sample_name(index, place), wanted)
                    for place, wanted in enumerate(inputs)
                },
                inputs,
                where=f"sample {index}",
            )
            for index in indices
        }


def open_partial(path: str | os.PathLike[str]) -> PartialFile:
    """Returns the part that `save_partial` wrote; as the constructor of `PartialFile`."""
    return PartialFile(os.fspath(path))


def _read_record(arrays: NpzFile) -> _Record:
    stored = arrays.get(_RECORD)
    if stored is None or stored.dtype != np.uint8 or len(stored.shape) != 1:
        raise UserError("it holds no record of what was measured")
    if stored.shape[0] > _LARGEST_RECORD_BYTES:
        raise UserError(f"its record has {stored.shape[0]} bytes")
    text = np.asarray(stored).tobytes().decode()
    content = json.loads(text, parse_constant=_reject_constant)
    if not isinstance(content, dict):
        raise UserError("its record is no JSON object")
    version = content.get("partial_version")
    if version != PARTIAL_VERSION:
        raise UserError(
            f"its partial_version is {version!r:.60}, this program reads {PARTIAL_VERSION}"
        )
    record = from_json_value(_Record, content)
    if record.shard.count != record.conditions.shard_count:
        raise UserError(f"it is shard {record.shard} of {record.conditions.shard_count}")
    return record


def _check_samples(found: Comparison, record: _Record) -> None:
    """Checks that all samples of the shard are there, and no others."""
    size = record.conditions.data_set_size
    held = range(record.shard.number - 1, size, record.shard.count)
    samples = found.observations.samples
    # The number first: what a file claims to be the size of a data set may be any.
    if not len(samples) == found.sample_count == len(held) or samples != set(held):
        raise UserError(
            f"it does not hold the {len(held)} samples of shard {record.shard} of {size}"
        )
    for index in (*record.id_samples, *record.lost_samples):
        if index not in held:
            raise UserError(f"it keeps the sample {index}, which is none of the shard's")


def _sample_name(index: int, place: int) -> str:
    return f"sample{index}.input{place}"


def _storable(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The values in a type that files have: text of one width, BF16 and its like as their bits."""
    if values.dtype.kind == "O":
        return values.astype(str)
    if values.dtype.kind == "V" or values.dtype.isbuiltin != 1:
        return values.view(np.dtype(f"u{values.dtype.itemsize}"))
    return values


def _restored(arrays: NpzFile, name: str, wanted: GraphInput) -> Any:
    stored = arrays.get(name)
    if stored is None:
        raise UserError(f"{name} is missing")
    if stored.dtype != wanted.dtype and stored.dtype == np.dtype(f"u{wanted.dtype.itemsize}"):
        return np.asarray(stored).view(wanted.dtype)
    return stored


def _reject_constant(token: str) -> NoReturn:
    raise UserError(f"{token} is not a finite number")


def _unreadable(path: str, reason: str) -> UserError:
    return UserError(
        f"{path!r} is not a partial ranking that can be read: {reason.rstrip('.')}.\n"
        f"Save one with `polygraphy layerprec rank MODEL --shard 1/4 --save-partial FILE.npz`."
    )
