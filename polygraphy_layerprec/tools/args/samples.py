"""Options about the input samples."""

from __future__ import annotations

import itertools
import os
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from polygraphy.tools.args import DataLoaderArgs, ModelArgs
from polygraphy.tools.args import util as args_util

from polygraphy_layerprec._native import G_LOGGER, export
from polygraphy_layerprec.tools.user_script import load_samples

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from polygraphy_layerprec.distribution.part import Shard
    from polygraphy_layerprec.execution.samples.plausible import PlausibleInput
    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.report.next_steps import ShapeRange

__all__ = ["SampleArgs", "check_paths"]

# Options of old Polygraphy versions, which newer ones do not have.
_REPLACED: Final = ("int_min", "int_max", "float_min", "float_max", "data_loader_func_name")
_ABOUT_MADE_UP: Final = ("input_shapes", "val_range", "seed", "iterations")


def check_paths(paths: Iterable[str]) -> None:
    """Stops, before any work begins, unless there is a file or folder at each of `paths`."""
    for path in paths:
        if not os.path.exists(path):
            G_LOGGER.critical(f"No such file with input data: {path!r}.\nCheck the path.")


@export()
class SampleArgs(DataLoaderArgs):
    """
    Data Loader: loading or generating input data for inference.

    Depends on:

        - ModelArgs: if allow_custom_input_shapes == True
    """

    _plan: tuple[Graph, Sequence[PlausibleInput]] | None = None
    _untold: tuple[Graph, Sequence[PlausibleInput]] | None = None

    def add_parser_args_impl(self) -> None:
        """Declares the options of `DataLoaderArgs`, and one more."""
        super().add_parser_args_impl()
        self.group.add_argument(
            "--labels",
            metavar="NAME",
            help="Name(s) of arrays of the samples that are no inputs of the model: they are given "
            "to the function of `--metric-script`. For example: --labels target.",
            nargs="+",
            default=None,
        )

    def parse_impl(self, args: argparse.Namespace) -> None:
        """
        Parses command-line arguments and populates the attributes of `DataLoaderArgs`, and:

        Attributes:
            shape_ranges (Dict[str, ShapeRange]): Shapes seen at inputs of dynamic shape.
            data_set_size (int): Samples met so far, those of other shards among them.
            labels (Tuple[str]): Names of arrays that are no inputs.
        """
        for text in args_util.get(args, "val_range") or ():
            if not text.endswith(("]", ")")):  # Polygraphy would end in a TypeError
                G_LOGGER.critical(f"`--val-range` must be like [0,1] or x:[0,1], got: {text!r}.")
        super().parse_impl(args)
        self.data_set_size = 0
        self.labels = tuple(args_util.get(args, "labels") or ())
        if self.labels and self.is_using_random_data():
            G_LOGGER.critical(
                "`--labels` names arrays of your samples, but none were given.\n"
                "Give them, for example with `--load-inputs`."
            )
        self.shape_ranges: dict[str, ShapeRange] = {}
        for name in _REPLACED:
            if args_util.get(args, name) is not None:
                G_LOGGER.critical(
                    f"`--{name.replace('_', '-')}` is not supported.\n"
                    f"Use `--val-range`, or name the function as in `script.py:function`."
                )
        if self.iterations is not None and self.iterations < 1:
            G_LOGGER.critical(f"`--iterations` must be at least 1, got: {self.iterations}.")
        self._note_unused(args)
        self._check_ranges()
        check_paths([*self.load_inputs_paths, *filter(None, [self.data_loader_script])])

    def _note_unused(self, args: argparse.Namespace) -> None:
        given = [name for name in _ABOUT_MADE_UP if args_util.get(args, name) is not None]
        self._unused = [] if self.is_using_random_data() else given

    def _check_ranges(self) -> None:
        for name, (low, high) in (self.val_range or {}).items():
            if not low <= high:  # NaN as well
                where = f" for the input {name!r}" if name else ""
                G_LOGGER.critical(
                    f"`--val-range` must go from low to high, got{where}: [{low}, {high}]."
                )

    def samples(self, graph: Graph) -> Iterator[Mapping[str, Any]]:
        """Returns checked samples, one at a time; the first is checked at once.

        Their shapes are noted in `shape_ranges` as they go by.
        """
        return (sample for _, sample in self.indexed_samples(graph))

    def indexed_samples(
        self, graph: Graph, *, shard: Shard | None = None
    ) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Returns the samples of a shard, of all by default, each with its index in the data set.

        Others are not read. Once all were taken, `data_set_size` is known.
        """
        from polygraphy_layerprec.execution.kernels.sessions import silence_native_log
        from polygraphy_layerprec.execution.samples.given import (
            NO_SAMPLE,
            SampleError,
            check_sample,
            take_labels,
        )

        silence_native_log()  # whoever wants samples runs the model on them
        if self.is_using_random_data():
            made_up = (("", sample) for sample in self._made_up(graph))
            drawn = ((i, sample) for i, (_, sample) in self._counted(made_up, shard))
            return self._noting_shapes(graph, drawn)
        labelled = partial(take_labels, names=self.labels)
        given = self._counted(self._given(graph), shard)
        checked = (
            (index, check_sample(labelled(sample, where=where), graph.inputs, where=where))
            for index, (where, sample) in given
        )
        first = list(itertools.islice(checked, 1))
        if not first and not self.data_set_size:
            raise SampleError(NO_SAMPLE)
        return self._noting_shapes(graph, itertools.chain(first, checked))

    def _counted(
        self, given: Iterable[tuple[str, Any]], shard: Shard | None
    ) -> Iterator[tuple[int, tuple[str, Any]]]:
        self.data_set_size = 0
        for index, pair in enumerate(given):
            self.data_set_size += 1
            if shard is None or shard.holds(index):
                yield index, pair

    def known_count(self) -> int | None:
        """Returns how many samples there are, where that is known without reading them."""
        if self.is_using_random_data():
            return self.iterations or 1
        from polygraphy_layerprec.backend.sample_files import count_samples

        if self.data_loader_script:
            return None
        counts = [count_samples(path) for path in self.load_inputs_paths]
        return None if None in counts else sum(filter(None, counts))

    def _noting_shapes(
        self, graph: Graph, samples: Iterator[tuple[int, Any]]
    ) -> Iterator[tuple[int, Mapping[str, Any]]]:
        dynamic = [
            wanted.name
            for wanted in graph.inputs
            if wanted.shape is None or not all(isinstance(extent, int) for extent in wanted.shape)
        ]
        for index, sample in samples:
            for name in dynamic:
                shape = sample[name].shape
                low, high = self.shape_ranges.get(name, (shape, shape))
                if len(low) == len(shape):
                    self.shape_ranges[name] = (
                        tuple(map(min, low, shape)),
                        tuple(map(max, high, shape)),
                    )
            yield index, sample

    def tell_made_up(self) -> None:
        """Logs what was made up, and which options about that had nothing to do.

        Once, and behind the verdict.
        """
        for name in self._unused:
            G_LOGGER.warning(
                f"`--{name.replace('_', '-')}` is about inputs that are made up; yours were given."
            )
        self._unused = []
        if self._untold is None:
            return
        from polygraphy_layerprec.backend.made_up_inputs import tell_made_up

        untold, self._untold = self._untold, None
        tell_made_up(*untold)

    def _given(self, graph: Graph) -> Iterator[tuple[str, Any]]:
        from polygraphy_layerprec.backend.sample_files import read_samples

        if self.data_loader_script:
            return load_samples(self.data_loader_script, self.data_loader_func_name)
        return itertools.chain.from_iterable(
            read_samples(path, graph.inputs) for path in self.load_inputs_paths
        )

    def _made_up(self, graph: Graph) -> Iterator[Mapping[str, Any]]:
        from polygraphy_layerprec.execution.samples.plausible import DEFAULT_SEED, draw_samples

        seed = DEFAULT_SEED if self.seed is None else self.seed
        return draw_samples(self._planned(graph), seed=seed, iterations=self.iterations or 1)

    def _planned(self, graph: Graph) -> Sequence[PlausibleInput]:
        """What to make up: found once for a model."""
        from polygraphy_layerprec.execution.samples.plausible import plan_inputs

        if self._plan is None or self._plan[0] is not graph:
            # A ranking on file knows the model: there is no `ModelArgs` beside it.
            known = ModelArgs in self.arg_groups
            given = self.arg_groups[ModelArgs].input_shapes if known else {}
            shapes = {name: tuple(metadata.shape) for name, metadata in given.items()}
            plan = plan_inputs(graph, shapes=shapes, val_range=self.val_range or {})
            self._plan = self._untold = graph, plan
            G_LOGGER.verbose("Inputs are made up.")
        return self._plan[1]
