"""Virtual environments with other versions of what the package depends on."""

from __future__ import annotations

import configparser
import fcntl
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

__all__ = ["ROOT", "environment_python", "oldest_python", "oldest_version"]

ROOT = Path(__file__).parents[1]
"""The repository."""

_INSTALL_SECONDS = 900


def oldest_version(distribution: str) -> str:
    """Returns the oldest version of a dependency that setup.cfg declares."""
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(ROOT / "setup.cfg")
    (version,) = re.findall(
        rf"^{distribution}>=(\S+)$", settings["options"]["install_requires"], re.MULTILINE
    )
    return version


def oldest_python() -> Path:
    """Returns a Python with the oldest Polygraphy declared, and old companions if there are any."""
    # ONNX-Runtime 1.17 and what it needs were not built for Python 3.13 and newer.
    old = sys.version_info < (3, 13)
    companions = [f"onnxruntime=={oldest_version('onnxruntime')}.*", "onnx==1.16.*", "numpy<2"]
    return environment_python(
        f"polygraphy=={oldest_version('polygraphy')}", *(companions if old else [])
    )


def environment_python(*requirements: str) -> Path:
    """Returns the Python of an environment with the package and `requirements` installed.

    It is made once and kept outside the repository. Skips the test where no registry answers.
    """
    parts = [sys.version, str(ROOT), (ROOT / "setup.cfg").read_text(), *requirements]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME", tempfile.gettempdir()))
    folder = cache / "polygraphy_layerprec_tests" / key
    folder.mkdir(parents=True, exist_ok=True)
    python = folder / "bin" / "python"
    ready = folder / "ready"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes may want it at once
        if not ready.exists():
            _install(folder, python, requirements)
            ready.touch()
    return python


def _install(folder: Path, python: Path, requirements: tuple[str, ...]) -> None:
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    command = [python, "-m", "pip", "install", "--quiet", "--editable", ROOT, *requirements]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False
    )
    if done.returncode and re.search(
        "No matching distribution|connection|retr", done.stderr, re.IGNORECASE
    ):
        pytest.skip(f"no package registry has {' '.join(requirements)} for this Python")
    assert done.returncode == 0, done.stderr
