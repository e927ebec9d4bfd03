"""The engines of one model on one set of samples: each is built once, each result is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from polygraphy_layerprec.backend.engines.store import digest_of

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from polygraphy_layerprec.backend.engines.specs import (
        Engines,
        EngineSpec,
        RunningEngine,
        Sample,
    )
    from polygraphy_layerprec.backend.engines.store import EngineStore

__all__ = ["EngineSession", "EngineStack", "only"]


@dataclass(frozen=True, slots=True)
class EngineStack:
    """All that a ranking or a verification on engines needs."""

    engines: Engines
    """Builds and runs engines."""

    store: EngineStore
    """Keeps what was built and measured."""

    run_fp32: Callable[[Sample], Sample]
    """Runs the FP32 model elsewhere: an ordinary ONNX-Runtime session."""

    def open(self, spec: EngineSpec) -> AbstractContextManager[RunningEngine]:
        """Gives an engine to run, built if it is not kept yet.

        Raises:
            EngineError: If it cannot be built, or not run here.
        """
        return self.engines.open(spec, self.plan(spec))

    def plan(self, spec: EngineSpec) -> bytes:
        """Returns a serialised engine, built if it is not kept yet.

        Raises:
            EngineError: If it cannot be built.
        """
        return self.store.engine(self.engines.identity(spec), lambda: self.engines.build(spec))


class EngineSession:
    """Measures with engines on a set of samples, or finds what an earlier run measured."""

    def __init__(
        self, stack: EngineStack, samples: Sequence[Sample], *, outputs: Sequence[str]
    ) -> None:
        """Prepares to measure.

        Args:
            stack: Builds, runs and keeps.
            samples: Input samples, each an array for every input by name.
            outputs: Names of the model's outputs.
        """
        self.stack = stack
        self.samples = samples
        self.outputs = tuple(outputs)
        self._samples_digest = _digest_of_samples(samples)

    def result(self, what: str, specs: Sequence[EngineSpec], measure: Callable[[], Any]) -> Any:
        """Returns the JSON values that `measure` gave with these engines, now or in an earlier run.

        Args:
            what: What is measured.
            specs: The engines that decide it.
            measure: Measures it.
        """
        return self.stack.store.result(self._identity(what, *specs), measure)

    def save_outputs(self, spec: EngineSpec, index: int, outputs: Sample) -> None:
        """Keeps the model's outputs as an engine gave them for a sample."""
        self.stack.store.save_outputs(self._key(spec), index, only(outputs, self.outputs))

    def load_outputs(self, spec: EngineSpec, index: int) -> dict[str, np.ndarray[Any, Any]]:
        """Returns the outputs that were kept of a sample.

        Raises:
            ExecutionError: If they went away.
        """
        return self.stack.store.load_outputs(self._key(spec), index)

    def _key(self, spec: EngineSpec) -> str:
        return digest_of(self._identity(f"outputs of the {spec.kind}", spec))

    def _identity(self, what: str, *specs: EngineSpec) -> dict[str, Any]:
        return {
            "what": what,
            "engines": [self.stack.engines.identity(spec) for spec in specs],
            "samples": self._samples_digest,
            "outputs": list(self.outputs),
        }


def only(values: Sample, names: Collection[str]) -> dict[str, np.ndarray[Any, Any]]:
    """Returns those of `names` that there are."""
    return {name: values[name] for name in names if name in values}


def _digest_of_samples(samples: Sequence[Sample]) -> str:
    digest = hashlib.sha256()
    for sample in samples:
        for name, values in sorted(sample.items()):
            digest.update(repr((name, str(values.dtype), values.shape)).encode())
            digest.update(_bytes_of(values))
        digest.update(b"\0end of sample\0")
    return digest.hexdigest()


def _bytes_of(values: np.ndarray[Any, Any]) -> bytes:
    # Text has no bytes of its own in an array of objects.
    return repr(values.tolist()).encode() if values.dtype.hasobject else values.tobytes()
