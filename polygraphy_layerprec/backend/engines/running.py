"""Runs engines with Polygraphy's runner; needs a GPU."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from polygraphy.backend.trt import EngineFromBytes, TrtRunner
from polygraphy.exception import PolygraphyException

from polygraphy_layerprec.backend.engines.options import choose_profile
from polygraphy_layerprec.backend.engines.specs import EngineError
from polygraphy_layerprec.backend.engines.tensorrt_errors import engine_failures
from polygraphy_layerprec.backend.engines.tensorrt_module import load_tensorrt

if TYPE_CHECKING:
    from polygraphy_layerprec.backend.engines.options import ShapeProfile
    from polygraphy_layerprec.backend.engines.specs import EngineSpec, RunningEngine, Sample

__all__ = ["feeds_of", "open_engine"]

_WARM_UP_RUNS: Final = 3


@contextmanager
def open_engine(
    spec: EngineSpec, plan: bytes, profiles: Sequence[ShapeProfile] = ()
) -> Iterator[RunningEngine]:
    """Gives an engine that was built with `profiles`, to run.

    Raises:
        EngineError: If the engine cannot run here, or lacks an output.
    """
    trt = load_tensorrt()
    runner = TrtRunner(EngineFromBytes(plan))
    with engine_failures(f"load the {spec.describe()}", trt):
        runner.activate()
    try:
        yield _EngineOnGpu(trt, runner, spec, profiles)
    finally:
        with suppress(PolygraphyException):  # what went wrong before is what matters
            runner.deactivate()


@dataclass(frozen=True, slots=True)
class _EngineOnGpu:
    """An engine in a runner of Polygraphy's."""

    _trt: Any
    _runner: Any
    _spec: EngineSpec
    _profiles: Sequence[ShapeProfile]

    def infer(self, sample: Sample) -> Mapping[str, Any]:
        profile = choose_profile(self._profiles, sample)
        with engine_failures(f"run the {self._spec.describe()}", self._trt):
            if len(self._profiles) > 1:
                self._runner.set_profile(profile)
            feeds = feeds_of(sample, self._runner.get_input_metadata())
            made: Mapping[str, Any] = self._runner.infer(feeds)
        missing = [name for name in self._spec.marked if name not in made]
        if missing:
            raise EngineError(
                f"The {self._spec.describe()} gives no {missing[0]!r}: building it changed its "
                f"outputs.\nNote: It gives: {list(made)[:10]!r}.\n"
                f"Leave this tensor out of `--outputs-from`."
            )
        return made

    def latency_seconds(self, sample: Sample, *, runs: int) -> float:
        times: list[float] = []
        for _ in range(_WARM_UP_RUNS + runs):
            self.infer(sample)
            times.append(self._runner.last_inference_time())
        return statistics.median(times[_WARM_UP_RUNS:])

    def layer_information(self) -> str:
        try:
            inspector = self._runner.engine.create_engine_inspector()
            inspector.execution_context = self._runner.context
            layout = self._trt.LayerInformationFormat.JSON
            return str(inspector.get_engine_information(layout))
        except (AttributeError, RuntimeError):  # not in every version and build
            return ""


def feeds_of(sample: Sample, metadata: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Returns a sample as an engine takes it: older TensorRTs take INT64 inputs as INT32."""
    feeds = {}
    for name, values in sample.items():
        if name not in metadata:  # an input that nothing reads
            continue
        wanted = metadata[name].dtype
        dtype = np.dtype(wanted.numpy() if hasattr(wanted, "numpy") else wanted)
        same = values.dtype == dtype or values.dtype.kind not in "iu"
        feeds[name] = values if same else values.astype(dtype)
    return feeds
