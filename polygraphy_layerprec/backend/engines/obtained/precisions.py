"""What became of the precisions that were asked for: ONNX nodes against the layers of an engine.

An engine layer shows the types of what it reads and gives. What happens inside a fused one is not
shown, but for its name: a kernel that TensorRT generates is called after its steps, such as
`__myl_FcCastTanhCast_myl0_3`, so that a width can be told where no cast stands in between.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from polygraphy_layerprec.backend.engines.obtained.layers import EngineLayer, low_fraction
from polygraphy_layerprec.model.operators import ITERATING, PRODUCTS
from polygraphy_layerprec.records import LayerPrecision, ObtainedPrecisions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from polygraphy_layerprec.backend.engines.obtained.layers import EngineTensor
    from polygraphy_layerprec.records import Constraint, ObtainedPrecision

__all__ = ["AskedLayer", "NetworkTypes", "compare_precisions"]

Width = Literal["fp32", "low"]

_NAMED_STEPS: Final = re.compile(r"__myl_(\w+)_myl\d")
_STEP: Final = re.compile(r"[A-Z][a-z]*")
_CAST: Final = "Cast"
_CUT_SHORT: Final = "Etc"  # what ends the name of a kernel of too many steps
_MOVES: Final = frozenset({"Conc", "Gath", "Move", "Repl", "Resh", "Slic", "Spli", "Tran"})
_PRODUCT_STEPS: Final = frozenset({"Corr", "Deco", "Fc"})


@dataclass(frozen=True, slots=True)
class AskedLayer:
    """One layer of the model, and the precision that was asked for it."""

    node: Constraint
    """The layer, as a constraint names it."""

    in_fp32: bool
    """Whether it is to stay in FP32, not to be lowered."""

    has_weights: bool = False
    """Whether an input is a constant of the model."""

    is_folded: bool = False
    """Whether it depends on constants alone, so that the builder computes it once."""


@dataclass(frozen=True, slots=True)
class NetworkTypes:
    """What the network that was built says about one layer."""

    nodes: frozenset[str]
    """How the engine names the node, as in `EngineLayer.nodes`; empty if that is not known."""

    widths: frozenset[Width]
    """Widths of the floats that it reads and gives; empty where types do not decide."""


_UNKNOWN: Final = NetworkTypes(frozenset(), frozenset())


def compare_precisions(
    layers: Sequence[EngineLayer],
    asked: Sequence[AskedLayer],
    network: Mapping[int, NetworkTypes] | None = None,
) -> ObtainedPrecisions:
    """Returns what each layer that was asked for obtained.

    Args:
        layers: The engine.
        asked: The model's layers, or some of them.
        network: What the network says about them, by index in `asked`; may lack some.
    """
    kernels = _Kernels(layers)
    found = network or {}
    return ObtainedPrecisions(
        layers=tuple(
            _judge(layer, kernels, found.get(index, _UNKNOWN)) for index, layer in enumerate(asked)
        ),
        kernel_count=len(layers),
        low_tensor_fraction=low_fraction(layers),
    )


class _Kernels:
    """The engine layers by the ONNX node they were made from, and the tensors by name."""

    def __init__(self, layers: Sequence[EngineLayer]) -> None:
        self._by_node: dict[str, list[EngineLayer]] = {}
        self._given = {tensor.name: tensor for layer in layers for tensor in layer.outputs}
        for layer in layers:
            for name in dict.fromkeys(name for node in layer.nodes for name in _names_of(node)):
                self._by_node.setdefault(name, []).append(layer)

    def of(self, layer: AskedLayer, network: NetworkTypes) -> list[EngineLayer]:
        """Returns the engine layers that hold a node and have float tensors."""
        name = layer.node.name or f"node_of_{next(iter(layer.node.outputs), '')}"
        found = [kernel for node in sorted(network.nodes) for kernel in self._by_node.get(node, ())]
        found = found or self._by_node.get(name, [])
        unique = {id(kernel): kernel for kernel in found}
        return [kernel for kernel in unique.values() if kernel.inputs or kernel.outputs]

    def given(self, layer: AskedLayer) -> list[EngineTensor]:
        """Returns a node's outputs as far as the engine has them under their ONNX names."""
        return [self._given[name] for name in layer.node.outputs if name in self._given]


def _names_of(node: str) -> Iterator[str]:
    """Yields what may be the node's name: a name may hold what stands before where the node is."""
    parts = node.split(" | ")
    for count in range(1, len(parts) + 1):
        yield " | ".join(parts[:count])


def _judge(layer: AskedLayer, kernels: _Kernels, network: NetworkTypes) -> LayerPrecision:
    holding = kernels.of(layer, network)
    outputs = kernels.given(layer)
    return LayerPrecision(
        name=layer.node.name or next((name for name in layer.node.outputs if name), ""),
        op=layer.node.op,
        asked="fp32" if layer.in_fp32 else "low",
        obtained=_obtained(layer, holding, outputs, network.widths),
        kernels=tuple(kernel.name for kernel in holding),
        types=_describe_types(holding),
    )


