"""Sparse tensors with their zeros."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from onnx import TensorProto, numpy_helper

from polygraphy_layerprec.model.errors import damaged_tensor

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["dense_tensor"]

_LARGEST: Final = 1 << 28  # elements; kept in memory


def dense_tensor(
    values: npt.NDArray[Any], indices: npt.NDArray[Any], shape: tuple[int, ...], name: str
) -> TensorProto:
    """Returns a sparse tensor with its zeros, in the layout of ONNX's specification.

    Args:
        values: What is not zero, shape `(count,)`.
        indices: Where, counted over all elements, shape `(count,)`, or by axes, `(count, rank)`.
        shape: Shape of the tensor.
        name: Its name.

    Raises:
        ModelError: If these do not fit each other, or the tensor is too large.
    """
    count = math.prod(shape)
    if min(shape, default=0) < 0 or count > _LARGEST:
        raise damaged_tensor(name, f"it is sparse and of shape {list(shape)}")
    if values.ndim != 1 or indices.shape not in {values.shape, (values.size, len(shape))}:
        message = f"indices of shape {list(indices.shape)} stand for {values.size} values"
        raise damaged_tensor(name, message)
    try:
        places = np.ravel_multi_index(tuple(indices.T), shape) if indices.ndim == 2 else indices
        dense = np.zeros(count, values.dtype)
        dense[places] = values
    except (IndexError, TypeError, ValueError) as error:
        raise damaged_tensor(name, str(error)) from error
    if places.min(initial=0) < 0:
        raise damaged_tensor(name, f"an index is {places.min()}")
    made: TensorProto = numpy_helper.from_array(dense.reshape(shape), name)
    return made
