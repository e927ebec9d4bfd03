"""ONNX models as torch exports them, by the exporter of old and by the present one.

Importing torch takes seconds, and it may not be there: nothing here imports it before a model is
asked for. Weights and inputs come from seeds.
"""

from __future__ import annotations

import io
import logging
import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

import onnx

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch

__all__ = ["TORCH_MODELS", "export_model", "feeds_of"]

TORCH_MODELS = (
    "transformer encoder, legacy",
    "transformer encoder, dynamo",
    "cnn, legacy",
    "u-net, legacy",
    "u-net, dynamo",
    "lstm, legacy",
    "lstm, dynamo",
    "gru, legacy",
    "scripted if, legacy",
    "scripted loop, legacy",
    "conditional, dynamo",
)
"""What is exported, and by which exporter: both where they write different graphs."""


@cache
def export_model(name: str) -> onnx.ModelProto:
    """Returns one of `TORCH_MODELS`, exported once in a process; do not change it."""
    kind, _, exporter = name.partition(", ")
    module, inputs = _module(kind)
    names = list(inputs)
    options: dict[str, Any] = {"input_names": names, "output_names": ["y"], "verbose": False}
    export = _export_legacy if exporter == "legacy" else _export_dynamo
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the exporters' own age and gaps
        return export(module, tuple(inputs.values()), options)


@cache
def feeds_of(name: str) -> dict[str, npt.NDArray[Any]]:
    """Returns an array for each input of one of `TORCH_MODELS`."""
    _, inputs = _module(name.partition(", ")[0])
    return {key: tensor.numpy() for key, tensor in inputs.items()}


def _module(kind: str) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    import torch

    from tests import torch_modules as modules

    torch.manual_seed(0)
    rows = torch.randn(3, 4)
    if kind == "transformer encoder":
        ids = torch.randint(0, 16, (2, 5))
        padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
        return modules.Encoder().eval(), {"ids": ids, "padding": padding}
    if kind == "cnn":
        return modules.Cnn().eval(), {"image": torch.randn(2, 3, 8, 8)}
    if kind == "u-net":
        return modules.UNet().eval(), {"image": torch.randn(1, 1, 8, 8)}
    if kind in ("lstm", "gru"):
        return modules.Recurrent(kind.upper()).eval(), {"steps": torch.randn(2, 5, 4)}
    if kind == "conditional":
        return modules.Conditional().eval(), {"x": rows}
    scripted = {"scripted if": modules.Branching, "scripted loop": modules.Repeating}[kind]
    inputs = {"x": rows} | ({"times": torch.tensor(3)} if kind == "scripted loop" else {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scripting is deprecated
        return torch.jit.script(scripted().eval()), inputs


def _export_legacy(
    module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], options: dict[str, Any]
) -> onnx.ModelProto:
    import torch

    file = io.BytesIO()
    torch.onnx.export(module, inputs, file, opset_version=17, dynamo=False, **options)
    return onnx.load_from_string(file.getvalue())


def _export_dynamo(
    module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], options: dict[str, Any]
) -> onnx.ModelProto:
    import torch

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision
    program = torch.onnx.export(module, inputs, opset_version=18, dynamo=True, **options)
    assert program is not None
    return onnx.ModelProto.FromString(program.model_proto.SerializeToString())
