"""Inputs of `polygraphy run --layerprec`, where Polygraphy cannot make or read them itself."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from polygraphy.tools.args import ComparatorCompareArgs, DataLoaderArgs, ModelArgs
from polygraphy.tools.script import make_invocable

from polygraphy_layerprec._native import G_LOGGER
from polygraphy_layerprec.tools.args.samples import check_paths

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from polygraphy.tools.script import Script

__all__ = ["use_own_inputs"]

_BACKEND = "polygraphy_layerprec.backend.emulated"


class _OwnDataLoader(DataLoaderArgs):
    """Polygraphy's options about inputs, with a loader of this package."""

    def __init__(self, options: DataLoaderArgs, loader: Any) -> None:
        for name, value in vars(options).items():
            setattr(self, name, value)
        self._loader = loader

    def add_to_script_impl(self, *_: Any, **__: Any) -> Any:
        """Returns the name of the loader, which the script has already."""
        return self._loader


def use_own_inputs(script: Script, arg_groups: MutableMapping[type, Any], graph: Any) -> None:
    """Replaces Polygraphy's data loader in `arg_groups` where it would fail.

    That is where an input has a dynamic shape that was not given, which Polygraphy makes 1 on all
    axes, and where inputs are in files: where it finds none, it compares nothing and passes.

    Args:
        script: What will run.
        arg_groups: The argument groups of `polygraphy run`.
        graph: Name of the loader of the graph in the script.
    """
    options = arg_groups[DataLoaderArgs]
    if options.data_loader_script:
        return
    if options.load_inputs_paths:
        check_paths(options.load_inputs_paths)
        paths = [os.path.abspath(path) for path in options.load_inputs_paths]
        _replace(script, arg_groups, "InputsFromFiles", paths, graph)
    elif getattr(options, "data_loader_backend_module", None) != "torch" and _is_open(arg_groups):
        if arg_groups[ComparatorCompareArgs].load_outputs_paths:
            G_LOGGER.warning(
                "Outputs are loaded, but the inputs are made up: they need not be the same.\n"
                "Give those that the outputs were made from, with `--load-inputs`."
            )
        shapes = {name: list(m.shape) for name, m in _given_shapes(arg_groups).items()}
        _replace(
            script,
            arg_groups,
            "PlausibleInputs",
            graph,
            shapes=shapes or None,
            val_range=options.val_range,
            seed=options.seed,
            iterations=options.iterations,
        )


def _replace(
    script: Script, arg_groups: MutableMapping[type, Any], loader: str, *sources: Any, **named: Any
) -> None:
    script.add_import(imports=[loader], frm=_BACKEND)
    # Not `script.set_data_loader`: that comes before the loaders, and so before the graph.
    name = script.add_loader(make_invocable(loader, *sources, **named), "load_inputs")
    arg_groups[DataLoaderArgs] = _OwnDataLoader(arg_groups[DataLoaderArgs], name)


def _is_open(arg_groups: MutableMapping[type, Any]) -> bool:
    """Whether an input has a shape that is neither fixed nor given."""
    model = arg_groups[ModelArgs]
    if not model.model_type.is_onnx():
        return False
    from polygraphy_layerprec.model import ModelError, load_graph

    try:
        inputs = load_graph(model.path).inputs
    except ModelError:
        return False  # what is wrong with the model, its own loader says
    given = _given_shapes(arg_groups)
    return any(
        wanted.name not in given
        and (wanted.shape is None or not all(isinstance(e, int) for e in wanted.shape))
        for wanted in inputs
    )


def _given_shapes(arg_groups: MutableMapping[type, Any]) -> Any:
    return arg_groups[ModelArgs].input_shapes or {}
