"""Builds and runs the engines of a verification, with Polygraphy's loaders and runner."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from polygraphy.backend.trt import (
    CreateConfig,
    EngineBytesFromNetwork,
    EngineFromBytes,
    NetworkFromOnnxPath,
    PostprocessNetwork,
    Profile,
    TrtRunner,
)

from polygraphy_layerprec.backend.engine_running import feeds_of
from polygraphy_layerprec.backend.tensorrt_errors import engine_failures
from polygraphy_layerprec.backend.tensorrt_module import load_tensorrt, picks_precisions
from polygraphy_layerprec.emit.name_bridge import as_layer_constraints
from polygraphy_layerprec.emit.network_rewriter import constrain_network
from polygraphy_layerprec.emit.network_view import NetworkError
from polygraphy_layerprec.execution.errors import ExecutionError
from polygraphy_layerprec.records import NetworkWidths

if TYPE_CHECKING:
    from polygraphy_layerprec.records import AskedPrecisions, Constraint

__all__ = ["EngineName", "EngineRun", "TensorrtEngines"]

EngineName = Literal["fp32", "lowered", "constrained"]
ShapeRange = tuple[tuple[int, ...], tuple[int, ...]]
_WARM_UP_RUNS: Final = 3


@dataclass(frozen=True, slots=True)
class EngineRun:
    """What an engine did with the samples."""

    outputs: tuple[Mapping[str, np.ndarray[Any, Any]], ...]
    """For each sample its outputs by name."""

    latency_seconds: float
    """Median time of an inference on the first sample, copies to and from the GPU included."""

    layer_information: str
    """The engine inspector's JSON; empty where there is none."""


class TensorrtEngines:
    """The three engines of a model: in FP32, all lowered, and constrained. TF32 is off in all."""

    def __init__(
        self,
        model_path: str,
        asked: AskedPrecisions,
        *,
        mixed_path: str | None = None,
        shape_ranges: Mapping[str, ShapeRange] | None = None,
        timing_runs: int = 20,
        observe: Callable[[Any], None] | None = None,
    ) -> None:
        """Prepares to build.

        Args:
            model_path: The FP32 model.
            asked: Which layers stay in FP32, and what the others are lowered to.
            mixed_path: A mixed-precision form of the model to make the constrained engine of.
            shape_ranges: Smallest and largest shape of each input of dynamic shape.
            timing_runs: How many inferences to time.
            observe: Called with each network, by the keyword `network`, as the builder gets it.

        Raises:
            ExecutionError: If TensorRT is not installed.
        """
        self._trt = load_tensorrt()
        self._model_path = model_path
        self._asked = asked
        self._mixed_path = mixed_path
        self._shape_ranges = dict(shape_ranges or {})
        self._timing_runs = timing_runs
        self._observe = observe

    def build(self, name: EngineName) -> bytes:
        """Returns a serialised engine; needs no GPU with TensorRT-RTX.

        Raises:
            ExecutionError: If the network cannot be constrained as asked, or not built.
        """
        if name == "fp32":
            return self._build(NetworkFromOnnxPath(self._model_path))
        if name == "constrained" and self._mixed_path is not None:
            return self._build_mixed(self._mixed_path)
        constraints = self._asked.constraints if name == "constrained" else ()
        network = PostprocessNetwork(
            NetworkFromOnnxPath(self._model_path),
            lambda network: self._rewrite(network, constraints),
        )
        options: dict[str, Any] = {}
        if picks_precisions(self._trt):
            options[self._asked.precision] = True
            if constraints:
                options["precision_constraints"] = "obey"
        return self._build(network, **options)

    def run(self, plan: bytes, samples: Sequence[Mapping[str, Any]]) -> EngineRun:
        """Returns what an engine makes of the samples; needs a GPU.

        Raises:
            EngineError: If the engine cannot run here.
        """
        with (
            engine_failures("run an engine", self._trt),
            TrtRunner(EngineFromBytes(plan)) as runner,
        ):
            feeds = [feeds_of(sample, runner.get_input_metadata()) for sample in samples]
            outputs = []
            for feed in feeds:
                # The runner writes the next result to the same memory.
                made = runner.infer(feed)
                outputs.append({name: np.array(array) for name, array in made.items()})
            times = []
            for _ in range(_WARM_UP_RUNS + self._timing_runs):
                runner.infer(feeds[0])
                times.append(runner.last_inference_time())
            information = self._inspect(runner.engine, runner.context)
        return EngineRun(tuple(outputs), statistics.median(times[_WARM_UP_RUNS:]), information)

    def inspect(self, plan: bytes) -> str:
        """Returns the engine inspector's JSON, empty where there is none; needs a GPU.

        Raises:
            EngineError: If the engine cannot be read here.
        """
        with engine_failures("read an engine", self._trt):
            return self._inspect(EngineFromBytes(plan)())

    def _rewrite(self, network: Any, constraints: Sequence[Constraint]) -> None:
        # The plan is that of the constraints; without them, the rules lower everything.
        widths = self._asked.widths if constraints else NetworkWidths()
        # Not the user's script, which is never run: the same code, fed with the same data.
        try:
            constrain_network(
                network,
                as_layer_constraints(constraints),
                precision=self._asked.precision,
                left=as_layer_constraints(widths.left),
                fp32_tensors=widths.fp32_tensors,
                low_tensors=widths.low_tensors,
            )
        except NetworkError as error:
            raise ExecutionError(f"The network cannot be constrained: {error}") from error

    def _build_mixed(self, path: str) -> bytes:
        if not picks_precisions(self._trt):
            return self._build(NetworkFromOnnxPath(path))
        if not hasattr(self._trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
            raise ExecutionError(
                f"TensorRT {self._trt.__version__} takes the types of a model as mere hints.\n"
                f"Verify a script instead, with `--script`."
            )
        return self._build(NetworkFromOnnxPath(path, strongly_typed=True))

    def _build(self, network: Any, **options: Any) -> bytes:
        if self._observe is not None:
            network = PostprocessNetwork(network, self._observe)
        profile = Profile()
        for name, (low, high) in self._shape_ranges.items():
            profile.add(name, min=low, opt=high, max=high)
        # Not `CreateConfigRTX`, which leaves TF32 on, as TensorRT has it by default.
        config = CreateConfig(
            profiles=[profile],
            profiling_verbosity=self._trt.ProfilingVerbosity.DETAILED,
            **options,
        )
        with engine_failures("build an engine", self._trt):
            return bytes(EngineBytesFromNetwork(network, config)())

    def _inspect(self, engine: Any, context: Any = None) -> str:
        try:
            inspector = engine.create_engine_inspector()
            if context is not None:
                inspector.execution_context = context
            layout = self._trt.LayerInformationFormat.JSON
            return str(inspector.get_engine_information(layout))
        except (AttributeError, RuntimeError):  # not in every version and build
            return ""
