from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Machines that share their cores stall now and then: slowness alone is no failure.
_UNHURRIED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("same", derandomize=True, database=None, **_UNHURRIED)
# From Hypothesis's own defaults, which on CI are not those in force.
settings.register_profile("explore", settings.get_profile("default"), print_blob=True, **_UNHURRIED)
settings.load_profile("same")  # `--hypothesis-profile` replaces it


@pytest.hookimpl(trylast=True)  # when Hypothesis has read `--hypothesis-profile`
def pytest_configure():
    # It would draw constants out of all our modules that are loaded by now, so that an example
    # would depend on which tests were selected, and on what ran before in the same process.
    if settings.default.derandomize and hasattr(providers, "_get_local_constants"):
        providers._get_local_constants = providers.Constants


def pytest_addoption(parser):
    parser.addoption(
        "--update-golden", action="store_true", help="write golden files instead of comparing them"
    )


@pytest.fixture
def check_golden(request) -> Callable[[Path, str], None]:
    """Compares a text with a file, or writes the file under `--update-golden`."""

    def check(path: Path, text: str) -> None:
        if request.config.getoption("--update-golden"):
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8")

    return check
