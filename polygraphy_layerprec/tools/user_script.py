"""Functions of the user's own scripts: what goes wrong in them is told by file and line."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from importlib.machinery import ModuleSpec
    from types import ModuleType

__all__ = ["UserScriptError", "load_function", "load_iterator", "load_samples"]

_NEW_LINE: Final = "\n"


class UserScriptError(Exception):
    """A script of the user failed; the text says which, where and why. The cause is chained."""

    def __init__(self, message: str, traceback_text: str = "") -> None:
        """Stores what went wrong, and how it came to it."""
        super().__init__(message)
        self.traceback_text = traceback_text
        """The traceback from the script on, without what called it."""


def load_function(path: str, name: str, *, option: str) -> Callable[..., Any]:
    """Returns a function of a Python script, which raises nothing but `UserScriptError`.

    Args:
        path: The script.
        name: The function.
        option: The option that named the script.

    Raises:
        UserScriptError: If the script fails or ends, or has no such function.
    """
    # Not `polygraphy.mod.import_from_script`: it takes a script called `random.py` for the standard
    # library's module, and where a script fails it says neither in which line nor of what type.
    name = str(name)  # Polygraphy reads `nan` as a number
    with _told_by_line(path, "", option):
        function = getattr(_load_module(path), name, None)
    if not callable(function):
        raise UserScriptError(
            f"The script {path!r} has no function {name!r}.\n"
            f"Name the function, as in: {option} script.py:function."
        )

    def call(*arguments: Any) -> Any:
        with _told_by_line(path, name, option):
            return function(*arguments)

    return call


def load_iterator(path: str, name: str, *, option: str) -> Iterator[Any]:
    """Yields what a function without arguments in a Python script returns or yields.

    Raises:
        UserScriptError: If the script or the function fails, at any moment.
    """
    returned = load_function(path, name, option=option)()
    with _told_by_line(path, name, option):
        iterator = iter(returned)
    while True:
        with _told_by_line(path, name, option):
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item


def _load_module(path: str) -> ModuleType:
    """Runs a script, which may import what lies beside it, as a module that clashes with none."""
    name = f"_user_script_{os.path.splitext(os.path.basename(path))[0]}"
    loader = SourceFileLoader(name, path)
    module = module_from_spec(cast("ModuleSpec", spec_from_loader(name, loader)))
    # Dataclasses and pickles look their module up here.
    sys.modules[name] = module
    folder = os.path.dirname(os.path.abspath(path))
    sys.path.insert(0, folder)
    try:
        loader.exec_module(module)
    finally:
        sys.path.remove(folder)
    return module


def load_samples(path: str, function_name: str) -> Iterator[tuple[str, Any]]:
    """Yields the samples that a function without arguments in a Python script returns.

    Raises:
        UserScriptError: If the script fails.
    """
    # Not `DataLoaderArgs.get_data_loader`: before Polygraphy 0.53 it silently falls back to random
    # data under Python 3.13, where `locals()` no longer shows what `exec` defined (PEP 667).
    given = load_iterator(path, function_name, option="--data-loader-script")
    for index, sample in enumerate(given):
        yield f"sample {index} of {path}", sample


@contextmanager
def _told_by_line(path: str, function_name: str, option: str) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:  # a script that ends must not end its caller
        place, line = _place_and_line(error, path)
        place = place or (function_name and f"`{function_name}`")
        raise UserScriptError(
            f"The script {path!r} failed{place and ' in ' + place}: "
            f"{type(error).__name__}: {error}\n"
            f"{line and '    ' + line + _NEW_LINE}"
            f"Correct it, or leave out `{option}`. With `-v`, the traceback is shown.",
            _traceback_from(path, error),
        ) from error


def _place_and_line(error: BaseException, path: str) -> tuple[str, str]:
    """Returns the innermost function and line of the script, if the error came up within it.

    The text of the line comes second; both are empty if it did not.
    """
    if isinstance(error, SyntaxError):
        elsewhere = f" of {error.filename!r}" if error.filename not in (None, path) else ""
        return f"line {error.lineno}{elsewhere}", (error.text or "").strip()
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == path]
    if not frames:
        return "", ""
    where = "" if frames[-1].name == "<module>" else f"`{frames[-1].name}`, "
    return f"{where}line {frames[-1].lineno}", frames[-1].line or ""


def _traceback_from(path: str, error: BaseException) -> str:
    """Returns the traceback as Python prints it, from the first frame of the script on."""
    first = error.__traceback__
    while first is not None and first.tb_frame.f_code.co_filename != path:
        first = first.tb_next
    return "".join(traceback.format_exception(type(error), error, first))
