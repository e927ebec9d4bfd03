"""Inference in emulated low precision, as a runner of Polygraphy."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from onnx import helper
from polygraphy import util
from polygraphy.backend.base import BaseRunner
from polygraphy.common import TensorMetadata
from polygraphy.datatype import DataType

from polygraphy_layerprec._native import check_called_by, export
from polygraphy_layerprec.backend.emulated.candidate import Candidate
from polygraphy_layerprec.backend.emulated.placement import tell_what_is_left
from polygraphy_layerprec.backend.emulated.user_errors import critical_errors

__all__ = ["LayerprecRunner"]


@export()
class LayerprecRunner(BaseRunner):
    """Runs inference in low precision, emulated on ONNX-Runtime's FP32 kernels.

    Its inference times are those of the emulation, and say nothing about hardware.
    """

    def __init__(
        self, candidate: Candidate | Callable[[], Candidate], name: str | None = None
    ) -> None:
        """Stores what to run.

        Args:
            candidate: A model in low precision, or a callable that returns one.
            name: Name of the runner. Defaults to `layerprec-runner`, a number and the time.
        """
        super().__init__(name=name, prefix="layerprec-runner")
        self._candidate = candidate

    @check_called_by("activate")
    def activate_impl(self) -> None:
        """Loads the model."""
        self.candidate, _ = util.invoke_if_callable(self._candidate)

    @check_called_by("get_input_metadata")
    def get_input_metadata_impl(self) -> TensorMetadata:
        """Returns name, type and shape of each input; None and names stand for unknown extents."""
        metadata = TensorMetadata()
        for wanted in self.candidate.graph.inputs:
            element_type = helper.np_dtype_to_tensor_dtype(wanted.dtype)
            shape = None if wanted.shape is None else list(wanted.shape)
            metadata.add(wanted.name, DataType.from_dtype(element_type, "onnx"), shape)
        return metadata

    @check_called_by("infer")
    def infer_impl(self, feed_dict: Mapping[str, Any]) -> OrderedDict[str, Any]:
        """Returns the outputs by name, as arrays of numpy, or tensors of PyTorch if it gets those.

        Args:
            feed_dict: An array of numpy or a tensor of PyTorch for each input.
        """
        uses_torch = any(util.array.is_torch(values) for values in feed_dict.values())
        sample = {name: util.array.to_numpy(values) for name, values in feed_dict.items()}
        start = time.perf_counter()
        with critical_errors():
            outputs = self.candidate.run(sample)
        self.inference_time = time.perf_counter() - start
        return OrderedDict(
            (name, util.array.to_torch(values) if uses_torch else values)
            for name, values in outputs.items()
        )

    @check_called_by("deactivate")
    def deactivate_impl(self) -> None:
        """Forgets the model, and says which of its nodes a GPU could not run."""
        tell_what_is_left(self.candidate.device)
        del self.candidate
