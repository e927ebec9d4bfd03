"""Builds the engines of a ranking with Polygraphy's loaders; TensorRT-RTX needs no GPU for it."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from polygraphy_layerprec.backend.engine_networks import (
    check_outputs,
    lower_all,
    lower_one_layer,
    why_not_markable,
)
from polygraphy_layerprec.backend.tensorrt_errors import engine_failures
from polygraphy_layerprec.backend.tensorrt_module import describe_gpu, load_tensorrt
from polygraphy_layerprec.emit.name_bridge import LayerConstraint
from polygraphy_layerprec.emit.network_view import is_strongly_typed
from polygraphy_layerprec.report.atomic_file import write_file
from polygraphy_layerprec.report.columns import printable

if TYPE_CHECKING:
    from polygraphy_layerprec.backend.engine_options import EngineOptions
    from polygraphy_layerprec.backend.engine_spec import EngineKind, EngineSpec
    from polygraphy_layerprec.model import Graph

__all__ = ["EngineBuilder", "digest_of_model", "quiet_log", "tensorrt_versions"]

_READ_BYTES: Final = 2**24


def tensorrt_versions() -> tuple[tuple[str, str], ...]:
    """Returns the name and version of the TensorRT in use."""
    trt = load_tensorrt()
    return ((trt.__name__, str(trt.__version__)),)


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


class EngineBuilder:
    """Builds engines of one model: in FP32, all lowered, or with one layer lowered."""

    def __init__(
        self,
        graph: Graph,
        options: EngineOptions,
        *,
        precision: str,
        model_digest: str,
        timing_cache_path: str | None = None,
    ) -> None:
        """Prepares to build.

        Args:
            graph: The model.
            options: How engines are made.
            precision: What layers are lowered to: `fp16` or `bf16`.
            model_digest: SHA-256 of the model's files.
            timing_cache_path: A file that every build reads and adds to.

        Raises:
            ExecutionError: If TensorRT is not installed.
        """
        self._trt = load_tensorrt()
        self._graph = graph
        self._options = options
        self._precision = precision
        self._model_digest = model_digest
        self._timing_cache_path = timing_cache_path

    def markable(self, names: Sequence[str]) -> Mapping[str, str]:
        """Returns why a tensor cannot be marked, by name; empty text where it can be.

        Raises:
            EngineError: If TensorRT cannot parse the model.
        """
        with engine_failures("read the model", self._trt), quiet_log():
            _builder, network, *_parser = self._options.load_network()
            return why_not_markable(network, names)

    def identity(self, spec: EngineSpec) -> dict[str, Any]:
        """Returns everything that decides what is built, as JSON values."""
        return {
            "model": self._model_digest,
            "kind": spec.kind,
            "layer": spec.layer,
            "marked": list(spec.marked),
            "debug": spec.with_debug_tensors,
            "precision": self._precision,
            "options": self._options.identity,
            "versions": dict((*tensorrt_versions(), ("polygraphy", polygraphy.__version__))),
            "gpu": describe_gpu(),
        }

    def build(self, spec: EngineSpec) -> bytes:
        """Returns a serialised engine.

        Raises:
            EngineError: If the network cannot be lowered, TensorRT cannot build it, or it has
                not the outputs that it should have.
        """
        G_LOGGER.info(f"Building the {printable(spec.describe())}")
        with (
            engine_failures(f"build the {spec.describe()}", self._trt),
            quiet_log(),
            tempfile.TemporaryDirectory(prefix="layerprec_") as folder,
        ):
            grown_cache = os.path.join(folder, "timing.cache")
            plan = bytes(
                EngineBytesFromNetwork(
                    self._network(spec),
                    self._config(spec.kind),
                    save_timing_cache=grown_cache if self._timing_cache_path else None,
                )()
            )
            self._keep_timing_cache(grown_cache)
        return plan

    def _network(self, spec: EngineSpec) -> Any:
        outputs = [*self._graph.outputs, *spec.marked]
        debug_network = self._options.load_debug_network if spec.with_debug_tensors else None
        network: Any = debug_network or self._options.load_network
        if spec.marked:
            network = ModifyNetworkOutputs(network, outputs=outputs)
        # Lowered after it was marked: the rewriter hands outputs out in FP32 under their names.
        if spec.kind == "lowered":
            network = PostprocessNetwork(network, self._lower)
        elif spec.kind == "one layer":
            layer = self._constraint(spec.layer)
            network = PostprocessNetwork(
                network, lambda network: lower_one_layer(network, layer, self._precision)
            )
        return PostprocessNetwork(network, lambda network: check_outputs(network, outputs))

    def _lower(self, network: Any) -> None:
        lower_all(network, self._precision)

    def _constraint(self, output: str) -> LayerConstraint:
        node = self._graph.producers[output]
        trace = node.trace if node.path else ()
        return LayerConstraint(node.proto.name, node.op_type, node.inputs, node.outputs, "", trace)

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
        if kind == "one layer":
            config.set_flag(flags.OBEY_PRECISION_CONSTRAINTS)

    def _keep_timing_cache(self, path: str) -> None:
        # Polygraphy writes in place, so that a kill would leave half a cache.
        if self._timing_cache_path is None or not os.path.exists(path):
            return
        with open(path, "rb") as grown:
            write_file(self._timing_cache_path, lambda file: file.write(grown.read()))


@contextmanager
def quiet_log() -> Iterator[None]:
    """Leaves out what Polygraphy says of each build, unless the user asked for more."""
    if not shows_progress():
        yield
        return
    logger: Any = G_LOGGER
    with logger.verbosity(logger.WARNING):
        yield
