"""Gains of nodes that take or make integers which stand for floats, or round to integers.

An error below one step changes no integer, so a run of the node says nothing of it: the rule for
gradients does, by which quantization is the straight line through its steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from polygraphy_layerprec.arrays import library_of, namespace_of
from polygraphy_layerprec.divergence.rules import Application, find_rule
from polygraphy_layerprec.execution.kernels.node_session import value_of
from polygraphy_layerprec.execution.streams import shape_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt
    import onnxruntime as ort

    from polygraphy_layerprec.execution.probes.error_paths import NodePaths
    from polygraphy_layerprec.model import Node

__all__ = ["gains_by_rule"]

_QUANTIZED: Final = ("int", "float8", "float4")


def gains_by_rule(
    node: Node, paths: NodePaths, tensors: Mapping[str, ort.OrtValue]
) -> dict[str, float]:
    """Returns the gain of each input by which errors arrive, by tensor name.

    With a probe v of random signs, |J' v|^2 is |J|_F^2 on average, and the squared gain is that
    over the number of the input's elements.

    Args:
        node: The node.
        paths: How errors arrive at it.
        tensors: Its sources and outputs, by name.

    Returns:
        Nothing where a run of the node says as much, or the operator has no rule.
    """
    names = [node.inputs[position] for position in sorted(paths.wanted)]
    quantized = any(_is_quantized(tensors.get(name)) for name in (*names, node.outputs[0]))
    if not quantized and paths.steps != "quantized":
        return {}
    rule = find_rule(node.op_type, node.domain, node.opset)
    output_shape = shape_of(tensors.get(node.outputs[0]))
    if rule is None or output_shape is None:
        return {}
    application = Application(
        op_type=node.op_type,
        opset=node.opset,
        attributes=node.attributes,
        inputs=[value_of(tensors[name]) if name else None for name in node.inputs],
        outputs=[value_of(tensors[name]) if name in tensors else None for name in node.outputs],
        input_shapes=[shape_of(tensors.get(name)) for name in node.inputs],
        output_shapes=[shape_of(tensors.get(name)) for name in node.outputs],
        wanted=paths.wanted,
    )
    signs = np.random.default_rng(node.index).choice(np.array([-1, 1], np.float32), output_shape)
    handed = rule.apply(
        application, [_like_values(signs, application), *[None] * (len(node.outputs) - 1)]
    )
    gradients: dict[str, npt.NDArray[Any]] = {}
    for position in sorted(paths.wanted):
        name, gradient = node.inputs[position], handed[position]
        if gradient is not None and gradient.size:  # one tensor may be read twice
            gradients[name] = gradients[name] + gradient if name in gradients else gradient
    return {
        name: float(np.sqrt(np.mean(np.square(gradient, dtype=np.float64))))
        for name, gradient in gradients.items()
    }


def _like_values(signs: npt.NDArray[Any], application: Application) -> npt.NDArray[Any]:
    """The signs where the floats of a node lie."""
    values = [v for v in (*application.inputs, *application.outputs) if v is not None]
    there = next((value for value in values if library_of(value) is not None), signs)
    moved: npt.NDArray[Any] = namespace_of(there).asarray(signs)
    return moved


def _is_quantized(tensor: ort.OrtValue | None) -> bool:
    """Whether a tensor is of a type to which floats are quantized."""
    return tensor is not None and any(kind in tensor.data_type() for kind in _QUANTIZED)
