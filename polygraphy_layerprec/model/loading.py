"""From a file or a model in memory to a `Graph`."""

from __future__ import annotations

import os
import sys

import onnx
from google.protobuf.message import DecodeError

from polygraphy_layerprec.model.errors import ModelError, told_damage
from polygraphy_layerprec.model.external_data import DataFolder, data_folder_of
from polygraphy_layerprec.model.graph import Graph, build_graph
from polygraphy_layerprec.model.wire_format import read_skeleton

__all__ = ["load_graph"]

# Below this a tensor stays with the graph: kept once, it saves a read every time it is used.
_INLINE_BYTES = 4096


def load_graph(
    model: str | os.PathLike[str] | onnx.ModelProto, *, external_data_folder: str | None = None
) -> Graph:
    """Returns the graph of a model; large weights stay on disk, embedded ones included.

    Args:
        model: Path of a binary `.onnx` file, or a model in memory.
        external_data_folder: Where the files with external data are; beside the model by default.

    Raises:
        ModelError: If it is not a complete, valid ONNX model.
    """
    if isinstance(model, onnx.ModelProto):
        return _to_graph(model, "", DataFolder(external_data_folder or os.curdir))
    path = os.fspath(model)
    # Data elsewhere leaves nothing large in the file itself, which is then read whole: one graph
    # has one folder for all that stays on disk.
    proto = _read(path, _INLINE_BYTES if external_data_folder is None else sys.maxsize)
    folder = data_folder_of(path, external_data_folder)
    return _to_graph(proto, os.path.basename(path), folder)


def _read(path: str, inline_bytes: int) -> onnx.ModelProto:
    if not os.path.exists(path):
        raise ModelError(f"There is no model file {path!r}.\nGive the path of an `.onnx` file.")
    if not os.path.isfile(path):
        raise ModelError(f"{path!r} is not a file.\nGive the path of an `.onnx` file.")
    if os.path.getsize(path) == 0:
        raise ModelError(f"The model file {path!r} is empty.\nCopy or export the model again.")
    try:
        skeleton = read_skeleton(path, inline_bytes=inline_bytes)
        model: onnx.ModelProto = onnx.ModelProto.FromString(skeleton)
    except DecodeError as error:
        if "MaxDepth" in str(error):
            raise ModelError(
                f"{path!r} nests bodies in more levels than protobuf reads.\n"
                f"Export the model with fewer bodies within each other."
            ) from error
        raise ModelError(
            f"{path!r} is not an ONNX model: {error}.\nGive the path of a binary `.onnx` file."
        ) from error
    except OSError as error:
        raise ModelError(f"The model file {path!r} cannot be read: {error.strerror}.") from error
    return model


def _to_graph(proto: onnx.ModelProto, name: str, folder: DataFolder) -> Graph:
    if not proto.HasField("graph") or not proto.graph.node or not proto.opset_import:
        raise ModelError(
            f"{name or 'The model'!r} is not an ONNX model with a graph: it holds "
            f"{len(proto.graph.node)} nodes and {len(proto.opset_import)} operator sets.\n"
            f"Give the path of a binary `.onnx` file."
        )
    with told_damage(name or "The model", ValueError):
        return build_graph(proto, name=name, folder=folder)
