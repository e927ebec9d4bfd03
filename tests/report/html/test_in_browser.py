"""Reports in a real browser."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from selenium.webdriver.common.keys import Keys

from polygraphy_layerprec.ranking.agreement import compare_rankings
from polygraphy_layerprec.report.html.rendering import (
    render_agreement_report,
    render_ranking_report,
    render_verification_report,
)
from tests.rankings import make_layer
from tests.report_models import (
    HOSTILE_NAMES,
    decided_report,
    hostile_report,
    make_report,
    make_verification,
    plain_layers,
)

ROW = "#table tbody tr[data-i]"


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Returns the path of a page of each sort."""
    folder = tmp_path_factory.mktemp("pages")
    report = make_report(*plain_layers(12))
    moved = replace(report.ranking, layers=report.ranking.layers[::-1])
    agreement = compare_rankings(report.ranking, moved, first_label="one", second_label="two")
    texts = {
        "ranking": render_ranking_report(report),
        "hostile": render_ranking_report(hostile_report()),
        "decided": render_ranking_report(decided_report("hostile metric " * 9)),
        "verification": render_verification_report(make_verification()),
        "agreement": render_agreement_report(agreement),
    }
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in texts}


def names_shown(browser):
    return browser.texts(f"{ROW} .name")


def frame_of(browser, name):
    """Returns where the dots of a chart can be: left, top, width and height within its place."""
    return browser.run(
        "const view = Bokeh.index.roots.find((v) => v.model.name === arguments[0]);"
        "const b = view.frame.bbox; return [b.left, b.top, b.width, b.height]",
        name,
    )


