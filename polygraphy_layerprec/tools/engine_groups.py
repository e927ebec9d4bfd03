"""From Polygraphy's TensorRT argument groups to the options of a build."""

from __future__ import annotations

import argparse
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from polygraphy.tools.args import (
    ModelArgs,
    OnnxLoadArgs,
    TrtConfigArgs,
    TrtLoadEngineBytesArgs,
    TrtLoadNetworkArgs,
    TrtLoadPluginsArgs,
    TrtOnnxFlagArgs,
)
from polygraphy.tools.script import Script, inline, safe

if TYPE_CHECKING:
    from collections.abc import Callable

    from polygraphy_layerprec.backend.engines.options import EngineOptions
    from polygraphy_layerprec.report.next_steps import ShapeRange

__all__ = ["given_options", "groups_of_builds", "make_engine_options", "tensorrt_groups"]

_GROUPS: Final = (
    TrtConfigArgs,
    TrtOnnxFlagArgs,
    TrtLoadPluginsArgs,
    TrtLoadNetworkArgs,
    TrtLoadEngineBytesArgs,
)

_DETAILED: Final = inline(safe("trt.ProfilingVerbosity.DETAILED"))
_NOT_OF_THE_BUILD: Final = ("arg_groups", "group", "load_timing_cache", "save_timing_cache")


def tensorrt_groups() -> list[Any]:
    """Returns Polygraphy's argument groups about building engines, to subscribe to."""
    return [
        TrtConfigArgs(),
        TrtOnnxFlagArgs(),
        TrtLoadPluginsArgs(),
        TrtLoadNetworkArgs(allow_custom_outputs=False),
        TrtLoadEngineBytesArgs(),
    ]


def groups_of_builds(groups: Mapping[type, Any]) -> list[Any]:
    """Returns what argparse groups the options of `tensorrt_groups` in; none without them."""
    return [groups[kind].group for kind in _GROUPS if kind in groups]


def given_options(groups: Mapping[type, Any], args: argparse.Namespace) -> list[str]:
    """Returns the TensorRT options on the command line, by their first spelling."""
    actions = [action for kind in _GROUPS for action in groups[kind].group._group_actions]  # noqa: SLF001 - argparse has no other way to list them
    return [
        action.option_strings[0]
        for action in actions
        if getattr(args, action.dest, action.default) != action.default
    ]


def make_engine_options(
    groups: dict[type, Any], model_path: str, shape_ranges: Mapping[str, ShapeRange]
) -> EngineOptions:
    """Returns the options of a build, as the groups parsed them.

    Args:
        groups: Argument groups by type, `tensorrt_groups` and `ModelArgs` among them.
        model_path: The model.
        shape_ranges: Smallest and largest shape of each input of dynamic shape, for a profile where
            the user gave none.
    """
    from polygraphy_layerprec.backend.engines.options import EngineOptions

    config, network = groups[TrtConfigArgs], groups[TrtLoadNetworkArgs]
    config.fp16 = config.bf16 = None  # of the lowered engine alone, which is not said here
    if not config.profile_dicts and shape_ranges:
        config.profile_dicts = [
            {name: (low, high, high) for name, (low, high) in shape_ranges.items()}
        ]
    _add_onnx_group(groups)

    def load_network(
        path: str, *, strongly_typed: bool = False, with_debug_tensors: bool = False
    ) -> Any:
        changes = {
            "strongly_typed": network.strongly_typed or strongly_typed or None,
            "mark_unfused_tensors_as_debug_tensors": with_debug_tensors or None,
        }
        # Polygraphy takes what follows a colon in the path for the name of a function.
        with _changed(network, changes), _changed(groups[ModelArgs], {"path": path}):
            return _run(network.add_to_script)()

    def make_config(timing_cache: str | None) -> Any:
        changes = {
            "load_timing_cache": timing_cache or config.load_timing_cache,
            # Older versions of Polygraphy ask for one that TensorRT does not have.
            "profiling_verbosity": config.profiling_verbosity or _DETAILED,
        }
        with _changed(config, changes):
            return _run(config.add_to_script)

    return EngineOptions(
        model_path,
        load_network,
        make_config,
        profiles=tuple(config.profile_dicts),
        allows_tf32=bool(config.tf32),
        identity=_identity(groups),
    )


def _add_onnx_group(groups: dict[type, Any]) -> None:
    """Adds the group that `TrtLoadNetworkArgs` asks whether the model is to be changed first."""
    onnx = OnnxLoadArgs(allow_saving=False, allow_shape_inference=False, allow_from_tf=False)
    onnx.register(groups)
    onnx.parse(argparse.Namespace())
    groups[OnnxLoadArgs] = onnx


# Not Polygraphy's `run_script`, which finds nothing under Python 3.13 before Polygraphy 0.53.
def _run(add_to_script: Callable[[Script], Any]) -> Any:
    """Returns the loader that a group makes."""
    script = Script()
    name = add_to_script(script)
    namespace: dict[str, Any] = {}
    exec(str(script), namespace)  # noqa: S102 - as Polygraphy's tools do; it quotes what users say
    return namespace[name.unwrap()]


def _identity(groups: Mapping[type, Any]) -> dict[str, Any]:
    """Everything that the options say about a build, with digests of the files that they name."""
    said = {
        f"{kind.__name__}.{name}": repr(value)
        for kind in _GROUPS
        for name, value in sorted(vars(groups[kind]).items())
        if name not in _NOT_OF_THE_BUILD and value is not None
    }
    paths = [path for kind in _GROUPS for path in _files_in(list(vars(groups[kind]).values()))]
    return {"options": said, "files": {path: _digest_of_file(path) for path in sorted(set(paths))}}


def _files_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if os.path.isfile(value):
            yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _files_in(item)


def _digest_of_file(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


@contextmanager
def _changed(group: Any, changes: Mapping[str, Any]) -> Iterator[None]:
    """Not Polygraphy's `TempAttrChange`, which leaves out what is to be None."""
    before = {name: getattr(group, name, None) for name in changes}
    for name, value in changes.items():
        setattr(group, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(group, name, value)
