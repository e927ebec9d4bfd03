"""Writes an ONNX model node by node; external weights go to disk as they are made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    import numpy.typing as npt
    from typing_extensions import Self

__all__ = ["GraphWriter"]

_OPSET = 17
_IR_VERSION = 8
_ALIGNMENT_BYTES = 4096  # what a memory-mapped reader needs


class GraphWriter:
    """Nodes and weights of one model; a context manager that writes the file at its end.

    Every node writes one tensor, named after the node unless said otherwise.
    """

    def __init__(self, path: Path, *, external: bool, seed: int = 0) -> None:
        """Starts a model.

        Args:
            path: File to write. External weights go to the same name with `.data` appended.
            external: Whether weights of 1 KiB and more go to their own file, and at once.
            seed: Seed of all random weights.
        """
        self._path = path
        self._data = (path.parent / f"{path.name}.data").open("wb") if external else None
        self._random = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def __enter__(self) -> Self:
        """Returns the writer itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Writes the model, unless building it failed."""
        if self._data is not None:
            self._data.close()
        if error is None:
            self._path.write_bytes(self._model().SerializeToString())

    def input(self, name: str, dtype: npt.DTypeLike, shape: Sequence[int]) -> str:
        """Declares a graph input and returns its name."""
        self._inputs.append(_declaration(name, dtype, shape))
        return name

    def output(self, name: str, shape: Sequence[int]) -> None:
        """Declares the float32 tensor `name` as a graph output."""
        self._outputs.append(_declaration(name, np.float32, shape))

    def add(
        self,
        operator: str,
        inputs: Sequence[str],
        name: str,
        *,
        output: str | None = None,
        **attributes: object,
    ) -> str:
        """Adds a node and returns the name of its output."""
        result = output or f"{name}_output_0"
        node = helper.make_node(operator, inputs, [result], name=name)
        made = (helper.make_attribute(key, attributes[key]) for key in sorted(attributes))
        node.attribute.extend(made)
        self._nodes.append(node)
        return result

    def random_weight(self, name: str, shape: Sequence[int], spread: float) -> str:
        """Adds a float32 weight of N(0, spread²) numbers and returns its name."""
        values = self._random.standard_normal(shape, dtype=np.float32)
        values *= np.float32(spread)
        return self.weight(name, values)

    def scalar(self, value: float) -> str:
        """Adds a float32 weight of rank 0, shared by all that ask for it, and returns its name."""
        return self.weight(f"constant_{value:g}", np.array(value, np.float32))

    def weight(self, name: str, values: npt.NDArray[np.generic]) -> str:
        """Adds a weight, once per name, and returns its name."""
        if name not in self._weights:
            self._weights[name] = self._stored(name, values)
        return name

    def _stored(self, name: str, values: npt.NDArray[np.generic]) -> onnx.TensorProto:
        if self._data is None or values.nbytes < 1024:
            return numpy_helper.from_array(values, name)
        offset = -(-self._data.tell() // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
        self._data.seek(offset)
        self._data.write(np.ascontiguousarray(values).data)
        tensor = TensorProto(
            name=name,
            data_type=helper.np_dtype_to_tensor_dtype(values.dtype),
            dims=values.shape,
            data_location=TensorProto.EXTERNAL,
        )
        location = {"location": self._data_name(), "offset": offset, "length": values.nbytes}
        tensor.external_data.extend(_entries(location))
        return tensor

    def _data_name(self) -> str:
        return f"{self._path.name}.data"

    def _model(self) -> onnx.ModelProto:
        weights = list(self._weights.values())
        graph = helper.make_graph(
            self._nodes, self._path.stem, self._inputs, self._outputs, weights
        )
        opsets = [helper.make_opsetid("", _OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)


def _declaration(name: str, dtype: npt.DTypeLike, shape: Sequence[int]) -> onnx.ValueInfoProto:
    element_type = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, element_type, shape)


def _entries(values: Mapping[str, object]) -> list[onnx.StringStringEntryProto]:
    return [onnx.StringStringEntryProto(key=key, value=str(value)) for key, value in values.items()]
