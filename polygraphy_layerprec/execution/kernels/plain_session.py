"""The whole model in one ordinary ONNX-Runtime session, as users run it in FP32."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from polygraphy_layerprec.execution.errors import ExecutionError
from polygraphy_layerprec.execution.kernels.device import on_the_host
from polygraphy_layerprec.execution.kernels.ort_tensors import fed_tensor, value_of
from polygraphy_layerprec.execution.kernels.sessions import RUN_OPTIONS, session_threads

__all__ = ["PlainSession"]


class PlainSession:
    """Runs a model on the CPU, optimised as ONNX-Runtime does by default, in FP32 throughout."""

    def __init__(
        self,
        model: str | os.PathLike[str] | onnx.ModelProto,
        *,
        external_data_folder: str | None = None,
    ) -> None:
        """Loads `model`.

        Args:
            model: Path of an `.onnx` file, or a model in memory.
            external_data_folder: Where the files with external data are; beside the model by
                default.

        Raises:
            ExecutionError: If ONNX-Runtime cannot load it; the text is its first line.
        """
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = session_threads()
        # By default, activations that meet weights of four bits are quantised on the way.
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
        try:
            source = _source(model, external_data_folder, options)
            self._session = ort.InferenceSession(
                source, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            # ONNX-Runtime raises a dozen types without a common base.
            raise ExecutionError(f"ONNX-Runtime cannot load it: {_first_line(error)}") from error

    def run(self, sample: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """Returns the outputs by name, those that are tensors.

        Args:
            sample: An array for each input of the model.

        Raises:
            ExecutionError: If a kernel fails, or ONNX-Runtime has no tensors of an input's type.
        """
        with on_the_host():  # where this session reads and writes
            return self._outputs(sample)

    def _outputs(
        self, sample: Mapping[str, np.ndarray[Any, Any]]
    ) -> dict[str, np.ndarray[Any, Any]]:
        names = [output.name for output in self._session.get_outputs()]
        feeds = {name: fed_tensor(name, values) for name, values in sample.items()}
        try:
            results = self._session.run_with_ort_values(names, feeds, RUN_OPTIONS)
        except Exception as error:
            raise ExecutionError(f"ONNX-Runtime cannot run it: {_first_line(error)}") from error
        return {
            name: value_of(result)
            for name, result in zip(names, results, strict=True)
            if result.data_type().startswith("tensor")
        }


def _source(
    model: str | os.PathLike[str] | onnx.ModelProto,
    external_data_folder: str | None,
    options: ort.SessionOptions,
) -> str | bytes:
    if isinstance(model, onnx.ModelProto):
        return bytes(model.SerializeToString())
    if external_data_folder is None:
        return os.fspath(model)
    folder = os.path.abspath(external_data_folder)
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    with open(model, "rb") as file:
        return file.read()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
