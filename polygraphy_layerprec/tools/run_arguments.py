"""Options of `polygraphy run` about inference in emulated low precision."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from polygraphy import util
from polygraphy.tools.args import (
    ModelArgs,
    OnnxLoadArgs,
    OnnxrtSessionArgs,
    RunnerSelectArgs,
)
from polygraphy.tools.args import util as args_util
from polygraphy.tools.args.base import BaseRunnerArgs
from polygraphy.tools.script import make_invocable

from polygraphy_layerprec._native import G_LOGGER, export

if TYPE_CHECKING:
    import argparse

    from polygraphy.tools.script import Script

__all__ = ["LayerprecRunnerArgs"]

_BACKEND = "polygraphy_layerprec.backend.emulated"
_RUNNER_OPTION = "layerprec"


@export()
class LayerprecRunnerArgs(BaseRunnerArgs):
    """
    Layer Precision Emulation: running inference with low precision emulated on ONNX-Runtime.

    Depends on:

        - ModelArgs
        - OnnxLoadArgs
        - OnnxrtSessionArgs
        - RunnerSelectArgs
    """

    def get_name_opt_impl(self) -> tuple[str, str]:
        """Returns what runs the model, in words, and the option that selects it."""
        return "ONNX-Runtime with emulated low precision", _RUNNER_OPTION

    def get_extra_help_text_impl(self) -> str:
        """Returns what else the help says about the option that selects the runner."""
        return (
            "Layers run in FP16 or BF16 as on tensor cores, without a GPU; on one with "
            "`--providers cuda`. "
            "For example: polygraphy run model.onnx --onnxrt --layerprec."
        )

    def add_parser_args_impl(self) -> None:
        """Declares the options."""
        self.group.add_argument(
            "--layerprec-precision",
            help="The low precision of `--layerprec`. For example: --layerprec-precision bf16. "
            "Defaults to that of the script or ranking, else fp16.",
            metavar="NAME",
            default=None,
        )
        self.group.add_argument(
            "--layerprec-script",
            metavar="PATH",
            help="Keep in FP32 what this script of `polygraphy layerprec rank --save-script` keeps "
            "in FP32. Its data are read without running it. "
            "For example: --layerprec-script constraints.py. "
            "Defaults to none: every layer is in low precision.",
            default=None,
        )
        self.group.add_argument(
            "--layerprec-ranking",
            metavar="PATH",
            help="Keep in FP32 what this ranking of `polygraphy layerprec rank --save-ranking` "
            "proposes: the layers that overflow, and the fewest more to halve the forecast error; "
            "or what `--layerprec-top-k` or `--layerprec-tolerance` ask for. "
            "For example: --layerprec-ranking ranking.json. Defaults to none.",
            default=None,
        )
        self.group.add_argument(
            "--layerprec-top-k",
            metavar="NUM",
            help="Of the ranking, keep this many layers in FP32, the worst first. "
            "For example: --layerprec-top-k 10. Defaults to what the ranking proposes.",
            type=int,
            default=None,
        )
        self.group.add_argument(
            "--layerprec-tolerance",
            metavar="ERROR",
            help="Of the ranking, keep the fewest layers in FP32 that are forecast to leave a "
            "relative L2 error of the outputs of at most this. "
            "For example: --layerprec-tolerance 1e-3. Defaults to what the ranking proposes.",
            type=float,
            default=None,
        )

    def parse_impl(self, args: argparse.Namespace) -> None:
        """
        Parses command-line arguments and populates the following attributes:

        Attributes:
            precision (str): Name of the low precision, or None.
            script (str): Absolute path of a script, or None.
            ranking (str): Absolute path of a ranking, or None.
            top_k (int): How many layers of the ranking to keep in FP32, or None.
            tolerance (float): Error that the kept layers are forecast to leave at most, or None.
        """
        self.precision = args_util.get(args, "layerprec_precision")
        self.script = _existing("--layerprec-script", args_util.get(args, "layerprec_script"))
        self.ranking = _existing("--layerprec-ranking", args_util.get(args, "layerprec_ranking"))
        self.top_k = args_util.get(args, "layerprec_top_k")
        self.tolerance = args_util.get(args, "layerprec_tolerance")
        self._check()

    def _check(self) -> None:
        if self.precision is not None:
            from polygraphy_layerprec.tools.args.precision_name import read_precision_name

            self.precision = read_precision_name(self.precision, option="--layerprec-precision")
        if self.script is not None and self.ranking is not None:
            G_LOGGER.critical(
                "`--layerprec-script` and `--layerprec-ranking` both say what stays in FP32.\n"
                "Leave out one of them."
            )
        sizes = {"--layerprec-top-k": self.top_k, "--layerprec-tolerance": self.tolerance}
        given = [option for option, size in sizes.items() if size is not None]
        if given and self.ranking is None:
            G_LOGGER.critical(
                f"`{given[0]}` chooses layers of a ranking, but there is none.\n"
                f"Add `--layerprec-ranking ranking.json`."
            )
        if len(given) > 1:
            G_LOGGER.critical(f"Of {' and '.join(f'`{o}`' for o in given)}, leave out one.")
        if self.top_k is not None and self.top_k < 0:
            G_LOGGER.critical(f"`--layerprec-top-k` must be at least 0, got: {self.top_k}.")
        if self.tolerance is not None and not 0 < self.tolerance < float("inf"):  # NaN as well
            G_LOGGER.critical(f"`--layerprec-tolerance` must be positive, got: {self.tolerance}.")
        used = any(value is not None for value in (self.precision, self.script, self.ranking))
        runners = [option for option, _ in self.arg_groups[RunnerSelectArgs].runners.items()]
        if used and _RUNNER_OPTION not in runners:
            G_LOGGER.warning(
                "Options of `--layerprec` were given, but nothing runs in emulated low precision.\n"
                "Add `--layerprec`."
            )

    def add_to_script_impl(self, script: Script) -> None:
        """Adds the runner, and the loaders that it needs."""
        from polygraphy_layerprec.tools.run_inputs import use_own_inputs

        graph = self._add_graph(script, self._model_to_run(script))
        use_own_inputs(script, self.arg_groups, graph)
        candidate = self._add_loader(
            script,
            "CandidateFromGraph",
            graph,
            variable="lower_precision",
            precision=self.precision,
            precisions=self._add_precisions(script),
            providers=self._providers(),
        )
        script.add_import(imports=["LayerprecRunner"], frm=_BACKEND)
        script.add_runner(make_invocable("LayerprecRunner", candidate))

    def _model_to_run(self, script: Script) -> Any:
        onnx_args = self.arg_groups[OnnxLoadArgs]
        # What Polygraphy loads is in memory as a whole. A model that no option changes is read from
        # its file instead: weights stay on disk, those in another folder too.
        with util.TempAttrChange(onnx_args, {"external_data_dir": ""}):
            changed = onnx_args.must_use_onnx_loader()
        return onnx_args.add_to_script(script) if changed else self.arg_groups[ModelArgs].path

    def _add_precisions(self, script: Script) -> Any:
        if self.script is None and self.ranking is None:
            return None
        model_args = self.arg_groups[ModelArgs]
        # Which model it is, outputs included, says the file, not what `--onnx-outputs` makes of it.
        model = model_args.path
        if not model_args.model_type.is_onnx():
            model = self.arg_groups[OnnxLoadArgs].add_to_script(script, disable_custom_outputs=True)
        graph = self._add_graph(script, model)
        if self.script is not None:
            return self._add_loader(
                script, "PrecisionsFromScript", self.script, graph, variable="read_precisions"
            )
        return self._add_loader(
            script,
            "PrecisionsFromRanking",
            self.ranking,
            graph,
            variable="choose_precisions",
            top_k=self.top_k,
            tolerance=self.tolerance,
        )

    def _providers(self) -> list[str] | None:
        """What `--providers` of ONNX-Runtime says, where it says a GPU."""
        from polygraphy_layerprec.backend.emulated.placement import wants_gpu

        providers: list[str] | None = self.arg_groups[OnnxrtSessionArgs].providers
        return providers if wants_gpu(providers) else None

    def _add_graph(self, script: Script, model: Any) -> Any:
        external_data_dir = self.arg_groups[OnnxLoadArgs].external_data_dir
        return self._add_loader(
            script,
            "GraphFromOnnx",
            model,
            variable="read_graph",
            external_data_dir=external_data_dir and os.path.abspath(external_data_dir),
        )

    def _add_loader(
        self, script: Script, loader: str, *sources: Any, variable: str, **options: Any
    ) -> Any:
        script.add_import(imports=[loader], frm=_BACKEND)
        return script.add_loader(make_invocable(loader, *sources, **options), variable)


def _existing(option: str, path: str | None) -> str | None:
    """Returns the path from anywhere: a generated script may run in another folder."""
    if path is None:
        return None
    if not os.path.isfile(path):
        G_LOGGER.critical(f"No such file for `{option}`: {path!r}.\nCheck the path.")
    return os.path.abspath(path)