@pytest.mark.parametrize("name", ["ranking", "hostile", "decided", "verification", "agreement"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_opens_without_an_error_or_a_request(browser, pages, name, scheme):
    browser.prefer(scheme)

    browser.open(pages[name], ready=name != "verification")

    assert browser.complaints() == []
    requested = [url for url in browser.requests() if not url.startswith("data:")]
    assert requested == [pages[name].as_uri()]


def test_charts_are_drawn_in_their_places(browser, pages):
    browser.open(pages["ranking"])

    for chart in ("impact", "errors", "magnitudes", "underflow", "curve"):
        colors = browser.run(
            "const view = Bokeh.index.roots.find((v) => v.model.name === arguments[0]);"
            "const canvas = view.canvas_view.primary.canvas;"
            "const box = document.getElementById('chart-' + arguments[0]).getBoundingClientRect();"
            "const { width, height } = canvas;"
            "const pixels = canvas.getContext('2d').getImageData(0, 0, width, height);"
            "const seen = new Set(new Uint32Array(pixels.data.buffer));"
            "return [seen.size, view.el.getBoundingClientRect().width, box.width]",
            chart,
        )
        assert colors[0] > 10
        assert colors[1] == pytest.approx(colors[2], abs=1)


def test_colours_follow_the_preference_while_the_page_is_open(browser, pages):
    browser.open(pages["ranking"])
    label = (
        "return Bokeh.index.roots.find((v) => v.model.name === 'impact')"
        ".model.below[0].major_label_text_color"
    )
    light = browser.run(label)

    browser.prefer("dark")
    browser.wait("document.documentElement.dataset.painted === 'dark'")

    assert (light, browser.run(label)) == ("#5a626d", "#a0a9b5")
    assert browser.run("return getComputedStyle(document.body).color") == "rgb(232, 234, 237)"


def test_sorting_turns_the_table_and_back(browser, pages):
    browser.open(pages["ranking"])
    worst_first = names_shown(browser)

    browser.run("document.querySelector('th[data-sort=depth] button').click()")
    by_depth = names_shown(browser)
    browser.run("document.querySelector('th[data-sort=depth] button').click()")

    assert by_depth == worst_first[::-1]
    assert names_shown(browser) == worst_first
    heads = browser.run(
        "return [...document.querySelectorAll('th[aria-sort]')]"
        ".map((e) => [e.dataset.sort, e.getAttribute('aria-sort')])"
    )
    assert heads == [["depth", "descending"]]


def test_errors_are_sorted_from_the_largest_and_what_is_unknown_stays_last(browser, tmp_path):
    layers = [
        make_layer(1, "small", cumulative_error=1e-9),
        make_layer(2, "unknown", cumulative_error=None),
        make_layer(3, "large", cumulative_error=20.0),
    ]
    page = tmp_path / "page.html"
    page.write_text(render_ranking_report(make_report(*layers)), encoding="utf-8")
    browser.open(page)

    orders = []
    for _ in range(2):
        browser.run("document.querySelector('th[data-sort=cumulative] button').click()")
        orders.append(names_shown(browser))

    assert orders == [["large", "small", "unknown"], ["small", "large", "unknown"]]


def test_searching_finds_names_operators_and_reasons(browser, pages):
    browser.open(pages["ranking"])
    browser.press("/")

    browser.press("MATMUL block.0 number 4")

    browser.wait("document.getElementById('found').textContent === '1 of 12 layers'")
    assert names_shown(browser) == ["/block.0/Op_4"]
    browser.press(Keys.ESCAPE)
    assert len(names_shown(browser)) == 12


def test_a_bar_lists_its_layers_and_the_chip_lists_all_again(browser, pages):
    browser.open(pages["ranking"])

    browser.run("document.querySelector('.filter[data-column=op][data-value=Add]').click()")
    found = browser.texts(f"{ROW} td:nth-child(3)")
    chip = browser.texts("#filter")
    browser.run("document.getElementById('filter').click()")

    assert found == ["Add"] * 6
    assert chip == ["operator: Add \N{MULTIPLICATION SIGN}"]
    assert len(names_shown(browser)) == 12


def test_hovering_names_the_nearest_layer(browser, pages):
    browser.open(pages["ranking"])
    left, top, width, height = frame_of(browser, "impact")

    # The range of the axis is [0, 13], and the second layer in execution order is rank 11.
    browser.point_at("#chart-impact", left + width * 2 / 13, top + height / 2)

    browser.wait("!document.getElementById('tip').hidden")
    (tip,) = browser.texts("#tip")
    assert tip.startswith("/block.1/Op_11Add in /block.1, layer 2")
    assert "impact 1.0e-11, rank 11" in tip
    assert "may be lowered" in tip


def test_clicking_finds_the_layer_in_the_table_even_if_it_is_filtered_out(browser, pages):
    browser.open(pages["ranking"])
    browser.run("document.querySelector('.filter[data-column=op][data-value=Add]').click()")
    left, top, width, height = frame_of(browser, "magnitudes")

    browser.point_at("#chart-magnitudes", left + width * 9 / 13, top + height / 2, click=True)

    browser.wait("document.querySelector('tr.selected') !== null")
    assert browser.texts("tr.selected .name") == ["/block.0/Op_4"]
    assert "out_4" in browser.texts(".details")[0]
    assert browser.run("return document.activeElement.dataset.i") == "3"
    box = browser.run(
        "const b = document.activeElement.getBoundingClientRect(); return [b.top, b.bottom]"
    )
    assert 0 <= box[0] < box[1] <= 1000


def test_dragging_zooms_all_charts_and_a_button_shows_all_again(browser, pages):
    browser.open(pages["ranking"])
    ends = "const r = Bokeh.documents[0].get_model_by_name('along'); return [r.start, r.end]"
    left, top, width, _ = frame_of(browser, "errors")

    browser.drag("#chart-errors", left + width / 4, left + width / 2, top + 40)
    browser.wait("!document.getElementById('unzoom').hidden")
    zoomed = browser.run(ends)
    browser.run("document.getElementById('unzoom').click()")

    assert zoomed == pytest.approx([13 / 4, 13 / 2], abs=0.3)
    assert browser.run(ends) == [0, 13]
    assert not browser.texts("#unzoom")


def test_the_keyboard_walks_along_the_depth_and_into_the_table(browser, pages):
    browser.open(pages["ranking"])
    browser.run("document.getElementById('walk').focus()")

    browser.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    reading = browser.texts("#reading")[0]
    browser.press(Keys.ENTER)

    assert reading.startswith("/block.1/Op_11 ")
    assert browser.texts("tr.selected .name") == ["/block.1/Op_11"]
    assert browser.run("return document.activeElement.className").split() == ["selected"]


def test_the_keyboard_moves_between_rows_and_opens_details(browser, pages):
    browser.open(pages["ranking"])
    browser.run("document.querySelector('#table tbody tr').focus()")

    browser.press(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_UP, Keys.ENTER)
    opened = browser.texts(".details")
    browser.press(Keys.ENTER)

    assert "in_2" in opened[0]
    assert "1.0e-02 by adjoint" in opened[0]
    assert browser.texts(".details") == []


def test_hostile_names_are_text_wherever_they_are_shown(browser, pages):
    browser.open(pages["hostile"])
    title = browser.run("return document.title")

    for index, name in enumerate(HOSTILE_NAMES[:5]):
        browser.run("document.querySelector(`tr[data-i='${arguments[0]}']`).click()", index)
        assert browser.texts(".details dd")[0] == name
        left, top, width, height = frame_of(browser, "impact")
        places = len(HOSTILE_NAMES) + 1
        browser.point_at("#chart-impact", left + width * (index + 1) / places, top + height / 2)
        browser.wait("!document.getElementById('tip').hidden")
        assert browser.texts("#tip b")[0].startswith(name[:60])
    assert browser.run("return document.title") == title
    assert browser.run("return document.querySelectorAll('body script').length") == 5
    assert browser.complaints() == []


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("name", ["hostile", "ranking", "decided", "agreement", "verification"])
def test_no_name_makes_a_page_wider_than_the_window(browser, pages, name, width):
    browser.resize(width)
    browser.open(pages[name], ready=name != "verification")
    if name != "verification":
        browser.run("document.querySelectorAll('tr[data-i]')[0].click()")

    assert browser.run("return document.documentElement.scrollWidth") <= width
    tallest = browser.run(
        "return Math.max(...[...document.querySelectorAll('#table tr, .bars li')]"
        ".map((e) => e.getBoundingClientRect().height), 0)"
    )
    assert tallest < 1000


@pytest.mark.parametrize("name", ["ranking", "decided", "agreement", "verification"])
def test_tables_fit_a_phone(browser, pages, name):
    browser.resize(400)
    browser.open(pages[name], ready=name != "verification")

    hidden = browser.run(
        "return [...document.querySelectorAll('.scroll')]"
        ".map((e) => e.scrollWidth - e.clientWidth).filter((pixels) => pixels > 0)"
    )

    assert hidden == []


def test_two_rankings_are_compared_dot_by_dot(browser, pages):
    browser.open(pages["agreement"])
    left, top, width, height = frame_of(browser, "agreement")

    browser.point_at("#chart-agreement", left + width * 0.95, top + height * 0.05, click=True)

    browser.wait("document.querySelector('tr.selected') !== null")
    assert browser.texts("tr.selected .name") == ["/block.1/Op_1"]
    assert "What sets the two apart" in browser.texts(".details")[0]


def test_charts_are_on_paper_in_light_colours(browser, pages):
    browser.open(pages["ranking"])
    browser.run(
        "window.seen = null; addEventListener('beforeprint', () => {"
        "window.seen = [...document.querySelectorAll('.chart img')].map((i) => i.src.length) })"
    )

    pdf = browser.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"]

    assert base64.b64decode(pdf).startswith(b"%PDF")
    lengths = browser.run("return window.seen")
    assert len(lengths) == 5
    assert min(lengths) > 1000
    assert browser.run("return document.querySelectorAll('.chart img').length") == 0
    assert browser.complaints() == []


def test_without_javascript_the_findings_and_all_layers_are_there(browser, pages):
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.open(pages["ranking"], ready=False)
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
        assert len(names_shown(browser)) == 12
        assert "FP16 alone leaves" in browser.texts(".verdict h2")[0]
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
