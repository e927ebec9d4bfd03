"""What TensorRT says when it fails, which Polygraphy only logs, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from polygraphy.exception import PolygraphyException

from polygraphy_layerprec._native import G_LOGGER
from polygraphy_layerprec.backend.engines.specs import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["engine_failures", "explain", "recorded_messages"]

_MOST_QUOTED: Final = 3

# The parts of TensorRT's messages are stable over versions, the sentences are not.
_CAPABILITY: Final = re.compile(
    r"compute capability (?P<found>\d+\.\d+).*?[Ss]upported compute capabilities:? *"
    r"(?P<supported>[\d. >]*\d)",
    re.DOTALL,
)


class _Remedy(NamedTuple):
    pattern: str
    text: str


_REMEDIES: Final = (
    _Remedy(
        r"out ?of ?memory|cudaErrorMemoryAllocation|cudaError 2\b|Requested size was",
        "The GPU has not enough memory.\nLower `--max-memory`, give smaller samples, or end other "
        "programs that use the GPU.",
    ),
    _Remedy(
        r"cudaError 35\b|cudaError 100\b|driver version is insufficient|no CUDA-capable device",
        "No NVIDIA GPU can be used, or its driver is too old for this TensorRT.\nRun this on a "
        "machine with a GPU and a current driver, or use `--backend emulated`.",
    ),
    _Remedy(
        r"compatible with this version|different.*(device|GPU)|[Ss]erialization.*version",
        "The engine was built by another TensorRT or for another GPU.\nGive another folder with "
        "`--work-dir`.",
    ),
    _Remedy(
        r"[Pp]lugin|No importer registered|Unsupported operator",
        "The model has an operator that this TensorRT does not know.\nName the library that "
        "implements it with `--plugins`.",
    ),
    _Remedy(
        r"optimization profile|kOPT|dynamic (input|shape)",
        "The shapes do not fit the optimization profiles.\nGive them with `--trt-min-shapes`, "
        "`--trt-opt-shapes` and `--trt-max-shapes`.",
    ),
)


@contextmanager
def recorded_messages(severity: str, wanted: Callable[[str], bool]) -> Iterator[list[str]]:
    """Gives a list that fills with what Polygraphy and TensorRT log meanwhile, shown or not.

    Args:
        severity: The method of Polygraphy's logger: `error`, or `extra_verbose` for what TensorRT
            calls verbose.
        wanted: Returns whether a message is to be noted.
    """
    said: list[str] = []
    # TensorRT's own messages reach nobody but Polygraphy's logger, which hands them to no one.
    logger: Any = G_LOGGER
    log: Callable[..., None] = getattr(logger, severity)

    def note(message: object, *arguments: object, **options: object) -> None:
        if wanted(text := str(message)):
            said.append(text)
        log(message, *arguments, **options)

    setattr(logger, severity, note)
    try:
        yield said
    finally:
        setattr(logger, severity, log)


@contextmanager
def engine_failures(task: str, trt: Any) -> Iterator[None]:
    """Turns what goes wrong with an engine into an `EngineError` that says what to do.

    Args:
        task: What is being done, for the message: `build the reference engine`.
        trt: The module of TensorRT.

    Raises:
        EngineError: If Polygraphy or TensorRT gives up meanwhile.
    """
    with recorded_messages("error", lambda _: True) as said:
        try:
            yield
        except PolygraphyException as error:
            # A message may be a function, for logs that nobody reads.
            raise EngineError(explain(task, [*said, str(error)], trt)) from error
        except MemoryError as error:
            raise EngineError(explain(task, [*said, "out of memory"], trt)) from error


def explain(task: str, said: Sequence[str], trt: Any) -> str:
    """Returns an error in words: what failed, why as far as is known, and what to do.

    Args:
        task: As in `engine_failures`.
        said: The errors that were logged, the first to the last.
        trt: The module of TensorRT.
    """
    what = f"{trt.__name__} {trt.__version__} cannot {task}."
    text = "\n".join(said)
    unsupported = _CAPABILITY.search(text)
    if unsupported:
        return (
            f"{what}\n"
            f"Note: The GPU has compute capability {unsupported['found']}, and this TensorRT runs "
            f"on: {', '.join(unsupported['supported'].split())}.\n"
            f"Use a GPU among these, a TensorRT that supports yours, or `--backend emulated`. "
            f"TensorRT-RTX is for RTX GPUs: unset POLYGRAPHY_USE_TENSORRT_RTX for the other one."
        )
    remedy = next((r.text for r in _REMEDIES if re.search(r.pattern, text)), "")
    quoted = "; ".join(line.strip() for line in said[:_MOST_QUOTED])
    return f"{what}\nNote: It says: {quoted}\n{remedy or 'The log above may say more.'}"
