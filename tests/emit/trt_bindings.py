"""TensorRT's own Python bindings without TensorRT, to see what the script touches in each version.

The wheels come from the package registry; empty shared libraries take the place of TensorRT's
own. `prepare_bindings` makes an importable folder of one version. Run as a program, in a process
of its own with that folder on the path, this file lets a script change a network of mocks that
have the attributes of that version and no others, and prints what it did to them.
"""

from __future__ import annotations

import fcntl
import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np

__all__ = ["BINDINGS", "UnavailableError", "prepare_bindings", "run_script"]

BINDINGS = {
    "8.6.1": "tensorrt-bindings==8.6.1",
    "10.13": "tensorrt-cu12-bindings==10.13.3.9",
    "10.16": "tensorrt-cu12-bindings==10.16.1.11",
    "11.4": "tensorrt-cu13-bindings==11.4.0.106",
}
"""Packages of the bindings, by the version of TensorRT."""

_FUNCTIONS = (
    "createInferBuilder_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createInferRefitter_INTERNAL",
    "getPluginRegistry",
    "getBuilderPluginRegistry",
    "initLibNvInferPlugins",
    "createNvOnnxParser_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "getNvOnnxParserVersion",
    # 8.6 knows two more parsers.
    "_ZN11nvuffparser15createUffParserEv",
    "_ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi",
    "_ZN14nvcaffeparser117createCaffeParserEv",
    "_ZN14nvcaffeparser123shutdownProtobufLibraryEv",
)
_LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser", "nvparsers")


class UnavailableError(Exception):
    """Bindings that cannot be had here, and why."""


