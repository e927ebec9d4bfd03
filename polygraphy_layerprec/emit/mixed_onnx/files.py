"""Lowering from file to file, one weight at a time."""

from __future__ import annotations

import glob
import hashlib
import os
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

from onnx import TensorProto

from polygraphy_layerprec.emit.mixed_onnx.lowering import lower_graph, with_counts
from polygraphy_layerprec.emit.mixed_onnx.weights import ConversionCounts
from polygraphy_layerprec.errors import UserError
from polygraphy_layerprec.files.atomic_file import write_files
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.model.errors import told_damage
from polygraphy_layerprec.precision import FP16, Precision

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from onnx import ModelProto

    from polygraphy_layerprec.emit.mixed_onnx.summary import LoweringSummary
    from polygraphy_layerprec.emit.mixed_onnx.weights import PendingWeight
    from polygraphy_layerprec.model import Graph

__all__ = [
    "EXTERNAL_THRESHOLD_BYTES",
    "has_external_data",
    "refuse_overwriting",
    "save_mixed_onnx",
    "write_model_files",
]

_SMALLEST_EXTERNAL_BYTES = 1024  # padding would outweigh anything smaller
EXTERNAL_THRESHOLD_BYTES = 1_500_000_000  # a protobuf message ends at 2 GiB
_ALIGNMENT_BYTES = 4096  # lets a runtime map a weight into memory
_DIGEST_CHARACTERS = 16


def save_mixed_onnx(
    model_path: str,
    output_path: str,
    fp32_outputs: Collection[str],
    *,
    precision: Precision = FP16,
    io_precision: str = "fp32",
    external_data_folder: str | None = None,
    external_threshold_bytes: int = EXTERNAL_THRESHOLD_BYTES,
) -> LoweringSummary:
    """Writes the lowered form of a model file and returns what was done; see `lower_model`.

    Weights are read, converted and written one at a time. They go to `<output_path>.<digest>.data`
    if the model had external data, or if they are larger than the threshold: named by its
    content, new data never replaces old data before the new model does. Data of a model that was
    replaced are removed.

    Args:
        model_path: The FP32 model; it and its data files are never changed.
        output_path: The file to write.
        fp32_outputs: As for `lower_model`.
        precision: As for `lower_model`.
        io_precision: As for `lower_model`.
        external_data_folder: Where the model's data files are; beside it by default.
        external_threshold_bytes: Size of all weights above which they go to their own file.

    Raises:
        UserError: As `lower_model`, if the output would replace the input or one of its data
            files, or if external data cannot be read.
        OSError: If a file cannot be read or written.
    """
    graph = load_graph(model_path, external_data_folder=external_data_folder)
    read = {weight.path for weight in graph.weights.values() if weight.path is not None}
    refuse_overwriting([output_path], {os.fspath(model_path), *read})
    with told_damage(model_path):
        lowered, summary, pending = lower_graph(
            graph, fp32_outputs, precision=precision, io_precision=io_precision
        )
    size_bytes = sum(weight.stored_bytes for weight in pending)
    separate = has_external_data(graph, model_path) or size_bytes > external_threshold_bytes
    counts = write_model_files(lowered, pending, output_path, separate=separate, kept=read)
    return with_counts(summary, counts)


def has_external_data(graph: Graph, model_path: str) -> bool:
    """Whether weights of a model lie in other files than its own."""
    own = os.path.realpath(model_path)
    paths = {weight.path for weight in graph.weights.values() if weight.path is not None}
    return any(os.path.realpath(path) != own for path in paths)


def refuse_overwriting(written: Iterable[str], read: Iterable[str]) -> None:
    """Raises ValueError if a file that is written is one of those that are read."""
    kept = {os.path.realpath(path): path for path in sorted(read)}
    for path in written:
        kept_path = kept.get(os.path.realpath(path))
        if kept_path is not None:
            raise UserError(
                f"the output must not replace a file of the input, got {path!r} for {kept_path!r}"
            )


def write_model_files(
    model: ModelProto,
    pending: Sequence[PendingWeight],
    output_path: str,
    *,
    separate: bool,
    kept: Collection[str],
) -> ConversionCounts:
    """Writes a model whose weights are still to be read, and returns what became of their values.

    Args:
        model: The model, with a tensor for each of the weights.
        pending: The weights.
        output_path: The file to write.
        separate: Whether weights go to a file of their own.
        kept: Files that are never replaced or removed.

    Raises:
        UserError: If one of those would be replaced.
        OSError: If a file cannot be read or written.
    """
    counts = ConversionCounts()
    data_path: str | None = None

    def write_data(file: BinaryIO) -> str:
        nonlocal counts, data_path
        counts, digest = _write_data(pending, file, os.path.basename(output_path))
        data_path = f"{output_path}.{digest}.data"
        refuse_overwriting([data_path], kept)
        return data_path

    def write_model(file: BinaryIO) -> None:
        nonlocal counts
        if not separate:
            counts = sum((weight.fill_inline() for weight in pending), ConversionCounts())
        file.write(model.SerializeToString())

    data = {f"{output_path}.data": write_data} if separate else {}
    write_files({**data, output_path: write_model})  # the data first: the model says where
    _remove_old_data(output_path, data_path, kept)
    return counts


def _write_data(
    pending: Sequence[PendingWeight], file: BinaryIO, name: str
) -> tuple[ConversionCounts, str]:
    counts, digest = ConversionCounts(), hashlib.sha256()
    places = []
    for weight in pending:
        if weight.is_text or weight.stored_bytes < _SMALLEST_EXTERNAL_BYTES:
            counts += weight.fill_inline()
            continue
        file.write(bytes(-file.tell() % _ALIGNMENT_BYTES))
        offset = file.tell()
        for piece, piece_counts in weight.pieces():
            file.write(piece)
            digest.update(piece)
            counts += piece_counts
        places.append((weight.tensor, offset, file.tell() - offset))
    short = digest.hexdigest()[:_DIGEST_CHARACTERS]
    for tensor, offset, length in places:
        tensor.data_location = TensorProto.EXTERNAL
        location = f"{name}.{short}.data"
        for key, value in (("location", location), ("offset", offset), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
    return counts, short


def _remove_old_data(output_path: str, data_path: str | None, kept: Collection[str]) -> None:
    """Data that belonged to the model that was replaced, and to none that was read."""
    in_use = {os.path.realpath(path) for path in kept}
    pattern = f"{glob.escape(output_path)}.{'[0-9a-f]' * _DIGEST_CHARACTERS}.data"
    for path in glob.glob(pattern):
        if path != data_path and os.path.realpath(path) not in in_use:
            with suppress(OSError):
                os.remove(path)
