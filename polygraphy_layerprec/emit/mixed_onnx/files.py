"""Lowering from file to file, one weight at a time."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO

import onnx
from google.protobuf.message import DecodeError

from polygraphy_layerprec.emit.mixed_onnx.detached import TensorStore, detach, iterate_tensors
from polygraphy_layerprec.emit.mixed_onnx.lowering import lower_detached, with_counts
from polygraphy_layerprec.emit.mixed_onnx.restoring import restore_inline, restore_to_file
from polygraphy_layerprec.emit.mixed_onnx.weights import (
    ConversionCounts,
    is_external,
    stored_size,
)
from polygraphy_layerprec.model.errors import told_damage
from polygraphy_layerprec.model.external_data import data_folder_of
from polygraphy_layerprec.precision import FP16, Precision
from polygraphy_layerprec.report.atomic_file import write_files

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from onnx import ModelProto, TensorProto

    from polygraphy_layerprec.emit.mixed_onnx.summary import LoweringSummary

__all__ = ["save_mixed_onnx"]

_SMALLEST_EXTERNAL_BYTES = 1024  # padding would outweigh anything smaller
_EXTERNAL_THRESHOLD_BYTES = 1_500_000_000  # a protobuf message ends at 2 GiB


def save_mixed_onnx(
    model_path: str,
    output_path: str,
    fp32_outputs: Collection[str],
    *,
    precision: Precision = FP16,
    io_precision: str = "fp32",
    external_data_folder: str | None = None,
    external_threshold_bytes: int = _EXTERNAL_THRESHOLD_BYTES,
) -> LoweringSummary:
    """Writes the lowered form of a model file and returns what was done; see `lower_model`.

    Weights are read, converted and written one at a time. They go to `<output_path>.data` if the
    model had external data, or if they are larger than the threshold. Existing files of these
    names are replaced once the new ones are complete.

    Args:
        model_path: The FP32 model; it and its data files are never changed.
        output_path: The file to write.
        fp32_outputs: As for `lower_model`.
        precision: As for `lower_model`.
        io_precision: As for `lower_model`.
        external_data_folder: Where the model's data files are; beside it by default.
        external_threshold_bytes: Size of all weights above which they go to their own file.

    Raises:
        ValueError: As `lower_model`, if the output would replace the input or one of its data
            files, or if external data cannot be read.
        OSError: If a file cannot be read or written.
    """
    model = _load(model_path)
    folder = data_folder_of(model_path, external_data_folder)
    data_path = f"{output_path}.data"
    external = [tensor for tensor in iterate_tensors(model) if is_external(tensor)]
    _refuse_overwriting((output_path, data_path), _input_paths(model_path, folder.path, external))
    store = TensorStore(folder)
    with told_damage(model_path):
        lowered, summary = lower_detached(
            detach(model, store),
            fp32_outputs,
            precision=precision,
            io_precision=io_precision,
            store=store,
        )
    size_bytes = sum(stored_size(tensor) for tensor in _stubs(lowered, store))
    separate = bool(external) or size_bytes > external_threshold_bytes
    counts = _replace_files(
        lowered, output_path, data_path if separate else None, precision=precision, store=store
    )
    return with_counts(summary, counts)


def _load(path: str) -> ModelProto:
    with told_damage(path, DecodeError):
        model: ModelProto = onnx.load(path, load_external_data=False)
        return model


def _input_paths(model_path: str, folder: str, external: Iterable[TensorProto]) -> set[str]:
    locations = {
        entry.value
        for tensor in external
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return {model_path} | {os.path.join(folder, location) for location in locations}


def _refuse_overwriting(written: Iterable[str], read: Iterable[str]) -> None:
    kept = {os.path.realpath(path): path for path in sorted(read)}
    for path in written:
        kept_path = kept.get(os.path.realpath(path))
        if kept_path is not None:
            raise ValueError(
                f"the output must not replace a file of the input, got {path!r} for {kept_path!r}"
            )


def _stubs(model: ModelProto, store: TensorStore) -> list[TensorProto]:
    return [t for t in iterate_tensors(model) if store.original(t) is not None]


def _replace_files(
    model: ModelProto,
    output_path: str,
    data_path: str | None,
    *,
    precision: Precision,
    store: TensorStore,
) -> ConversionCounts:
    counts = ConversionCounts()

    def write_data(file: BinaryIO) -> None:
        nonlocal counts
        for tensor in iterate_tensors(model):
            if data_path is None or stored_size(tensor) < _SMALLEST_EXTERNAL_BYTES:
                counts += restore_inline(tensor, precision, store)
                continue
            location = os.path.basename(data_path)
            counts += restore_to_file(tensor, file, location, precision=precision, store=store)

    def write_model(file: BinaryIO) -> None:
        if data_path is None:
            write_data(file)
        file.write(model.SerializeToString())

    data = {} if data_path is None else {data_path: write_data}
    write_files({**data, output_path: write_model})  # the data first: the model says where
    return counts
