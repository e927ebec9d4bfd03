"""One part of a ranking, from the options of the command line to its file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from polygraphy_layerprec._native import G_LOGGER
from polygraphy_layerprec.tools.progress import progress_bar

if TYPE_CHECKING:
    from polygraphy_layerprec.distribution.part import Shard
    from polygraphy_layerprec.model import Graph
    from polygraphy_layerprec.tools.args import MeasureArgs, SampleArgs

__all__ = ["measure_part"]


def measure_part(
    graph: Graph,
    shard: Shard,
    path: str,
    *,
    samples: SampleArgs,
    measure: MeasureArgs,
    threads: int | None,
) -> None:
    """Measures the samples of a shard and saves what they say.

    Args:
        graph: The whole model.
        shard: Which samples.
        path: The file.
        samples: Where they come from.
        measure: How they are measured.
        threads: Threads of each session, or None for the default.
    """
    from polygraphy_layerprec.distribution.part import Part, conditions_of, digest_of_script
    from polygraphy_layerprec.distribution.partial_file import save_partial
    from polygraphy_layerprec.execution.kernels.sessions import threads_per_session
    from polygraphy_layerprec.observing import Observer

    script = measure.loss_script
    with threads_per_session(threads):
        generated = samples.is_using_random_data()
        observer = Observer(graph, measure.request(generated_inputs=generated))
        with progress_bar() as progress:
            held = samples.indexed_samples(graph, shard=shard)
            known = samples.known_count()
            count = None if known is None else shard.size_of(known)
            observed = observer.observe(
                held, sample_count=count, may_be_none=True, progress=progress
            )
        conditions = conditions_of(
            graph,
            precision=measure.precision,
            impact=measure.impact,
            outputs=measure.outputs,
            loss="" if script is None else digest_of_script(script, measure.loss_function_name),
            generated_inputs=generated,
            shard_count=shard.count,
            data_set_size=samples.data_set_size,
        )
    comparison = observed.comparison
    save_partial(Part(shard, conditions, comparison), path, graph)
    G_LOGGER.info(
        f"Saved shard {shard} to {path} | {comparison.sample_count} of {samples.data_set_size} "
        f"samples, {conditions.threads} threads a session"
    )
