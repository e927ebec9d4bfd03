"""The entry point that Polygraphy loads, for every one of its commands.

Polygraphy knows plugins of `run` only. It loads them while it walks its list of tools, so a tool
that is appended here is still set up: that is how `polygraphy layerprec` comes to be.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

__all__ = ["export_argument_groups"]


def export_argument_groups() -> list[Any]:
    """Returns the argument groups to add to `polygraphy run`, and registers the tool `layerprec`.

    Never raises, since Polygraphy would warn about it on every command.
    """
    # Imported here, as all of the package's modules are: the hook alone costs next to nothing.
    try:
        from polygraphy.tools import registry  # noqa: PLC0415

        if not any(tool.name == "layerprec" for tool in registry.TOOL_REGISTRY):
            registry.TOOL_REGISTRY.append(_make_tool(registry))
    except (ImportError, AttributeError):
        # A Polygraphy whose list of tools looks otherwise: `python -m` remains as the second door.
        pass
    return _make_argument_groups()


def _make_tool(registry: Any) -> Any:
    try:
        from polygraphy_layerprec.tools.layerprec import Layerprec  # noqa: PLC0415

        # Other commands list the tool, and need not pay for its options.
        is_listed_only = Layerprec.NAME not in sys.argv
        if not is_listed_only:
            importlib.import_module("polygraphy_layerprec.tools.subtool")
        return Layerprec(is_listed_only=is_listed_only)
    except Exception as error:  # noqa: BLE001 - whatever it is, other commands must not suffer
        return registry.MissingTool("layerprec", error)


def _make_argument_groups() -> list[Any]:
    try:
        from polygraphy_layerprec.tools.run_arguments import LayerprecRunnerArgs  # noqa: PLC0415

        return [LayerprecRunnerArgs()]
    except Exception:  # noqa: BLE001 - as above; the tool is listed with the reason
        return []
