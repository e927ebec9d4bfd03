"""A GPU: nodes on ONNX-Runtime's CUDA provider, sums and rules on CuPy, over one memory.

Both use one stream, so that each sees what the other did before. It waits for the legacy default
stream, on which ONNX-Runtime copies between host and device.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as native

from polygraphy_layerprec.arrays import ArrayLibrary, register_library
from polygraphy_layerprec.execution.kernels.device_weights import DeviceWeights
from polygraphy_layerprec.execution.kernels.sessions import session_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from polygraphy_layerprec.precision import Precision

__all__ = ["PROVIDER", "CudaDevice"]

PROVIDER: Final = "CUDAExecutionProvider"
"""What runs nodes, by ONNX-Runtime's name."""

_DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(double)": np.dtype(np.float64),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(bool)": np.dtype(np.bool_),
    **{
        f"tensor({sign}int{bits})": np.dtype(f"{sign}int{bits}")
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    },
}

# On the bits, since CuPy compiles with flushing to zero, and FP32's subnormals are numbers of BF16.
# `drop` is how many bits of the significand are surplus, more for subnormals of the format. What
# rounding carries over adds 1 to the exponent by itself.
_ROUND: Final = """
const U one = 1;
const U field = (x >> stored) & exponents;
const U sign = x & ~((exponents << stored) | ((one << stored) - 1));
if (field == exponents) {
    y = x;
} else {
    const U fraction = x & ((one << stored) - 1);
    const U significand = field ? fraction | (one << stored) : fraction;
    const int exponent = (int)(field ? field : one) - bias;
    const int drop = dropped + max(min_exponent - exponent, 0);
    U rounded = 0;
    if (drop <= stored + 1) {
        const U last = (significand >> drop) & one;
        rounded = ((significand + (one << (drop - 1)) - one + last) >> drop) << drop;
    }
    if (field && rounded) rounded += (field << stored) - (one << stored);
    y = sign | (rounded > largest ? beyond : rounded);
}
"""


class _Carrier(NamedTuple):
    """Bit layout of a type that carries rounded values."""

    bits: type[np.unsignedinteger[Any]]
    stored: int
    exponents: int
    bias: int


_CARRIERS: Final = {
    np.dtype(np.float32): _Carrier(np.uint32, 23, 0xFF, 127),
    np.dtype(np.float64): _Carrier(np.uint64, 52, 0x7FF, 1023),
}


def _compile_few(cupy: Any) -> None:
    """Has CuPy reduce by what comes compiled, and by its own kernels, which compile quickly.

    Those that it makes of CUB's headers take seconds each to compile, half a minute for a model.
    """
    core = cupy._core  # noqa: SLF001 - else an environment variable, read when CuPy is imported
    core.set_reduction_accelerators([])
    core.set_routine_accelerators(["cub"])


