"""How Sphinx builds these pages: `make docs`, or `sphinx-build -W -n docs site`."""  # noqa: INP001

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import polygraphy_layerprec

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project: Final = "polygraphy_layerprec"
version = release = polygraphy_layerprec.__version__

extensions: Final = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
]
source_suffix: Final = {".md": "markdown", ".rst": "restructuredtext"}
nitpicky: Final = True
# What other packages document cannot be looked up offline, aliases of types have no page.
nitpick_ignore_regex: Final = [
    (r"py:.*", r"(?!polygraphy_layerprec\.).*"),
    # A graph is opaque.
    (r"py:class", r"polygraphy_layerprec\.model\.(external_data|graph|node|weights)\..*"),
    (r"py:class", r"polygraphy_layerprec\..*\.(Loss|Outputs|Progress|Sample|Runner|ImpactMethod)"),
]
myst_heading_anchors: Final = 4

smartquotes: Final = False  # two hyphens begin an option
default_role: Final = "literal"  # docstrings write code as Markdown does, in single backticks
add_module_names: Final = False
autoclass_content: Final = "both"
autodoc_member_order: Final = "bysource"
autodoc_preserve_defaults: Final = True
autodoc_typehints: Final = "signature"
autodoc_default_options: Final = {"members": True, "undoc-members": False}
python_maximum_signature_line_length: Final = 88
napoleon_numpy_docstring: Final = False

html_theme: Final = "furo"  # light and dark; search and fonts come with the pages
html_title: Final = f"polygraphy-layerprec {version}"
html_show_search_summary: Final = False  # it is fetched, which a page from a folder may not
html_copy_source: Final = False
html_show_copyright: Final = False
html_show_sphinx: Final = False
html_permalinks_icon: Final = "#"


def setup(app: Sphinx) -> None:
    """Called by Sphinx when it starts."""
    app.connect("autodoc-process-docstring", _escape_bars)


def _escape_bars(*event: Any) -> None:
    """Shows magnitudes such as |x| as they are; reStructuredText takes bars for a substitution."""
    lines: list[str] = event[-1]
    lines[:] = [line.replace("|", "\\|") for line in lines]
