"""How errors pass a node that ran: measured by running it once more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from polygraphy_layerprec.execution.probes.gain_probe import probe_gains

if TYPE_CHECKING:
    import onnxruntime as ort

    from polygraphy_layerprec.execution.emulation.reference_run import ReferenceRun
    from polygraphy_layerprec.execution.kernels.device_runner import Runner
    from polygraphy_layerprec.execution.streams import Streams
    from polygraphy_layerprec.model import Node
    from polygraphy_layerprec.precision import Precision

__all__ = ["GainMeasurer", "candidates_of"]


class GainMeasurer:
    """Measures gains for the nodes that need them."""

    def __init__(
        self, runner: Runner, precision: Precision, *, needs_gains: Callable[[Node], bool]
    ) -> None:
        self._runner = runner
        self._precision = precision
        self._needs_gains = needs_gains

    def in_fp32(
        self, referenced: ReferenceRun, candidates: Sequence[ort.OrtValue | None] | None = None
    ) -> Mapping[str, float]:
        """Returns how errors pass the node in FP32.

        Args:
            referenced: The node, after its reference ran.
            candidates: What the candidate's inputs became in FP32, where that is known.
        """
        return self.measured(
            referenced,
            referenced.inputs,
            candidates_of(referenced.streams),
            referenced.outputs,
            candidates,
            lambda feeds: self._runner.run(referenced.node, feeds),
        )

    def measured(
        self,
        referenced: ReferenceRun,
        exact: Mapping[str, ort.OrtValue],
        entering: Mapping[str, ort.OrtValue],
        outputs: Sequence[ort.OrtValue | None],
        candidates: Sequence[ort.OrtValue | None] | None,
        run: Callable[[Mapping[str, ort.OrtValue]], Sequence[ort.OrtValue | None]],
    ) -> Mapping[str, float]:
        """Returns by input how much larger an error leaves the node than it came.

        Args:
            referenced: The node, after its reference ran.
            exact: What became `outputs`.
            entering: What became `candidates`, where these are known.
            outputs: Outputs of the node.
            candidates: Outputs of the node, or None.
            run: Runs the node.
        """
        variable = referenced.variable
        if not variable or not self._needs_gains(referenced.node):
            return {}
        if referenced.is_random:
            return dict.fromkeys(variable, 0.0)  # the noise stays the same
        differing = [name for name, tensor in entering.items() if tensor is not exact[name]]
        return probe_gains(
            run,
            referenced.node,
            exact,
            entering,
            outputs,
            variable,
            self._precision,
            candidates if len(differing) == 1 else None,
        )


def candidates_of(streams: Mapping[str, Streams]) -> dict[str, ort.OrtValue]:
    """Returns the tensors of the candidate, by name."""
    return {name: stream.candidate for name, stream in streams.items()}
