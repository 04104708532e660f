"""Take screenshots of a running fleet page, light and dark.

    python docs/images/shoot.py URL OUT [--width 1280] [--height 800] [--full]

writes OUT-light.png and OUT-dark.png. URL may be a one-time link: it is opened first, and the
page that it leads to is photographed. Needs Chromium (`apt-get install chromium`) and the
`playwright` package; MIDWATCH_CHROMIUM names another browser.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys

from playwright.sync_api import sync_playwright

CHROMIUM = (
    os.environ.get("MIDWATCH_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
)


def shoot(url: str, out: str, width: int, height: int, full: bool) -> None:
    """Open the page once and take it in both colour schemes."""
    with sync_playwright() as playwright:
        # Chromium refuses its sandbox to root
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = browser.new_page(
            viewport={"width": width, "height": height}, reduced_motion="reduce"
        )
        page.goto(url, wait_until="domcontentloaded")
        page.locator("#pulse[data-live=yes]").or_(page.locator(".bare")).first.wait_for()
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            page.screenshot(path=f"{out}-{scheme}.png", full_page=full)
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url")
    parser.add_argument("out")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=800)
    parser.add_argument("--full", action="store_true", help="the whole page, not only what fits")
    chosen = parser.parse_args()
    if CHROMIUM is None:
        sys.exit(
            "no Chromium found: apt-get install chromium, or set MIDWATCH_CHROMIUM to its path"
        )
    shoot(chosen.url, chosen.out, chosen.width, chosen.height, chosen.full)


if __name__ == "__main__":
    main()
