"""Pages as text: what is in them, escaped, and nothing that a browser would fetch."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from polygraphy_layerprec.ranking.agreement import compare_rankings
from polygraphy_layerprec.records import Constraint, NonFiniteOrigin, UnmeasuredLayer
from polygraphy_layerprec.report.html import packages
from polygraphy_layerprec.report.html.packages import check_report_packages
from polygraphy_layerprec.report.html.rendering import (
    render_agreement_report,
    render_ranking_report,
    render_verification_report,
)
from polygraphy_layerprec.selection import SelectionRequest
from tests.processes import run_command
from tests.rankings import make_layer, make_ranking, troubled_ranking
from tests.report_models import (
    HOSTILE_NAMES,
    decided_report,
    hostile_report,
    make_report,
    make_verification,
)


class Page(HTMLParser):
    """Elements and visible text of a page, as a browser reads it."""

    def __init__(self, text):
        super().__init__()
        self.elements = []
        self.texts = []
        self.scripts = []
        self._within = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._within.append(tag)

    def handle_endtag(self, tag):
        while self._within and self._within.pop() != tag:
            pass

    def handle_data(self, data):
        within = self._within[-1] if self._within else ""
        (self.scripts if within in ("script", "style") else self.texts).append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def pages():
    """Returns a page of each sort."""
    first, second = make_ranking(make_layer(1, "a"), make_layer(2, "b")), make_report().ranking
    agreement = compare_rankings(first, second, first_label="one", second_label="two")
    return {
        "ranking": render_ranking_report(make_report()),
        "verification": render_verification_report(make_verification()),
        "agreement": render_agreement_report(agreement),
    }


@pytest.mark.parametrize("kind", ["ranking", "verification", "agreement"])
def test_a_page_asks_for_nothing_from_elsewhere(pages, kind):
    page = Page(pages[kind])
    fetched = [
        (tag, value)
        for tag, attributes in page.elements
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action", "data", "poster") and value
    ]

    assert fetched == [("link", "data:,"), ("a", "#main")]
    policy = next(a["content"] for _, a in page.elements if a.get("http-equiv"))
    assert policy.startswith("default-src 'none';")
    styles = "".join(text for text in page.scripts if ":root" in text)
    assert "url(" not in styles
    assert "@import" not in styles
    assert "sourceMappingURL" not in pages[kind]


def test_the_same_report_gives_the_same_bytes_again_and_again():
    report = make_report()

    assert render_ranking_report(report) == render_ranking_report(report)


PAGES = """
import hashlib, sys
from polygraphy_layerprec.ranking.agreement import compare_rankings
from polygraphy_layerprec.report.html import rendering
from tests.rankings import troubled_ranking
from tests.report_models import hostile_report, make_report, make_verification, plain_layers
report = make_report(*plain_layers(40))
agreement = compare_rankings(report.ranking, troubled_ranking(), first_label="a", second_label="b")
pages = [
    rendering.render_ranking_report(report),
    rendering.render_ranking_report(hostile_report()),
    rendering.render_verification_report(make_verification()),
    rendering.render_agreement_report(agreement),
]
print(*[hashlib.sha256(page.encode()).hexdigest() for page in pages])
"""


def test_another_process_in_another_environment_gives_the_same_bytes():
    environments = [
        {"PYTHONHASHSEED": "1"},
        {"PYTHONHASHSEED": "2", "TZ": "Asia/Tokyo", "LC_ALL": "C", "COLUMNS": "200"},
        {"PYTHONHASHSEED": "3", "BOKEH_SIMPLE_IDS": "no", "BOKEH_MINIFIED": "no"},
    ]

    digests = [
        run_command([sys.executable, "-c", PAGES], Path(__file__).parents[3], changes).stdout
        for changes in environments
    ]

    assert len(digests[0].split()) == 4
    assert len(set(digests)) == 1


def test_numbers_of_figures_begin_anew_but_names_are_left_alone():
    report = make_report(make_layer(1, "p1001"), make_layer(2, "m0"))
    render_ranking_report(make_report())

    names = layer_columns_of(render_ranking_report(report))["name"]

    assert names == ["p1001", "m0"]


def test_everything_of_a_ranking_is_there():
    ranking = replace(troubled_ranking(), warnings=("Mind the gap.",))
    report = replace(make_report(), ranking=ranking)
    text = Page(render_ranking_report(report)).text

    for expected in (
        "Mind the gap.",
        "model.onnx",
        "ab" * 32,
        "numpy 2.0.0, onnxruntime 1.20.0",
        "2 samples, of the user",
        "0.99, the rank correlation between samples",
        "loop/Custom (Custom): no kernel for domain 'acme'",
        "Infinity starts in /encoder/layer.11/attention/output/LayerNorm/Pow",
        "in FP16 only",
        "Its way through 9 layers",
        "FP16 ends at 65504",
        "2.0e-02~",
        "polygraphy layerprec constrain 'a b.json'",
        "Save a script:",
    ):
        assert expected in text


def test_shares_add_up_in_bars_with_the_largest_first():
    layers = [
        make_layer(1, "a", op="MatMul", share=0.6),
        make_layer(2, "b", op="Add", share=0.3),
        make_layer(3, "c", op="MatMul", share=0.1),
    ]
    page = Page(render_ranking_report(make_report(*layers)))

    widths = [
        a["style"] for tag, a in page.elements if tag == "span" and "width" in a.get("style", "")
    ]

    assert widths == ["width:70.00%", "width:30.00%", "width:100.00%"]


def test_rows_stand_worst_first_with_what_stays_in_fp32_marked():
    page = Page(render_ranking_report(make_report()))

    rows = [attributes for tag, attributes in page.elements if "data-i" in attributes]

    assert [row["data-i"] for row in rows] == ["0", "1", "2", "3"]
    assert [row.get("class") for row in rows] == ["kept", None, None, None]


def test_no_name_becomes_an_element_or_ends_a_script():
    plain = Page(render_ranking_report(make_report(*[make_layer(i + 1, str(i)) for i in range(7)])))

    hostile = Page(render_ranking_report(hostile_report()))

    scripts = [attributes for tag, attributes in hostile.elements if tag == "script"]
    assert scripts == [attributes for tag, attributes in plain.elements if tag == "script"]
    assert not [a for _, a in hostile.elements if any(name.startswith("on") for name in a)]
    assert HOSTILE_NAMES[0] in hostile.text
    assert HOSTILE_NAMES[2] in hostile.text
    assert "49" not in [text.strip() for text in hostile.texts]


def test_the_data_hold_names_whole_and_printable():
    names = layer_columns_of(render_ranking_report(hostile_report()))["name"]

    assert names[:5] == list(HOSTILE_NAMES[:5])
    assert names[5] == "new\\nline\\x1b[31m\\u202eright to left"


def test_hostile_names_elsewhere_are_escaped_as_well():
    name = HOSTILE_NAMES[0]
    report = make_report(
        unmeasured=(UnmeasuredLayer(name, name, (name,), name),),
        nonfinite_origins=(
            NonFiniteOrigin(name, name, "nan", in_reference=True, path=(name, name)),
        ),
    )

    for text in (
        render_ranking_report(report),
        render_ranking_report(decided_report(name)),
        render_verification_report(
            make_verification(
                source=name,
                failures=(name,),
                warnings=(name,),
                constraints=(Constraint(name, name, (), (), name),),
            )
        ),
    ):
        assert "<script>document" not in text
        assert "&lt;script&gt;document.title" in text


def test_a_tolerance_is_shown_in_the_curve():
    with_tolerance = render_ranking_report(make_report(request=SelectionRequest(tolerance=0.05)))

    assert "line_color=--tolerance" in with_tolerance
    assert "line_color=--tolerance" not in render_ranking_report(make_report())


def test_a_verification_shows_outputs_and_engines(pages):
    text = Page(pages["verification"]).text

    assert "logits 1.0e-07 1.0e-02 1.0e-04 99.0 % 1.0e-03 0 90.0 %" in text
    assert "constrained 3.0 MiB 1.500 ms 50.0 % 1 of 3 layers asked for are in FP32" in text
    assert "kept_in_vain MatMul FP16 -> FP16 a_kernel" in text
    assert "kept_in_vain" in text


def test_the_sets_to_choose_from_are_listed_with_the_chosen_one_marked():
    page = Page(render_ranking_report(decided_report()))

    assert "N Layers Operations Casts Relative L2 error Criterion" in page.text
    assert "1 0 0.0% 0 0.1 not met 2 * 1 12.5% 4 0.001 met" in page.text
    assert "Criterion: no NaN or infinity where FP32 has none; relative L2 error at" in page.text
    assert [a for tag, a in page.elements if tag == "tr" and a.get("class") == "total"]
    assert "Sets to choose from" not in Page(render_ranking_report(make_report())).text


def test_a_verification_shows_the_criteria_the_layers_and_the_model(pages):
    text = Page(pages["verification"]).text

    assert "Criterion All FP16 Constrained Result no NaN or infinity" in text
    assert "relative L2 error at most 0.005 0.01 0.0001 met" in text
    assert "3 of 12 layers, as the script 'constraints.py' asks" in text
    assert "/norm/Pow Pow overflow: |x| up to 8.1e5 sum Add 31 % of the output error" in text
    assert "Model model.onnx, 7 nodes, opset 17" in text


def test_a_comparison_shows_what_only_one_ranking_has(pages):
    text = Page(pages["agreement"]).text

    assert "The rankings have no layer in common." in text
    assert "Only in the first: 2 layers" in text
    assert "Only in the second: 4 layers" in text


def test_without_the_packages_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name == "bokeh" else name)

    with pytest.raises(ValueError, match=r"(?s)bokeh cannot.*'polygraphy-layerprec\[report\]'"):
        check_report_packages()


def layer_columns_of(text):
    """Returns the columns that the page's script reads."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(found[1])["columns"]


