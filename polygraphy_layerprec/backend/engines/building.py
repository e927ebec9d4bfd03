"""Builds engines with Polygraphy's loaders; TensorRT-RTX needs no GPU for it."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import polygraphy
from polygraphy.backend.trt import (
    EngineBytesFromNetwork,
    ModifyNetworkOutputs,
    PostprocessConfig,
    PostprocessNetwork,
)

from polygraphy_layerprec._native import G_LOGGER, shows_progress
from polygraphy_layerprec.backend.engines.networks import (
    check_outputs,
    constrain,
    lower_all,
    lower_one_layer,
    why_not_markable,
)
from polygraphy_layerprec.backend.engines.running import open_engine
from polygraphy_layerprec.backend.engines.specs import EngineError
from polygraphy_layerprec.backend.engines.tensorrt_errors import engine_failures
from polygraphy_layerprec.backend.engines.tensorrt_module import (
    describe_gpu,
    load_tensorrt,
    picks_precisions,
)
from polygraphy_layerprec.emit.name_bridge import as_layer_constraints
from polygraphy_layerprec.emit.network_view import is_strongly_typed
from polygraphy_layerprec.files.atomic_file import write_file
from polygraphy_layerprec.model import load_graph
from polygraphy_layerprec.plan.network_widths import constraint_of
from polygraphy_layerprec.report.columns import printable

if TYPE_CHECKING:
    from polygraphy_layerprec.backend.engines.options import EngineOptions
    from polygraphy_layerprec.backend.engines.specs import EngineKind, EngineSpec, RunningEngine
    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.records import RequestedPrecisions

__all__ = ["TensorrtEngines", "digest_of_model", "quiet_log"]

_READ_BYTES: Final = 2**24


def digest_of_model(graph: Graph, path: str) -> str:
    """Returns the SHA-256 of a model's file and of the files with its weights, in hex.

    Not that of `identify`, which looks at a few values of each weight.
    """
    digest = hashlib.sha256()
    data = {weight.path for weight in graph.weights.values() if weight.path is not None}
    for name in (path, *sorted(data - {path})):
        with open(name, "rb") as file:
            while block := file.read(_READ_BYTES):
                digest.update(block)
        digest.update(b"\0end of file\0")
    return digest.hexdigest()


class TensorrtEngines:
    """The engines of one model, built with whichever TensorRT Polygraphy uses."""

    def __init__(
        self,
        graph: Graph,
        options: EngineOptions,
        *,
        precision: str,
        timing_cache_path: str | None = None,
    ) -> None:
        """Prepares to build.

        Args:
            graph: The model.
            options: How engines are made.
            precision: What layers are lowered to: `fp16` or `bf16`.
            timing_cache_path: A file that every build reads and adds to.

        Raises:
            ExecutionError: If TensorRT is not installed.
        """
        self._trt = load_tensorrt()
        self._graph = graph
        self._options = options
        self._precision = precision
        self._timing_cache_path = timing_cache_path
        self._digests: dict[str, str] = {}

    @property
    def versions(self) -> tuple[tuple[str, str], ...]:
        """The name and version of the TensorRT in use."""
        return ((self._trt.__name__, str(self._trt.__version__)),)

    def markable(self, names: Sequence[str]) -> Mapping[str, str]:
        """As `Engines`; raises `EngineError` if TensorRT cannot parse the model."""
        with engine_failures("read the model", self._trt), quiet_log():
            _builder, network, *_parser = self._options.load_network(self._options.model_path)
            return why_not_markable(network, names)

    def identity(self, spec: EngineSpec) -> dict[str, Any]:
        """Returns everything that decides what is built, as JSON values."""
        identity = {
            "model": self._digest_of(self._options.model_path),
            "kind": spec.kind,
            "layer": spec.layer,
            "marked": list(spec.marked),
            "debug": spec.with_debug_tensors,
            "precision": self._precision,
            "options": self._options.identity,
            "versions": dict((*self.versions, ("polygraphy", polygraphy.__version__))),
            "gpu": describe_gpu(),
        }
        if spec.asked is not None:
            identity["asked"] = _identity_of(spec.asked)
        if spec.mixed_path:
            identity["mixed"] = self._digest_of(spec.mixed_path)
        return identity

    def build(self, spec: EngineSpec, *, observe: Callable[[Any], None] | None = None) -> bytes:
        """As `Engines`; raises `EngineError` also if the network lacks an output that is wanted."""
        G_LOGGER.info(f"Building the {printable(spec.describe())}")
        network = self._mixed_network(spec) if spec.mixed_path else self._network(spec)
        if observe is not None:
            network = PostprocessNetwork(network, observe)
        with (
            engine_failures(f"build the {spec.describe()}", self._trt),
            quiet_log(),
            tempfile.TemporaryDirectory(prefix="layerprec_") as folder,
        ):
            grown_cache = os.path.join(folder, "timing.cache")
            plan = bytes(
                EngineBytesFromNetwork(
                    network,
                    self._config(spec.kind),
                    save_timing_cache=grown_cache if self._timing_cache_path else None,
                )()
            )
            self._keep_timing_cache(grown_cache)
        return plan

    def open(self, spec: EngineSpec, plan: bytes) -> AbstractContextManager[RunningEngine]:
        """Gives a serialised engine to run, as `open_engine` does."""
        return open_engine(spec, plan, self._options.profiles)

    def _digest_of(self, path: str) -> str:
        if path not in self._digests:
            of_model = path == self._options.model_path
            graph = self._graph if of_model else load_graph(path)
            self._digests[path] = digest_of_model(graph, path)
        return self._digests[path]

    def _network(self, spec: EngineSpec) -> Any:
        outputs = [*self._graph.outputs, *spec.marked]
        network: Any = partial(
            self._options.load_network,
            self._options.model_path,
            with_debug_tensors=spec.with_debug_tensors,
        )
        if spec.marked:
            network = ModifyNetworkOutputs(network, outputs=outputs)
        # Lowered after it was marked: the rewriter hands outputs out in FP32 under their names.
        if spec.kind == "lowered":
            network = PostprocessNetwork(network, partial(lower_all, precision=self._precision))
        elif spec.asked is not None:
            network = PostprocessNetwork(network, partial(constrain, asked=spec.asked))
        elif spec.kind == "one layer":
            (layer,) = as_layer_constraints([constraint_of(self._graph.producers[spec.layer])])
            network = PostprocessNetwork(
                network, partial(lower_one_layer, layer=layer, precision=self._precision)
            )
        return PostprocessNetwork(network, partial(check_outputs, wanted=outputs))

    def _mixed_network(self, spec: EngineSpec) -> Any:
        """A mixed-precision model as it is; it may name its outputs as it likes."""
        weak = picks_precisions(self._trt)
        if weak and not hasattr(self._trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
            raise EngineError(
                f"TensorRT {self._trt.__version__} takes the types of a model as mere hints.\n"
                f"Verify a script instead, with `--script`."
            )
        return partial(self._options.load_network, spec.mixed_path, strongly_typed=weak)

    def _config(self, kind: EngineKind) -> Any:
        cache = self._timing_cache_path
        known = cache if cache is not None and os.path.exists(cache) else None
        return PostprocessConfig(
            self._options.make_config(known),
            partial(self._set_flags, kind),
        )

    def _set_flags(self, kind: EngineKind, _builder: Any, network: Any, config: Any) -> None:
        flags = self._trt.BuilderFlag
        # TF32 is on by default, and Polygraphy leaves it on for TensorRT-RTX.
        if self._options.allows_tf32:
            config.set_flag(flags.TF32)
        else:
            config.clear_flag(flags.TF32)
        if kind == "reference" or is_strongly_typed(network, self._trt):
            return
        config.set_flag(getattr(flags, self._precision.upper()))
        if kind != "lowered":
            config.set_flag(flags.OBEY_PRECISION_CONSTRAINTS)

    def _keep_timing_cache(self, path: str) -> None:
        # Polygraphy writes in place, so that a kill would leave half a cache.
        if self._timing_cache_path is None or not os.path.exists(path):
            return
        with open(path, "rb") as grown:
            write_file(self._timing_cache_path, lambda file: file.write(grown.read()))


def _identity_of(asked: RequestedPrecisions) -> dict[str, Any]:
    """What decides an engine that keeps layers in FP32; why they are kept does not."""

    def places(constraints: Sequence[Any]) -> list[Any]:
        return [[c.name, c.op, [*c.inputs], [*c.outputs], [*c.trace]] for c in constraints]

    return {
        "constraints": places(asked.constraints),
        "left": places(asked.widths.left),
        "fp32_tensors": [*asked.widths.fp32_tensors],
        "low_tensors": [*asked.widths.low_tensors],
    }


@contextmanager
def quiet_log() -> Iterator[None]:
    """Leaves out what Polygraphy says of each build, unless the user asked for more."""
    if not shows_progress():
        yield
        return
    logger: Any = G_LOGGER
    with logger.verbosity(logger.WARNING):
        yield
