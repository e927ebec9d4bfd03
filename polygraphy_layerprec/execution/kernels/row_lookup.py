"""Looking up rows of a large table: only those that are asked for are read from the file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from polygraphy_layerprec.arrays import on_host
from polygraphy_layerprec.execution.kernels.node_session import tensor_of, value_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnxruntime as ort

    from polygraphy_layerprec.model import Graph, Node

__all__ = ["narrow_lookup"]

_SMALLEST_TABLE_BYTES: Final = 1 << 20
_LARGEST_SHARE: Final = 0.5


def narrow_lookup(
    graph: Graph, node: Node, ids_by_name: Callable[[str], ort.OrtValue | None]
) -> tuple[np.ndarray[Any, Any], ort.OrtValue] | None:
    """Returns smaller inputs that give the same output, or None where there are none.

    An embedding table is often the largest weight of a model, of which one sample needs a few rows.

    Args:
        graph: The model.
        node: The node.
        ids_by_name: Returns indices that are computed; None where there are none, or several.

    Returns:
        The rows that are used, in place of the table, and where they are, in place of the indices.
    """
    if node.op_type != "Gather" or node.domain or node.attributes.get("axis", 0) != 0:
        return None
    table_name, ids_name = node.inputs
    table = graph.weights.get(table_name)
    if table is None or table.nbytes < _SMALLEST_TABLE_BYTES or not table.is_plain:
        return None
    ids = ids_by_name(ids_name)
    if ids is None:
        return None
    wanted = on_host(value_of(ids))
    count = table.shape[0]
    rows, places = np.unique(wanted, return_inverse=True)
    # Indices beyond the table are the node's own business.
    if not rows.size or rows[0] < 0 or rows[-1] >= count or rows.size > _LARGEST_SHARE * count:
        return None
    return table.read_rows(rows), tensor_of(places.reshape(wanted.shape).astype(wanted.dtype))
