"""A real browser for the page tests.

One Chromium for the session, a fresh context for each page. Here a missing browser fails instead
of skipping: a page test that did not run has shown nothing.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "demo"))

OpenPage = Callable[..., Page]


@pytest.fixture(scope="session")
def chromium() -> str:
    """Return the path of a Chromium."""
    wanted = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    for name in (os.environ.get("PYTEST_HOUSE_CHROMIUM"), *wanted):
        path = shutil.which(name) if name else None
        if path is not None:
            return path
    pytest.fail(
        "the page tests need Chromium: apt-get update && apt-get install -y chromium"
        " (make test does it when root on Debian), or set MIDWATCH_CHROMIUM to its path",
        pytrace=False,
    )


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Browser]:
    """Return a headless Chromium that lives as long as the session."""
    # Chromium refuses its sandbox to root, and containers give it little shared memory
    arguments = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Return a function that opens an address in a context of its own: `open_page(url, width=390)`.

    Whatever a page reports as an error, a refused resource included, fails the test at its end.
    """
    contexts: list[Any] = []
    errors: list[str] = []

    def opened(
        url: str, *, width: int = 1280, height: int = 800, quiet: bool = True, **how: Any
    ) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height}, reduced_motion="reduce", **how
        )
        contexts.append(context)
        context.set_default_timeout(10_000)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        if quiet:
            page.on("console", lambda m: m.type == "error" and errors.append(m.text))
        page.goto(url, wait_until="domcontentloaded")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert errors == [], "the browser reported errors"
