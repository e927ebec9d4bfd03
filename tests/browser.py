"""A real browser: headless Chromium with a fresh profile, told to do nothing of its own accord."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.support.wait import WebDriverWait

from benchmarks.report_load import BROWSER_FLAGS
from tests.processes import LONGEST_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Browser", "start_browser"]


class Browser:
    """Shows one page after the other, and keeps what was logged and requested."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, page: Path, *, ready: bool = True) -> None:
        """Opens a page, and waits until its charts are drawn unless it has none."""
        self.driver.get("about:blank")
        self.complaints()
        self.requests()
        self.driver.get(page.as_uri())
        if ready:
            self.wait("document.documentElement.dataset.ready === 'yes'")

    def run(self, code: str, *arguments: Any) -> Any:
        """Returns what JavaScript returns."""
        return self.driver.execute_script(code, *arguments)

    def wait(self, condition: str) -> None:
        """Waits until an expression in JavaScript is true."""
        WebDriverWait(self.driver, LONGEST_SECONDS).until(lambda _: self.run(f"return {condition}"))

    def complaints(self) -> list[str]:
        """Returns the console's errors and warnings since this was last asked."""
        entries = self.driver.get_log("browser")
        return [entry["message"] for entry in entries if entry["level"] in ("WARNING", "SEVERE")]

    def requests(self) -> list[str]:
        """Returns what was requested since this was last asked."""
        events = [json.loads(e["message"])["message"] for e in self.driver.get_log("performance")]
        return [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]

    def texts(self, selector: str) -> list[str]:
        """Returns the texts of elements that are shown, as a person reads them."""
        return self.run(
            "return [...document.querySelectorAll(arguments[0])]"
            ".filter((e) => e.checkVisibility()).map((e) => e.textContent)",
            selector,
        )

    def prefer(self, scheme: str) -> None:
        """Makes the user prefer `light` or `dark`."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def resize(self, width: int) -> None:
        """Makes the window this wide, in pixels."""
        metrics = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def press(self, *keys: str) -> None:
        """Presses keys where the focus is."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def point_at(self, selector: str, x: float, y: float, *, click: bool = False) -> None:
        """Moves the pointer into an element, counted from its upper left, and clicks there."""
        left, top = self._show(selector)
        place = {"x": left + x, "y": top + y}
        self._mouse("mouseMoved", **place)
        if click:
            self._mouse("mousePressed", **place, button="left", clickCount=1)
            self._mouse("mouseReleased", **place, button="left", clickCount=1)

    def drag(self, selector: str, start: float, end: float, y: float) -> None:
        """Drags the pointer along within an element, counted as in `point_at`."""
        left, top = self._show(selector)
        self._mouse("mousePressed", x=left + start, y=top + y, button="left", clickCount=1)
        for share in (0.3, 0.6, 1.0):
            x = left + start + share * (end - start)
            self._mouse("mouseMoved", x=x, y=top + y, button="left", buttons=1)
        self._mouse("mouseReleased", x=left + end, y=top + y, button="left", clickCount=1)

    def _show(self, selector: str) -> tuple[float, float]:
        """Scrolls to an element, and returns where it is."""
        return self.run(
            "const element = document.querySelector(arguments[0]);"
            "element.scrollIntoView({block: 'center', behavior: 'instant'});"
            "const box = element.getBoundingClientRect(); return [box.left, box.top]",
            selector,
        )

    def _mouse(self, kind: str, **content: Any) -> None:
        self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": kind, **content})


def start_browser(profile: Path) -> Iterator[Browser]:
    """Gives a browser; skips the test where Chromium is not installed."""
    chromium, chromedriver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if chromium is None or chromedriver is None:
        pytest.skip("Chromium and its driver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*BROWSER_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # The driver is given, so that Selenium looks for none.
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
