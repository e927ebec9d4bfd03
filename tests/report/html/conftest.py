from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.browser import Browser, start_browser

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def shared_browser(tmp_path_factory) -> Iterator[Browser]:
    yield from start_browser(tmp_path_factory.mktemp("profile"))


@pytest.fixture
def browser(shared_browser) -> Browser:
    """Returns a browser that is 1280 pixels wide and prefers light."""
    shared_browser.prefer("light")
    shared_browser.resize(1280)
    return shared_browser
