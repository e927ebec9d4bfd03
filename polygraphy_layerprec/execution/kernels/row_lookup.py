"""Looking up rows of a large table: only those that are asked for are read from the file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from polygraphy_layerprec.arrays import on_host
from polygraphy_layerprec.execution.kernels.node_session import tensor_of, value_of
from polygraphy_layerprec.execution.streams import Streams

if TYPE_CHECKING:
    from collections.abc import Mapping

    from polygraphy_layerprec.model import Graph, Node

__all__ = ["narrow_lookup"]

_SMALLEST_TABLE_BYTES: Final = 1 << 20
_LARGEST_SHARE: Final = 0.5


def narrow_lookup(
    graph: Graph, node: Node, tensors: Mapping[str, Streams]
) -> tuple[np.ndarray[Any, Any], Streams] | None:
    """Returns smaller inputs that give the same output, or None where there are none.

    An embedding table is often the largest weight of a model, of which one sample needs a few rows.

    Args:
        graph: The model.
        node: The node.
        tensors: The streams of its sources, constants excepted.

    Returns:
        The rows that are used, in place of the table, and where they are, in place of the indices.
    """
    if node.op_type != "Gather" or node.domain or node.attributes.get("axis", 0) != 0:
        return None
    table_name, ids_name = node.inputs
    table, ids = graph.weights.get(table_name), tensors.get(ids_name)
    if table is None or ids is None or table.nbytes < _SMALLEST_TABLE_BYTES:
        return None
    if not table.is_plain or not ids.shared:
        return None
    wanted = on_host(value_of(ids.reference))
    count = table.shape[0]
    rows, places = np.unique(wanted, return_inverse=True)
    # Indices beyond the table are the node's own business.
    if not rows.size or rows[0] < 0 or rows[-1] >= count or rows.size > _LARGEST_SHARE * count:
        return None
    narrowed = tensor_of(places.reshape(wanted.shape).astype(wanted.dtype))
    return table.read_rows(rows), Streams(narrowed, narrowed, narrowed)
