"""The optional packages that make reports."""

from __future__ import annotations

from importlib.util import find_spec

from polygraphy_layerprec.errors import UserError

__all__ = ["check_report_packages"]


def check_report_packages() -> None:
    """Checks, before work begins, that what makes reports is installed.

    Raises:
        UserError: If it is not; the text says what to install.
    """
    missing = [name for name in ("jinja2", "bokeh") if find_spec(name) is None]
    if missing:
        raise UserError(
            f"A report in HTML needs Jinja2 and Bokeh, but {' and '.join(missing)} cannot be "
            f"imported.\nInstall them with `pip install 'polygraphy-layerprec[report]'`."
        )
