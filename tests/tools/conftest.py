"""The command line in this process."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from polygraphy_layerprec.tools.main import main


@pytest.fixture
def command(monkeypatch, capsys) -> Callable[..., tuple[int | str | None, str]]:
    """Runs a command on a wide terminal, and returns its exit code and what it said."""
    monkeypatch.setenv("COLUMNS", "400")

    def run(*words: object) -> tuple[int | str | None, str]:
        try:
            status: int | str | None = main([str(word) for word in words])
        except SystemExit as stopped:
            status = stopped.code
        return status, "".join(capsys.readouterr())

    return run
