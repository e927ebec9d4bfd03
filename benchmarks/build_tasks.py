"""What the engine-build benchmark runs in processes of their own. Everything is imported up front.

Whichever TensorRT Polygraphy is told to use builds; with TensorRT-RTX no GPU is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from polygraphy.backend.common import InvokeFromScript
from polygraphy.backend.trt import (
    CreateConfig,
    EngineBytesFromNetwork,
    NetworkFromOnnxPath,
    PostprocessNetwork,
)
from polygraphy.logger import G_LOGGER

from polygraphy_layerprec.backend.engines.tensorrt_module import load_tensorrt
from polygraphy_layerprec.emit.mixed_onnx import save_mixed_onnx

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["build", "save_mixed"]

_TRT = load_tensorrt()  # by name, and before the level of memory is taken


def build(model: str, script: str | None) -> dict[str, int]:
    """Returns what became of a model that was built by Polygraphy's loaders, TF32 off.

    Args:
        model: The ONNX file.
        script: Network postprocessing script, or None.
    """
    G_LOGGER.module_severity = {"": G_LOGGER.CRITICAL}
    network = NetworkFromOnnxPath(model)
    if script is not None:
        network = PostprocessNetwork(network, InvokeFromScript(script, "postprocess"))
    made = network()
    engine_bytes = EngineBytesFromNetwork(made, CreateConfig())().nbytes
    low, floats = _count_types(made[1])
    return {"engine_bytes": engine_bytes, "low_tensors": low, "float_tensors": floats}


def save_mixed(model: str, output: str, fp32_outputs: Sequence[str]) -> None:
    """Writes our mixed-precision form of `model`."""
    save_mixed_onnx(model, output, fp32_outputs)


def _count_types(network: Any) -> tuple[int, int]:
    """Returns how many tensors that layers compute are in FP16, and how many are in FP16 or FP32.

    Constants do not count, nor what a cast makes: they are how types are reached, not results.
    """
    types = list(_computed_types(network))
    low = sum(dtype == _TRT.float16 for dtype in types)
    return low, low + sum(dtype == _TRT.float32 for dtype in types)


def _computed_types(network: Any) -> Iterator[Any]:
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type in (_TRT.LayerType.CONSTANT, _TRT.LayerType.CAST):
            continue
        for output in range(layer.num_outputs):
            yield layer.get_output(output).dtype
