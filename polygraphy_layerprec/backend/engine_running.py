"""Runs engines with Polygraphy's runner; needs a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from polygraphy.backend.trt import EngineFromBytes, TrtRunner
from polygraphy.exception import PolygraphyException

from polygraphy_layerprec.backend.engine_options import choose_profile
from polygraphy_layerprec.backend.engine_spec import EngineError
from polygraphy_layerprec.backend.tensorrt_errors import engine_failures
from polygraphy_layerprec.backend.tensorrt_module import load_tensorrt

if TYPE_CHECKING:
    from polygraphy_layerprec.backend.engine_options import ShapeProfile
    from polygraphy_layerprec.backend.engine_spec import EngineSpec, Infer, Sample

__all__ = ["EngineRuntime", "feeds_of"]


class EngineRuntime:
    """Opens engines on the GPU."""

    def __init__(self, profiles: Sequence[ShapeProfile] = ()) -> None:
        """Prepares to run engines that were built with `profiles`."""
        self._trt = load_tensorrt()
        self._profiles = profiles

    @contextmanager
    def open(self, spec: EngineSpec, plan: bytes) -> Iterator[Infer]:
        """Gives a function that runs the engine on a sample.

        Raises:
            EngineError: If the engine cannot run here, or lacks an output.
        """
        runner = TrtRunner(EngineFromBytes(plan))
        with engine_failures(f"load the {spec.describe()}", self._trt):
            runner.activate()
        try:
            yield lambda sample: self._infer(runner, spec, sample)
        finally:
            with suppress(PolygraphyException):  # what went wrong before is what matters
                runner.deactivate()

    def _infer(self, runner: Any, spec: EngineSpec, sample: Sample) -> Mapping[str, Any]:
        profile = choose_profile(self._profiles, sample)
        with engine_failures(f"run the {spec.describe()}", self._trt):
            if len(self._profiles) > 1:
                runner.set_profile(profile)
            made: Mapping[str, Any] = runner.infer(feeds_of(sample, runner.get_input_metadata()))
        missing = [name for name in spec.marked if name not in made]
        if missing:
            raise EngineError(
                f"The {spec.describe()} gives no {missing[0]!r}: building it changed its outputs.\n"
                f"Note: It gives: {list(made)[:10]!r}.\n"
                f"Leave this tensor out of `--outputs-from`."
            )
        return made


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
