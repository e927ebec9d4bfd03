"""The documentation site: built strictly, complete, with links that lead somewhere, offline."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.processes import LONGEST_SECONDS

for needed in ("sphinx", "myst_parser", "furo"):
    pytest.importorskip(needed, reason="the `docs` extra is not installed")

DOCS = Path(__file__).parents[2] / "docs"


def build(source, target):
    """Builds as `make docs` does, for which any warning is an error."""
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-E"]
    return subprocess.run(
        [*command, "-d", target.with_name("doctrees"), source, target],
        capture_output=True,
        text=True,
        check=False,
        timeout=LONGEST_SECONDS,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    target = tmp_path_factory.mktemp("docs") / "site"
    done = build(DOCS, target)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def build_page(tmp_path):
    """Builds a site of one page with the settings of the real one."""

    def build_one(text):
        shutil.copy(DOCS / "conf.py", tmp_path)
        (tmp_path / "index.md").write_text(text, encoding="utf-8")
        return build(tmp_path, tmp_path / "site" / "html")

    return build_one


class Page(HTMLParser):
    """What a page links to, what it loads, and what can be linked to in it."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loads, self.anchors, self.navigation = [], [], set(), set()
        self._navigation_depth = 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors |= {given[key] for key in ("id", "name") if given.get(key)}
        if tag == "div" and (self._navigation_depth or given.get("class") == "sidebar-tree"):
            self._navigation_depth += 1
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
            if self._navigation_depth:
                self.navigation.add(given["href"])
        if tag in {"script", "img"} and given.get("src"):
            self.loads.append(given["src"])
        if tag == "link" and given.get("rel") in {"stylesheet", "icon", "preload"}:
            self.loads.append(given["href"])

    def handle_endtag(self, tag):
        if tag == "div" and self._navigation_depth:
            self._navigation_depth -= 1


@pytest.fixture(scope="module")
def pages(site):
    return {path.resolve(): Page(path) for path in site.rglob("*.html")}


def test_every_page_is_in_the_navigation(site, pages):
    navigation = pages[(site / "index.html").resolve()].navigation
    sources = [path.relative_to(DOCS) for path in DOCS.rglob("*.md") if path.stem != "index"]

    missing = {
        str(source)
        for source in sources
        if source.with_suffix(".html").as_posix() not in navigation
    }

    assert len(sources) > 20
    assert not missing


def test_links_lead_to_pages_and_anchors_that_exist(pages):
    broken, followed = [], 0
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            followed += 1
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            known = pages[target].anchors | {""} if target in pages else {""}
            if not target.is_file() or unquote(parts.fragment) not in known:
                broken.append((path.name, link))

    assert followed > 1000
    assert not broken


def test_nothing_is_loaded_from_the_network(pages):
    loaded = {load for page in pages.values() for load in page.loads}

    assert loaded
    assert not [load for load in loaded if urlsplit(load).scheme or load.startswith("//")]


def test_style_sheets_load_nothing_from_the_network(site):
    sheets = [path.read_text(encoding="utf-8") for path in site.rglob("*.css")]

    assert sheets
    assert not [sheet for sheet in sheets if re.search(r"url\(\s*['\"]?(https?:)?//", sheet)]


def test_there_is_a_light_and_a_dark_form(site):
    sheets = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))

    assert "prefers-color-scheme:dark" in sheets.replace(" ", "")
    assert "theme-toggle" in (site / "index.html").read_text(encoding="utf-8")


def test_the_search_index_is_a_script_that_knows_the_pages(site):
    index = (site / "searchindex.js").read_text(encoding="utf-8")

    # A script, unlike what would have to be fetched, also loads from a folder.
    assert index.startswith("Search.setIndex(")
    assert "how-to/nan-in-fp16" in index
    assert "infin" in index


FAULTY = """
# Page

[a page](missing-page.md) and [a heading](#missing-heading)

```{eval-rst}
:py:func:`polygraphy_layerprec.missing_reference`

.. autofunction:: polygraphy_layerprec.missing_docstring
```
"""


def test_what_does_not_exist_fails_the_build(build_page):
    done = build_page(FAULTY)

    assert done.returncode != 0
    for missing in ("page.md", "heading", "reference", "docstring"):
        assert re.search(rf"WARNING: .*missing[-_]{missing}", done.stderr), missing


def test_a_page_without_faults_is_built(build_page):
    done = build_page("# Page\n\n[itself](#page)")

    assert done.returncode == 0, done.stderr
