"""ONNX-Runtime sessions for models of a few nodes, dozens of which stand side by side."""

from __future__ import annotations

import os
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Final

import onnxruntime as ort

from polygraphy_layerprec.native_work import register_switch

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "RUN_OPTIONS",
    "available_threads",
    "create_session",
    "runtime_version",
    "session_options",
    "session_threads",
    "silence_native_log",
    "threads_per_session",
]

_MOST_THREADS: Final = 16  # dozens of sessions have as many each
_FATAL: Final = 4

RUN_OPTIONS: Final = ort.RunOptions()
"""Of every run that a model may make long, so that a signal can end it."""

RUN_OPTIONS.log_severity_level = _FATAL
# Where it is not set, ONNX-Runtime's binding asks for it in every run and catches an exception,
# which takes as long as a small node does. -1 captures no graph of CUDA kernels.
RUN_OPTIONS.add_run_config_entry("gpu_graph_id", "-1")


def _end_runs() -> None:
    RUN_OPTIONS.terminate = True


def _allow_runs() -> None:
    RUN_OPTIONS.terminate = False


register_switch(stop=_end_runs, resume=_allow_runs)


_CHOSEN_THREADS: Final[ContextVar[int | None]] = ContextVar("threads", default=None)


@contextmanager
def threads_per_session(count: int | None) -> Iterator[None]:
    """Has the sessions that are made within the block run on `count` threads each.

    Kernels add up in another order on another number of threads, so that it is part of a result.

    Args:
        count: How many, at least 1; None for what is set around the block.
    """
    before = _CHOSEN_THREADS.set(count if count is not None else _CHOSEN_THREADS.get())
    try:
        yield
    finally:
        _CHOSEN_THREADS.reset(before)


def session_threads() -> int:
    """Returns the number of threads of a session that is made now.

    By default all cores that this process may use, up to 16.
    """
    return _CHOSEN_THREADS.get() or min(available_threads(), _MOST_THREADS)


def available_threads() -> int:
    """Returns how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on every platform
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def create_session(model: bytes) -> ort.InferenceSession:
    """Returns a session for a serialized model of a few nodes, which runs them as they are."""
    return ort.InferenceSession(model, session_options(), providers=["CPUExecutionProvider"])


def runtime_version() -> str:
    """Returns the version of the ONNX-Runtime that runs, whichever package it came with."""
    version: str = ort.__version__
    return version


def silence_native_log() -> None:
    """Keeps ONNX-Runtime from writing to standard error, for as long as the process lives.

    What fails is told by an exception. ONNX-Runtime writes it once more, past the log and in
    colours, to a pipe as well.
    """
    ort.set_default_logger_severity(_FATAL)


def session_options() -> ort.SessionOptions:
    """Returns the options of a session that is one of dozens."""
    _register_allocator()
    options = ort.SessionOptions()
    # Nothing to fuse in one node: optimising would only cost time.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = _FATAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.enable_mem_pattern = False
    # Not ONNX-Runtime's global thread pool: once made, no other session of this process may have
    # threads of its own, the user's included.
    options.intra_op_num_threads = session_threads()
    options.inter_op_num_threads = 1
    return options


@cache
def _register_allocator() -> None:
    """Makes the memory arena that all sessions share; a process has one."""
    arena = ort.OrtMemoryInfo(
        "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    )
    ort.create_and_register_allocator(arena, None)