def test_a_page_says_each_thing_once():
    terms = re.findall(r"<dt>(.*?)</dt>", render_ranking_report(make_report()))

    assert len(terms) == len(set(terms)) > 5


@pytest.mark.parametrize(
    ("trouble", "word"),
    [({"overflow": True, "kind": "overflow"}, "overflow"), ({"keeps_finite": True}, "NaN/Inf")],
)
def test_what_loses_values_has_a_word_in_place_of_an_impact(trouble, word):
    layers = [
        make_layer(1, "a", impact=4.9e-12, share=0.0, **trouble),
        make_layer(2, "b", impact=0.02, share=1.0),
    ]

    page = render_ranking_report(make_report(*layers))

    row = page.partition('<tr data-i="0"')[2].partition("</tr>")[0]
    assert row.count(f'<td class="over">{word}</td>') == 2
    assert "4.9e-12" not in row


def test_what_is_quoted_is_set_as_code_and_nothing_else_is_html():
    ranking = replace(make_report().ranking, warnings=("Give real ones with `--load-inputs <b>`.",))

    text = render_ranking_report(replace(make_report(), ranking=ranking))

    assert "<li>Give real ones with <code>--load-inputs &lt;b&gt;</code>.</li>" in text


def test_of_pairs_nothing_is_said_of_a_range_that_they_do_not_have():
    report = make_report()
    report = replace(report, ranking=replace(report.ranking, precision="qdq"))

    page = Page(render_ranking_report(report))

    assert "Magnitude largest |x| of the layer" in page.text
    assert "pairs of QuantizeLinear and DequantizeLinear" in page.text
    assert not re.search("Underflow|3.4e\\+38|3.4028e|1.4e-45", page.text)
    assert [a["id"] for _, a in page.elements if a.get("id", "").startswith("chart-")] == [
        *("chart-impact", "chart-errors", "chart-magnitudes", "chart-curve")
    ]
