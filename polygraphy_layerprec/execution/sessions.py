"""ONNX-Runtime sessions for models of a few nodes, dozens of which stand side by side."""

from __future__ import annotations

import os
from functools import cache
from typing import Final

import onnxruntime as ort

__all__ = ["create_session"]

_MOST_THREADS: Final = 16  # dozens of sessions have as many each


def create_session(model: bytes) -> ort.InferenceSession:
    """Returns a session for a serialized model of a few nodes, which runs them as they are."""
    return ort.InferenceSession(model, _session_options(), providers=["CPUExecutionProvider"])


def _session_options() -> ort.SessionOptions:
    _register_allocator()
    options = ort.SessionOptions()
    # Nothing to fuse in one node: optimising would only cost time.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.enable_mem_pattern = False
    # Not ONNX-Runtime's global thread pool: once made, no other session of this process may have
    # threads of its own, the user's included.
    options.intra_op_num_threads = min(_available_threads(), _MOST_THREADS)
    options.inter_op_num_threads = 1
    return options


def _available_threads() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # not on every platform
    return len(affinity(0)) if affinity else os.cpu_count() or 1


@cache
def _register_allocator() -> None:
    """Makes the memory arena that all sessions share; a process has one."""
    arena = ort.OrtMemoryInfo(
        "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    )
    ort.create_and_register_allocator(arena, None)
