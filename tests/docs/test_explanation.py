"""The numbers of the explanation, recomputed; its pictures, drawn again."""

from __future__ import annotations

import re
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from benchmarks.orders import spearman
from benchmarks.plot_impact import draw_against_truth, draw_depth
from benchmarks.truth_layers import TrueLayer, read_layers, write_layers
from tests.docs.pages import read_blocks
from tests.environments import ROOT

FOLDER = ROOT / "docs" / "explanation"
PAGE = FOLDER / "why-divergence-is-not-impact.md"
TEXT = PAGE.read_text(encoding="utf-8")
PROSE = " ".join(TEXT.split())
LAYERS = read_layers(FOLDER / "impact-truth.csv")
PICTURES = {"impact-against-truth.svg": draw_against_truth, "along-the-depth.svg": draw_depth}
PICTURED = [
    ("impact-against-truth.svg", {"MiniLM", "digits CNN", "ResNet-50-sized CNN"}, 0),
    ("along-the-depth.svg", {"MiniLM"}, 1),
]
SCORES = ("introduced", "cumulative", "impact")


def test_the_errors_of_the_two_layers_follow_from_the_rounding_of_two_numbers():
    h = Fraction(35, 32) * Fraction(1873, 2048)
    y = 8 * h - 7
    low_h, low_y = rounded(h), rounded(y)

    introduced = (h - low_h) / h, (y - low_y) / y
    with_both_low = (y - rounded(8 * low_h - 7)) / y
    first_alone = (y - (8 * low_h - 7)) / y

    assert (h, y, low_h) == (Fraction(65555, 65536), Fraction(8211, 8192), 1)
    assert introduced == (Fraction(19, 65555), Fraction(3, 8211))
    assert with_both_low == 8 * (h - low_h) / y == Fraction(19, 8211)
    assert first_alone == Fraction(19, 8211)
    written = zip(("19/65555", "3/8211", "19/8211"), (*introduced, with_both_low), strict=True)
    for fraction, error in written:  # 3/8211 can be reduced, but then says less
        assert f"{fraction} = {shown(error)}" in PROSE
    assert f"| both | 1 | {shown(with_both_low)} |" in TEXT
    assert f"| the MatMul alone | 1 | {shown(first_alone)} |" in TEXT
    assert low_y == Fraction(8208, 8192)
    assert f"which both numbers accuse | 8208/8192 | {shown(introduced[1])} |" in TEXT


@pytest.mark.onnxrt
def test_the_ranking_says_of_the_two_layers_what_the_page_says(tmp_path):
    (block,) = [b for b in read_blocks(PAGE) if b.tag == "python"]
    script = tmp_path / "script.py"
    script.write_text(block.text)

    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=True, cwd=tmp_path
    )

    assert done.stdout.splitlines() == [
        "MatMul 2.90e-04 2.90e-04 2.31e-03 2.31e-03",
        "Gemm 3.65e-04 2.31e-03 3.65e-04 3.65e-04",
    ]
    assert f"```text\n{done.stdout}```" in TEXT


def test_the_table_of_rank_correlations_is_that_of_the_layers_behind_it():
    expected = []
    for model in dict.fromkeys(layer.model for layer in LAYERS):
        layers = [layer for layer in LAYERS if layer.model == model]
        truth = values(layers, "truth")
        cells = [f"{spearman(values(layers, score), truth):.2f}" for score in SCORES]
        expected.append(f"| {model} | {len(layers)} | {cells[0]} | {cells[1]} | **{cells[2]}** |")

    assert len(expected) == 4
    assert "\n" + "\n".join(expected) + "\n" in TEXT


def test_errors_of_minilm_spread_as_the_page_says():
    layers = [layer for layer in LAYERS if layer.model == "MiniLM" and layer.truth > 0.0]

    def spread(score: str) -> float:
        low, high = np.quantile(values(layers, score), [0.05, 0.95])
        return float(high / low)

    masked = [layer for layer in layers if layer.introduced < 1e-6]
    assert spread("introduced") == pytest.approx(1.8, abs=0.05)
    assert spread("truth") == pytest.approx(9.0, abs=0.5)
    assert "within a factor of 1.8, while the truth spreads over a factor of 9." in PROSE
    assert [layer.name[-len("/attention/self/Add") :] for layer in masked] == [
        "/attention/self/Add"
    ] * 6


@pytest.mark.parametrize(("name", "models", "legends"), PICTURED)
def test_a_picture_is_small_and_has_a_dot_for_each_layer(name, models, legends):
    text = (FOLDER / name).read_text(encoding="utf-8")
    drawn = [layer for layer in LAYERS if layer.model in models and layer.truth > 0.0]

    assert f"]({name})" in TEXT
    assert len(text.encode()) < 150_000
    assert "<dc:date>" not in text
    for colour in ("#2e9960", "#d1661f", "#3b7dd8"):
        assert len(re.findall(f"<use [^>]*fill: {colour}", text)) == len(drawn) + legends


@pytest.mark.parametrize("name", PICTURES)
def test_the_same_layers_give_the_same_picture(name, tmp_path):
    pictures = [tmp_path / "first.svg", tmp_path / "second.svg"]

    for picture in pictures:
        PICTURES[name](LAYERS[::6], picture)

    assert pictures[0].read_bytes() == pictures[1].read_bytes()
    assert b"<svg" in pictures[0].read_bytes()


def test_layers_survive_their_file(tmp_path):
    layers = [TrueLayer("m", 0, 'a,"b"\n', "Add", 1e-4, 0.0, 2.5e-7, 3e-7)]

    write_layers(tmp_path / "layers.csv", layers)

    assert read_layers(tmp_path / "layers.csv") == layers


def rounded(exact: Fraction) -> Fraction:
    """Returns the nearest number of FP16."""
    return Fraction(float(np.float16(float(exact))))


def shown(error: Fraction) -> str:
    """Returns an error as the page writes it."""
    return f"{float(error):.2e}".replace("e-0", "e-")


def values(layers: list[TrueLayer], score: str) -> list[float]:
    """Returns one score of all layers."""
    return [getattr(layer, score) for layer in layers]
