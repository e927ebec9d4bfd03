"""JSON as Polygraphy saves it, from files that anybody may have made."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from typing import Any, Final

from polygraphy.json import Decoder, from_json

from polygraphy_layerprec._native import G_LOGGER

__all__ = ["read_polygraphy_json"]

_LARGEST_UNPACKED_BYTES: Final = 1 << 28  # of what old versions packed; a bomb has gigabytes
_ZIP_STARTS: Final = ("UEsD", "PK\x03\x04")  # in base64, and as older versions had it
_LONGEST_REASON: Final = 300


def read_polygraphy_json(path: str, *, description: str | None = None) -> Any:
    """Returns what `polygraphy.json.save_json` wrote to `path`.

    Args:
        path: The file.
        description: What is in it, to be logged.

    Raises:
        ValueError: If it holds no such JSON, whatever is wrong with it; the text says what.
        OSError: If it cannot be read.
    """
    if description is not None:
        G_LOGGER.info(f"Loading {description} from {path}")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    logger: Any = G_LOGGER
    try:
        # What Polygraphy's decoders say names no file; it is in the exception as well.
        with logger.verbosity(logger.CRITICAL + 1):
            from_json("null")  # only now do they know arrays
            return json.loads(text, object_pairs_hook=_decode)
    except MemoryError:
        raise
    except RecursionError as error:
        raise ValueError("its brackets are nested too deeply") from error
    except Exception as error:  # decoders take what they find for what it should be
        reason = f"{type(error).__name__}: {error}" if not str(error) else str(error)
        raise ValueError(f"{reason:.{_LONGEST_REASON}}") from error


def _decode(pairs: list[tuple[str, Any]]) -> Any:
    for key, value in pairs:
        if key == "array" and isinstance(value, str) and value.startswith(_ZIP_STARTS):
            _check_packed(value)
    return Decoder()(pairs)


def _check_packed(text: str) -> None:
    """Refuses an array that was packed to a fraction of its size, before it is unpacked."""
    try:
        content = base64.b64decode(text, validate=True)
    except ValueError:
        content = text.encode("latin-1")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        unpacked = sum(info.file_size for info in archive.infolist())
    if unpacked > _LARGEST_UNPACKED_BYTES:
        raise ValueError(f"a packed array has {unpacked} bytes")