def _only_borders_are_low(layer: AskedLayer, holding: Sequence[EngineLayer]) -> bool:
    """Whether a loop computes in FP32, though other nodes that are lowered took on its borders."""
    low = [kernel for kernel in holding if _width_in(kernel, layer) == "low"]
    shared = all(len(kernel.nodes) > 1 for kernel in low)
    return layer.node.op in ITERATING and bool(low) and shared and len(low) < len(holding)


def _obtained(
    layer: AskedLayer,
    holding: Sequence[EngineLayer],
    outputs: Sequence[EngineTensor],
    network: frozenset[Width],
) -> ObtainedPrecision:
    if layer.is_folded:  # kernels that take it as a weight name it too
        return "absent"
    if layer.in_fp32 and (any(t.is_low for t in outputs) or network not in ({"fp32"}, set())):
        return "low"
    if not holding:
        return "fp32" if outputs and not any(t.is_low for t in outputs) else "absent"
    shown = {_width_in(kernel, layer) for kernel in holding}
    if layer.in_fp32:
        at_borders = network == {"fp32"} and _only_borders_are_low(layer, holding)
        is_low = "low" in shown and not at_borders
        return "low" if is_low else "fp32" if shown == {"fp32"} else "fused"
    if shown == {"low"} or all(t.is_low for k in holding for t in (*k.inputs, *k.outputs)):
        return "low"
    return "fp32" if shown == {"fp32"} and network in ({"fp32"}, set()) else "fused"


def _width_in(kernel: EngineLayer, layer: AskedLayer) -> Width | None:
    """Returns the width that a kernel shows for a layer, None where it does not tell."""
    if layer.node.op in PRODUCTS and (width := _width_of_product(kernel, layer)):
        return width
    if _steps(kernel) is not None and (width := _width_of_steps(kernel)):
        return width
    widths = {tensor.is_low for tensor in (*kernel.inputs, *kernel.outputs)}
    if widths == {False}:
        return "fp32"
    is_open = _steps(kernel) is None and len(kernel.nodes) <= 1  # unlike attention in one kernel
    weights_are_low = all(tensor.is_low for tensor in _weights(kernel))
    return "low" if is_open and widths == {True} and weights_are_low else None


def _width_of_steps(kernel: EngineLayer) -> Width | None:
    """Returns the width of all that a kernel computes, None if it has a cast in between."""
    steps = [step for step in _steps(kernel) or () if step not in _MOVES]
    computing = [index for index, step in enumerate(steps) if step != _CAST]
    widths = {tensor.is_low for tensor in kernel.inputs}
    if not computing or _CUT_SHORT in steps or len(widths) != 1:
        return None
    first, last = computing[0], computing[-1]
    is_low = widths.pop() != (first > 0)
    if _CAST in steps[first:last] or any(weight.is_low != is_low for weight in _weights(kernel)):
        return None
    return "low" if is_low else "fp32"


def _width_of_product(kernel: EngineLayer, layer: AskedLayer) -> Width | None:
    """Returns the width of a matrix product or convolution, by what reaches it without a cast.

    TensorRT-RTX 1.7.1 takes the casts around a product in FP32 for its own: cast up, multiply,
    cast down becomes a product in low precision, of weights that are rounded.
    """
    weights = list(_weights(kernel))
    if layer.has_weights and weights and all(tensor.is_low for tensor in weights):
        return "low"
    steps = _steps(kernel)
    if steps is not None:
        product = next((i for i, step in enumerate(steps) if step in _PRODUCT_STEPS), None)
        if product is None or _CAST in steps[:product]:
            return None
    widths = {tensor.is_low for tensor in kernel.inputs}
    return None if len(widths) != 1 else "low" if widths == {True} else "fp32"


def _weights(kernel: EngineLayer) -> Iterable[EngineTensor]:
    """The constants but for factors, which are in FP32 in every matrix product."""
    return (tensor for tensor in kernel.constants if not tensor.is_scalar)


def _steps(kernel: EngineLayer) -> list[str] | None:
    """Returns the steps that a kernel's name tells, None where it is not named after them."""
    named = _NAMED_STEPS.match(kernel.name)
    return _STEP.findall(named[1]) if named else None


def _describe_types(holding: Sequence[EngineLayer]) -> str:
    def join(tensors: Iterable[EngineTensor]) -> str:
        return ", ".join(sorted({tensor.type for tensor in tensors})) or "-"

    if not holding:
        return ""
    inputs = join(tensor for kernel in holding for tensor in kernel.inputs)
    return f"{inputs} -> {join(tensor for kernel in holding for tensor in kernel.outputs)}"