def prepare_bindings(version: str) -> Path:
    """Returns a folder from which `tensorrt_bindings` of a version can be imported.

    Raises:
        UnavailableError: If there is no compiler, or no wheel for this Python and machine.
    """
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    cache = Path(tempfile.gettempdir(), f"layerprec-tensorrt-bindings-{os.getuid()}")
    folder = cache / f"{version}-python{python}"
    if folder.exists():
        return folder
    compiler = shutil.which("cc")
    if compiler is None:
        raise UnavailableError("no C compiler")
    cache.mkdir(mode=0o700, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes may want it at once
        if not folder.exists():
            _make_bindings(version, folder, compiler)
    return folder


def _make_bindings(version: str, folder: Path, compiler: str) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        _download(BINDINGS[version], scratch)
        _compile_libraries(compiler, Path(scratch, "tensorrt_bindings"), version.partition(".")[0])
        Path(scratch).rename(folder)
        Path(scratch).mkdir()  # for the context manager to remove


def _download(package: str, folder: str) -> None:
    options = ["--no-deps", "--only-binary=:all:", "--quiet", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", folder, package]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    except (subprocess.SubprocessError, OSError) as error:
        raise UnavailableError(f"{package} cannot be downloaded") from error
    for wheel in Path(folder).glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)


def _compile_libraries(compiler: str, folder: Path, major: str) -> None:
    source = "\n".join(f"void *{function}(void) {{ return 0; }}" for function in _FUNCTIONS)
    for library in _LIBRARIES:
        name = f"lib{library}.so.{major}"
        options = ["-shared", "-fPIC", f"-Wl,-soname,{name}", "-x", "c", "-", "-o"]
        subprocess.run([compiler, *options, str(folder / name)], input=source.encode(), check=True)


def run_script(folder: Path, script: Path, *, strongly_typed: bool) -> dict[str, Any]:
    """Returns what a script did to the mocks, with the bindings in `folder`; see `_report`."""
    environment = os.environ | {
        "PYTHONPATH": str(folder),
        "LD_LIBRARY_PATH": str(folder / "tensorrt_bindings"),
    }
    done = subprocess.run(
        [sys.executable, __file__, str(script), "strong" if strongly_typed else "weak"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


class _MockedNetwork:
    """x -> conv -> relu -> mul by a constant -> reshape by its own shape -> y."""

    def __init__(self, trt: Any, *, strongly_typed: bool) -> None:
        self.trt = trt
        self.layers: dict[str, Any] = {}
        self.casts: list[tuple[str, str]] = []
        self.outputs: list[Any] = []
        x = self._tensor("x", trt.float32)
        conv = self._layer("conv", "IConvolutionLayer", "CONVOLUTION", [x], trt.float32)
        conv.kernel = np.ones((2, 2, 1, 1), np.float32)
        conv.bias = np.ones(2, np.float32)
        relu = self._layer("relu", "IActivationLayer", "ACTIVATION", [self._out(conv)], trt.float32)
        constant = self._layer("w", "IConstantLayer", "CONSTANT", [], trt.float32)
        constant.weights = np.full(2, 3.0, np.float32)
        factors = [self._out(relu), self._out(constant)]
        mul = self._layer("mul", "IElementWiseLayer", "ELEMENTWISE", factors, trt.float32)
        shape = self._layer("shape", "IShapeLayer", "SHAPE", [self._out(mul)], trt.int32)
        parts = [self._out(mul), self._out(shape)]
        last = self._layer("reshape", "IShuffleLayer", "SHUFFLE", parts, trt.float32)
        self.inputs = [x]
        self.outputs = [self._out(last)]
        self.network = self._mock_network(strongly_typed=strongly_typed)

    def _mock_network(self, *, strongly_typed: bool) -> Any:
        network = Mock(spec_set=self.trt.INetworkDefinition)
        layers = list(self.layers.values())
        network.num_layers, network.num_inputs, network.num_outputs = len(layers), 1, 1
        network.get_layer.side_effect = layers.__getitem__
        network.get_input.side_effect = self.inputs.__getitem__
        network.get_output.side_effect = self.outputs.__getitem__
        if hasattr(network, "get_flag"):
            network.get_flag.return_value = strongly_typed
        if hasattr(network, "add_cast"):
            network.add_cast.side_effect = self._add_cast
        network.add_input.side_effect = self._add_input
        network.remove_tensor.side_effect = self.inputs.remove
        network.unmark_output.side_effect = self.outputs.remove
        network.mark_output.side_effect = self.outputs.append
        return network

    def _tensor(self, name: str, dtype: Any) -> Any:
        tensor = Mock(spec_set=self.trt.ITensor)
        tensor.name, tensor.dtype, tensor.is_shape_tensor = name, dtype, False
        tensor.shape = (1, 2, 3, 3)
        return tensor

    def _add_input(self, name: str, dtype: Any, shape: tuple[int, ...]) -> Any:
        self.inputs.append(self._tensor(name, dtype))
        assert shape == self.inputs[-1].shape
        return self.inputs[-1]

    def _layer(self, name: str, kind: str, type_name: str, inputs: list[Any], dtype: Any) -> Any:
        layer = Mock(spec_set=getattr(self.trt, kind))
        layer.name, layer.type = name, getattr(self.trt.LayerType, type_name)
        if hasattr(layer, "metadata"):
            layer.metadata = ""
        layer.num_inputs, layer.num_outputs = len(inputs), 1
        layer.get_input.side_effect = inputs.__getitem__
        layer.get_output.return_value = self._tensor(f"{name}_output", dtype)
        self.layers[name] = layer
        return layer

    def _out(self, layer: Any) -> Any:
        return layer.get_output(0)

    def _add_cast(self, tensor: Any, dtype: Any) -> Any:
        self.casts.append((tensor.name, dtype.name))
        layer = Mock(spec_set=self.trt.ICastLayer)
        layer.get_output.return_value = self._tensor(f"{tensor.name}_cast", dtype)
        return layer


def _report(mocked: _MockedNetwork) -> dict[str, Any]:
    """Returns what was set: types by layer and tensor, the casts, and the outputs."""
    layers = {}
    for name, layer in mocked.layers.items():
        precision = getattr(layer, "precision", None)
        typed = layer.set_output_type.call_args_list if hasattr(layer, "set_output_type") else ()
        weights = [getattr(layer, attribute, None) for attribute in ("kernel", "bias", "weights")]
        layers[name] = {
            "precision": getattr(precision, "name", None)
            if isinstance(precision, mocked.trt.DataType)
            else None,
            "output_types": [[call.args[0], call.args[1].name] for call in typed],
            "inputs": [[call.args[0], call.args[1].name] for call in layer.set_input.mock_calls],
            "weights": [w.dtype.name for w in weights if isinstance(w, mocked.trt.Weights)],
        }
    return {
        "version": mocked.trt.__version__,
        "layers": layers,
        "casts": mocked.casts,
        "inputs": [[tensor.name, tensor.dtype.name] for tensor in mocked.inputs],
        "outputs": [[tensor.name, tensor.dtype.name] for tensor in mocked.outputs],
    }


def _main(script: str, typing: str) -> None:
    mocked = _MockedNetwork(
        importlib.import_module("tensorrt_bindings"), strongly_typed=typing == "strong"
    )
    spec = importlib.util.spec_from_file_location("constraints", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.postprocess(network=mocked.network)
    print(json.dumps(_report(mocked)))  # noqa: T201


if __name__ == "__main__":
    _main(*sys.argv[1:])