class CudaDevice:
    """One GPU: see `Device`."""

    def __init__(self, cupy: Any, *, index: int = 0, memory_bytes: int | None = None) -> None:
        """Prepares a GPU.

        Args:
            cupy: The module.
            index: Which of the GPUs that the CUDA driver offers.
            memory_bytes: Memory to use for weights and activations; None for all that is free.
        """
        _compile_few(cupy)
        self._cupy = cupy
        self._index = index
        self._memory_bytes = memory_bytes
        self.name = str(cupy.cuda.runtime.getDeviceProperties(index)["name"], "utf-8", "replace")
        self.address = str(cupy.cuda.Device(index).pci_bus_id)
        self._taken_before = self._taken_bytes()
        self.stream = cupy.cuda.Stream(non_blocking=False)
        self._round = cupy.ElementwiseKernel(
            "U x, int32 stored, U exponents, int32 bias, int32 dropped, int32 min_exponent, "
            "U largest, U beyond",
            "U y",
            _ROUND,
            "layerprec_round",
        )
        self.host_nodes: dict[str, str] = {}
        self.weights = DeviceWeights(self.free_bytes())
        library = ArrayLibrary(cupy, cupy.asnumpy, self._round_flat, self._sum_of_squares)
        register_library(cupy.ndarray, library)

    def create_session(self, model: bytes) -> ort.InferenceSession:
        """See `Device`."""
        options = session_options()
        # A kernel that the provider lacks is an error here: what runs on the host is told.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        provider = PROVIDER, self._provider_options()
        return ort.InferenceSession(model, options, providers=[provider], enable_fallback=0)

    def _provider_options(self) -> dict[str, str]:
        return {
            "device_id": str(self._index),
            "user_compute_stream": str(self.stream.ptr),
            "use_tf32": "0",
            "cudnn_conv_algo_search": "HEURISTIC",
            "arena_extend_strategy": "kSameAsRequested",
        }

    def bind_output(self, binding: ort.IOBinding, name: str) -> None:
        """See `Device`."""
        binding.bind_output(name, "cuda", self._index)

    def holds(self, tensor: ort.OrtValue) -> bool:
        """See `Device`."""
        return bool(tensor.device_name().lower() == "cuda")

    def array_of(self, tensor: ort.OrtValue) -> Any:
        """See `Device`; types that CuPy lacks come back as numpy's, on the host."""
        shape = tuple(tensor.shape())
        kind = tensor.data_type()
        dtype = _DTYPES.get(kind)
        if dtype is None:
            return self._foreign_array(tensor, kind, shape)
        return self._view(tensor, shape, dtype)

    def _view(self, tensor: ort.OrtValue, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        size_bytes = math.prod(shape) * dtype.itemsize
        if not size_bytes:
            return self._cupy.empty(shape, dtype)
        memory = self._cupy.cuda.UnownedMemory(tensor.data_ptr(), size_bytes, tensor, self._index)
        pointer = self._cupy.cuda.MemoryPointer(memory, 0)
        return self._cupy.ndarray(shape, dtype, pointer)

    def _foreign_array(self, tensor: ort.OrtValue, kind: str, shape: tuple[int, ...]) -> Any:
        from polygraphy_layerprec.execution.kernels.ort_tensors import foreign_dtype  # noqa: PLC0415

        dtype = foreign_dtype(kind)
        bits = np.dtype(np.uint16 if dtype.itemsize > 1 else np.uint8)
        return self._cupy.asnumpy(self._view(tensor, shape, bits)).view(dtype)

    def tensor_of(self, array: Any) -> ort.OrtValue:
        """See `Device`."""
        is_truth = array.dtype == np.bool_
        source = array.view(np.uint8) if is_truth else array
        if hasattr(native.OrtValue, "from_dlpack"):
            # Without a stream, since both sides are on one.
            capsule = source.__dlpack__(stream=-1)
            return ort.OrtValue(native.OrtValue.from_dlpack(capsule, is_truth))
        made = ort.OrtValue.ortvalue_from_shape_and_type(
            array.shape, array.dtype, "cuda", self._index
        )
        self.array_of(made)[...] = array
        return made

    def array_from(self, values: np.ndarray[Any, Any]) -> Any:
        """See `Device`."""
        return self._cupy.asarray(np.ascontiguousarray(values)).reshape(values.shape)

    def free_bytes(self) -> int:
        """See `Device`."""
        free, _ = self._memory()
        if self._memory_bytes is None:
            return free
        left = self._memory_bytes - (self._taken_bytes() - self._taken_before)
        return min(max(left, 0), free)

    def _taken_bytes(self) -> int:
        free, total = self._memory()
        return total - free

    def _memory(self) -> tuple[int, int]:
        """What is free, with what CuPy keeps for later, and all there is."""
        free, total = self._cupy.cuda.Device(self._index).mem_info
        return int(free + self._cupy.get_default_memory_pool().free_bytes()), int(total)

    def release(self) -> None:
        """See `Device`: CuPy keeps memory that ONNX-Runtime cannot take."""
        self.stream.synchronize()
        self._cupy.get_default_memory_pool().free_all_blocks()

    @contextmanager
    def entered(self) -> Iterator[None]:
        """See `Device`."""
        with self._cupy.cuda.Device(self._index), self.stream:
            yield

    def _round_flat(self, source: Any, target: Any, precision: Precision, saturate: bool) -> None:  # noqa: FBT001
        bits, stored, exponents, bias = _CARRIERS[source.dtype]
        limits = np.array([precision.max_finite, np.inf], source.dtype).view(bits)
        self._round(
            source.view(bits),
            np.int32(stored),
            bits(exponents),
            np.int32(bias),
            np.int32(stored - precision.mantissa_bits),
            np.int32(precision.min_exponent),
            limits[0],
            limits[0 if saturate else 1],
            target.view(bits),
        )

    def _sum_of_squares(self, values: Any) -> float:
        return float(self._cupy.dot(values, values))
