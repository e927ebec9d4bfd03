"""How long a report takes to make, and a browser to show it: headless Chromium, a fresh profile.

python benchmarks/report_load.py --layers 100 1000 5000
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from selenium import webdriver

from polygraphy_layerprec.records import (
    ModelIdentity,
    OutputDivergence,
    OutputError,
    RankedLayer,
    Ranking,
    RunConditions,
)
from polygraphy_layerprec.report.html.rendering import render_ranking_report
from polygraphy_layerprec.report.ranking_report import RankingReport
from polygraphy_layerprec.selection import SelectionRequest, error_curve, select_layers

__all__ = ["BROWSER_FLAGS", "LoadTimes", "main", "make_ranking", "measure_load"]

BROWSER_FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,1000",
)
"""A browser that does nothing but show the page."""

_OPERATORS: Final = ("MatMul", "Add", "Mul", "LayerNormalization", "Softmax", "Erf")
_KINDS: Final = ("rounding", "rounding", "rounding", "cancellation", "long reduction")
_READY: Final = """
const done = arguments[0];
(function wait() {
  if (document.documentElement.dataset.ready) requestAnimationFrame(() => setTimeout(() =>
    done(performance.now()), 0));
  else setTimeout(wait, 5);
})();
"""
_SORTED: Final = """
const done = arguments[0], start = performance.now();
document.querySelector('th[data-sort="name"] button').click();
document.body.getBoundingClientRect();
requestAnimationFrame(() => setTimeout(() => done(performance.now() - start), 0));
"""
_FILTERED: Final = """
const done = arguments[0], start = performance.now();
const search = document.getElementById("search");
search.value = "layer.7/";
search.form.requestSubmit();
document.body.getBoundingClientRect();
requestAnimationFrame(() => setTimeout(() => done(performance.now() - start), 0));
"""


@dataclass(frozen=True, slots=True)
class LoadTimes:
    """Medians of what one page takes, in seconds."""

    ready: float
    """From the start of navigation until charts are drawn and the table can be used."""

    work: float
    """Processor time of the page's main thread until then: what `ready` is on an idle machine."""

    sort: float
    """Sorting the table by name, until it is drawn again."""

    search: float
    """Searching the table, until it is drawn again."""


def make_ranking(count: int) -> Ranking:
    """Returns a ranking of `count` made-up layers with names as exporters write them."""
    random = np.random.default_rng(0)
    impacts = np.sort(10.0 ** random.normal(-4.5, 0.7, count))[::-1]
    shares = impacts**2 / (impacts**2).sum()
    depths = random.permutation(count)
    layers = tuple(
        _make_layer(rank, int(depths[rank]), float(impacts[rank]), float(shares[rank]))
        for rank in range(count)
    )
    error = float(np.sqrt((impacts**2).sum()))
    return Ranking(
        model=ModelIdentity("model.onnx", "ab" * 32, count, 17),
        precision="fp16",
        conditions=RunConditions("onnxruntime-emulated", (), 1, "user", "adjoint"),
        output_error=OutputError(error, error, (OutputDivergence("y", error, 0.1, 0, 1.0),)),
        layers=layers,
        unmeasured=(),
        nonfinite_origins=(),
        stability=None,
        warnings=(),
    )


def measure_load(page: Path, *, runs: int) -> LoadTimes:
    """Returns what a page takes in a browser with a profile of its own."""
    with tempfile.TemporaryDirectory() as profile:
        browser = _start_browser(profile)
        try:
            measured = [_measure_once(browser, page) for _ in range(runs)]
        finally:
            browser.quit()
    medians = [statistics.median(column) / 1e3 for column in zip(*measured, strict=True)]
    return LoadTimes(*medians)


def main(arguments: list[str] | None = None) -> None:
    """Measures pages and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", nargs="+", type=int, default=[100, 1000, 5000])
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args(arguments)
    print("| layers | file | made in | shown in | of which work | sorted in | searched in |")
    print("|---|---|---|---|---|---|---|")
    for count in options.layers:
        ranking = make_ranking(count)
        selection = select_layers(ranking, SelectionRequest(top_k=count // 20))
        report = RankingReport(ranking, selection, error_curve(ranking))
        start = time.perf_counter()
        text = render_ranking_report(report)
        made = time.perf_counter() - start
        with tempfile.TemporaryDirectory() as folder:
            page = Path(folder) / "report.html"
            page.write_text(text, encoding="utf-8")
            times = measure_load(page, runs=options.runs)
        print(
            f"| {count:,} | {len(text.encode()) / 2**20:.1f} MiB | {made:.2f} s "
            f"| {times.ready:.2f} s | {times.work:.2f} s | {times.sort:.2f} s "
            f"| {times.search:.2f} s |"
        )


def _make_layer(rank: int, depth: int, impact: float, share: float) -> RankedLayer:
    op = _OPERATORS[depth % len(_OPERATORS)]
    block = f"/encoder/layer.{depth // 26}"
    name = f"{block}/attention/self/{op}_{depth}"
    return RankedLayer(
        rank=rank + 1,
        name=name,
        node_name=name,
        op=op,
        block=block,
        graph_index=depth,
        inputs=(f"{name}_input_0", f"encoder.layer.{depth // 26}.attention.self.weight"),
        outputs=(f"{name}_output_0",),
        impact=impact,
        impact_method="adjoint",
        share=share,
        introduced_error=2e-4 * (1 + depth % 7),
        cumulative_error=1e-3 * (1 + depth % 5),
        max_abs_input=float(1 + depth % 97),
        max_abs=float(1 + depth % 89),
        element_count=4096,
        overflow_count=0,
        underflow_count=depth % 3,
        reference_nonfinite_count=0,
        candidate_nonfinite_count=0,
        overflow=False,
        kind=_KINDS[depth % len(_KINDS)],
        reason=f"{100 * share:.3g} % of the output error",
        flops=1e6,
    )


def _start_browser(profile: str) -> Any:
    options = webdriver.ChromeOptions()
    options.binary_location = _program("chromium", "CHROMIUM")
    for flag in (*BROWSER_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    driver = _program("chromedriver", "CHROMEDRIVER")
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


def _program(name: str, variable: str) -> str:
    path = os.environ.get(variable) or shutil.which(name)
    if path is None:
        sys.exit(f"{name} is not installed; name it with the variable {variable}.")
    return path


def _measure_once(browser: Any, page: Path) -> tuple[float, float, float, float]:
    """Milliseconds."""
    browser.get("about:blank")
    browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    browser.get(page.as_uri())
    ready = browser.execute_async_script(_READY)
    metrics = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    work = next(1e3 * metric["value"] for metric in metrics if metric["name"] == "TaskDuration")
    browser.execute_cdp_cmd("Performance.disable", {})
    sort, search = (browser.execute_async_script(step) for step in (_SORTED, _FILTERED))
    return ready, work, sort, search


if __name__ == "__main__":
    main()
