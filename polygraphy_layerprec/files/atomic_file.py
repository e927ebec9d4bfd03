"""Files that are there completely or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from typing import TYPE_CHECKING, BinaryIO

from polygraphy_layerprec.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["check_writable", "write_file", "write_files", "write_text_file"]


def check_writable(path: str) -> None:
    """Checks, before work begins, that `path` can be written once it is done.

    Raises:
        UserError: If it cannot; the text says why and what to do.
    """
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    if os.path.isdir(target):
        raise UserError(f"Cannot write {path!r}: it is a directory.\nGive the name of a file.")
    if not os.path.isdir(folder):
        raise UserError(
            f"Cannot write {path!r}: the directory {folder!r} does not exist.\n"
            f"Create it first, or give another path."
        )
    if os.path.exists(target) and not stat.S_ISREG(os.stat(target).st_mode):
        raise UserError(
            f"Cannot write {path!r}: it is not a regular file.\nGive the name of a file."
        )
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"Cannot write {path!r}: the directory {folder!r} is not writable.\n"
            f"Note: The system says: {error.strerror}.\n"
            f"Give a path in a directory of yours, or change its permissions."
        ) from error


def write_text_file(path: str, text: str) -> None:
    """Writes `text` to `path` as UTF-8, as `write_file` does."""
    # Names of files need not be text: what is none is spelt out.
    write_file(path, lambda file: file.write(text.encode(errors="backslashreplace")))


def write_file(path: str, write: Callable[[BinaryIO], object]) -> None:
    """Lets `write` fill the file at `path`; `write_files` says how."""

    def fill(file: BinaryIO) -> None:
        write(file)

    write_files({path: fill})


def write_files(writes: Mapping[str, Callable[[BinaryIO], str | None]]) -> None:
    """Lets each function fill the file at its path, by way of a temporary file beside it.

    An interrupt or a full disk leaves what was there before: no file is replaced until all are
    complete.

    Args:
        writes: What fills a file, by its path, in the order in which they are called. It may
            return another path in the same folder, for a file that is named by its content.

    Raises:
        UserError: If a path cannot be written.
        OSError: If writing fails half-way, for example on a full disk; the file name is the path.
    """
    for path in writes:
        check_writable(path)
    with contextlib.ExitStack() as temporaries:
        complete = [
            temporaries.enter_context(_filled_beside(path, write)) for path, write in writes.items()
        ]
        for temporary, target in complete:  # a link stays, its target is replaced
            os.replace(temporary, target)


@contextlib.contextmanager
def _filled_beside(path: str, write: Callable[[BinaryIO], str | None]) -> Iterator[tuple[str, str]]:
    """Gives a file that is complete, and what it is to replace; it is gone afterwards."""
    target = os.path.realpath(path)
    temporary: str | None = None
    try:
        descriptor, temporary = tempfile.mkstemp(
            dir=os.path.dirname(target), prefix=".", suffix=".partial"
        )
        with os.fdopen(descriptor, "wb") as file:
            target = os.path.realpath(write(file) or path)
        os.chmod(temporary, _file_mode(target))
        yield temporary, target
    except OSError as error:
        if temporary is not None and error.filename not in (None, temporary):
            raise  # about what `write` reads
        raise OSError(error.errno, error.strerror or str(error), path) from error
    finally:  # after an interrupt too
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def _file_mode(target: str) -> int:
    """Returns the permissions that opening `target` for writing would have left it with."""
    if os.path.exists(target):
        return stat.S_IMODE(os.stat(target).st_mode)
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask
