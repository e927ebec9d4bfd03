"""Results that `polygraphy run --save-outputs` wrote, compared an iteration at a time."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from polygraphy.comparator import IterationResult, RunResults

from polygraphy_layerprec.backend.json_files import read_polygraphy_json
from polygraphy_layerprec.execution.comparison.tensor_comparison import TensorComparison
from polygraphy_layerprec.execution.errors import ExecutionError
from polygraphy_layerprec.matching.tensor_matching import name_some

if TYPE_CHECKING:
    from polygraphy_layerprec.precision import Precision

__all__ = ["SavedComparison", "compare_saved_results"]

Iteration = list[tuple[str, Any]]
"""The results of each runner that took part, by its name, in the order of the file."""

_HOW_TO_SAVE: Final = (
    "Save them with `polygraphy run model.onnx --onnxrt --onnx-outputs mark all "
    "--save-outputs FILE.json`."
)


@dataclass(frozen=True, slots=True)
class SavedComparison:
    """Two saved runs, compared."""

    tensors: TensorComparison
    """Every tensor of either run."""

    reference: str
    """Name of the runner that is the reference."""

    candidate: str
    """Name of the runner that is the candidate."""

    unused: tuple[str, ...]
    """Names of the runners that were saved as well, in any iteration, and not chosen."""


def compare_saved_results(
    paths: Sequence[str],
    precision: Precision,
    *,
    reference_runner: str | None = None,
    candidate_runner: str | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> SavedComparison:
    """Returns how far two saved runs are apart.

    A file is read as a whole; of a directory, one iteration is in memory at a time.

    Args:
        paths: Where the reference and the candidate are saved, or the one place where both are.
            Each is a file, or a directory with a file for each iteration.
        precision: The low precision.
        reference_runner: Name of the runner to take as the reference, or a part of its name that
            no other has; by default the first.
        candidate_runner: The same for the candidate; by default the first of another name than
            the reference, or the first there is.
        progress: Called with iterations done, 0 for not known, and what is going on.

    Raises:
        ExecutionError: If there are no results, a runner is not found, or the runs have different
            numbers of iterations or no tensor in common.
    """
    files = [_SavedFile(path) for path in paths]
    reference, candidate = _choose_runners(files, reference_runner, candidate_runner)
    tensors = TensorComparison(precision)
    counts = [0, 0]
    names: dict[str, None] = {}
    for sides in itertools.zip_longest(*files):
        names |= dict.fromkeys(name for side in sides for name, _ in side or ())
        exact, lowered = reference.find_in(sides[0]), candidate.find_in(sides[-1])
        counts = [counts[0] + (exact is not None), counts[1] + (lowered is not None)]
        if exact is not None and lowered is not None:
            _add_iteration(tensors, exact, lowered)
        if progress is not None:
            progress(max(counts), 0, "saved iterations")
    if counts[0] != counts[1]:
        raise ExecutionError(
            f"The saved runs do not belong together: {reference.name!r} has {counts[0]} "
            f"iterations, {candidate.name!r} has {counts[1]}.\n"
            f"Run both on the same inputs, for example with `--load-inputs`."
        )
    unused = tuple(name for name in names if name not in (reference.name, candidate.name))
    return SavedComparison(tensors, reference.name, candidate.name, unused)


class _Runner(NamedTuple):
    """One runner of a file."""

    name: str
    """Its name."""

    occurrence: int
    """How many runners of this name come before it."""

    def find_in(self, iteration: Iteration | None) -> Any:
        """Returns its result; None if it has none in this iteration."""
        same = [result for name, result in iteration or () if name == self.name]
        return same[self.occurrence] if self.occurrence < len(same) else None


class _SavedFile:
    """The iterations of one file or directory; to be gone through once."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._rest = _read_iterations(path)
        first = next(self._rest, None)
        if first is None:
            raise ExecutionError(f"{path!r} holds no results of a runner.\n{_HOW_TO_SAVE}")
        self._first = first
        self.runners = [name for name, _ in first]

    def __iter__(self) -> Iterator[Iteration]:
        yield self._first
        self._first = []  # so that it can be freed
        yield from self._rest

    def choose(
        self, wanted: str | None, option: str, *, besides: int | None = None, unlike: str = ""
    ) -> int:
        """Returns the position of the runner that `wanted` names.

        Args:
            wanted: Name of the runner or a part of it; None for the first there is.
            option: What asks for it.
            besides: A position that is taken.
            unlike: A name that is taken last if none is wanted.
        """
        free = [position for position in range(len(self.runners)) if position != besides]
        if wanted is None and free:
            return min(free, key=lambda position: self.runners[position] == unlike)
        for matches in (str.__eq__, str.__contains__):
            found = [p for p in free if wanted is not None and matches(self.runners[p], wanted)]
            if len(found) == 1:
                return found[0]
        asked = f"Note: `{option}` asks for {wanted!r}." if wanted else "Both sides need one."
        raise ExecutionError(
            f"There is not exactly one runner to choose in {self.path!r}, which has: "
            f"{self.runners!r}.\n{asked}\n"
            f"Choose with `{option}`, or name a second file of results."
        )

    def runner(self, position: int) -> _Runner:
        """Returns the runner at a position."""
        name = self.runners[position]
        return _Runner(name, self.runners[:position].count(name))


def _choose_runners(
    files: Sequence[_SavedFile], reference: str | None, candidate: str | None
) -> tuple[_Runner, _Runner]:
    options = ("--reference-runner", "--candidate-runner")
    if len(files) > 1:
        exact = files[0].runner(files[0].choose(reference, options[0]))
        position = files[1].choose(candidate, options[1], unlike=exact.name)
        return exact, files[1].runner(position)
    (file,) = files
    # What is named goes first, so that the other side's default does not take it.
    if candidate is not None:
        last = file.choose(candidate, options[1])
        first = file.choose(reference, options[0], besides=last)
    else:
        first = file.choose(reference, options[0])
        last = file.choose(None, options[1], besides=first)
    return file.runner(first), file.runner(last)


def _read_iterations(path: str) -> Iterator[Iteration]:
    if not os.path.isdir(path):
        yield from _read_file(path)
        return
    for name in sorted(os.listdir(path)):  # their numbers begin with zeros
        if name.endswith(".json"):
            yield from _read_file(os.path.join(path, name))


def _read_file(path: str) -> Iterator[Iteration]:
    try:
        results = read_polygraphy_json(path)
    except ValueError as error:
        raise ExecutionError(
            f"{path!r} holds no results in JSON as Polygraphy saves them: {error}.\n{_HOW_TO_SAVE}"
        ) from error
    if not _is_results(results):
        raise ExecutionError(
            f"{path!r} holds no results of runners: it is JSON of another kind, read as "
            f"`{type(results).__name__}`.\n{_HOW_TO_SAVE}"
        )
    left = [(name, deque(iterations)) for name, iterations in results.lst]
    del results  # each iteration is freed once it was compared
    while any(iterations for _, iterations in left):
        yield [(name, iterations.popleft()) for name, iterations in left if iterations]


def _is_results(content: Any) -> bool:
    if not isinstance(content, RunResults):
        return False
    return all(
        len(run) == 2
        and isinstance(run[0], str)
        and isinstance(run[1], list)
        and all(isinstance(result, IterationResult) for result in run[1])
        for run in content.lst
    )


def _add_iteration(
    tensors: TensorComparison, reference: IterationResult, candidate: IterationResult
) -> None:
    names = dict.fromkeys((*reference.keys(), *candidate.keys()))
    common = [name for name in names if name in reference and name in candidate]
    if not common:
        raise ExecutionError(
            f"The saved runs have no tensor in common, so they are of different models.\n"
            f"Note: The reference has {name_some(list(reference.keys()))}, "
            f"the candidate {name_some(list(candidate.keys()))}."
        )
    for name in names:  # one at a time: Polygraphy may keep them on disk
        tensors.add(name, _tensor_of(reference, name), _tensor_of(candidate, name))


def _tensor_of(result: Mapping[str, Any], name: str) -> Any:
    if name not in result:
        return None
    try:
        value = result[name]
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ExecutionError(
            f"The saved results hold something else than a tensor under {name!r}: {error}.\n"
            f"{_HOW_TO_SAVE}"
        ) from error
    if isinstance(value, np.ndarray) or not hasattr(value, "numpy"):
        return value
    try:
        return value.numpy(force=True)
    except TypeError:  # a tensor of PyTorch's in a type that numpy does not have
        return value.float().numpy(force=True)
