"""A real instance seen through a real browser: what happens to agents arrives on the page by itself.

One instance, an agent for each test. A mark on `window` would not survive a reload; it is looked
for at the end of every test.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from midwatch.drills.instance import Instance

# on one worker: two browsers at once would measure each other
pytestmark = pytest.mark.xdist_group("browser")

OpenPage = Callable[..., Page]
Midwatch = Callable[..., Any]

WITHIN_S = 30

NO_POLLING = """{
  const real = window.setInterval;
  window.setInterval = (work, ms, ...more) => (ms >= 10_000 ? 0 : real(work, ms, ...more));
}"""
"""The page also reads everything anew twice a minute; only the stream may bring what is tested here."""

SLEEPS = ["sleep", "600"]
FRAGILE = 'test ! -e "$DRILL_DIR/broken" || { echo "no mailbox" >&2; exit 3; }; exec sleep 600'
AGENTS = {
    "steady": {"command": SLEEPS},
    "victim": {"command": SLEEPS, "restart": {"attempts": 9, "backoff": "0s..50ms"}},
    "fragile": {
        "command": ["sh", "-c", FRAGILE],
        "restart": {"attempts": 3, "backoff": "0s..50ms"},
    },
    "held": {"command": SLEEPS},
    "mortal": {"command": SLEEPS, "restart": {"when": "never"}},
}


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """The instance of this file, with all its agents running."""
    with Instance(tmp_path_factory.mktemp("live"), AGENTS) as one:
        for name in AGENTS:
            assert one.wait(lambda name=name: state(one, name) == "running", WITHIN_S), name
        yield one


@pytest.fixture
def page(instance: Instance, open_page: OpenPage, midwatch: Midwatch) -> Iterator[Page]:
    """The fleet page, signed in, live and marked; at the end the mark must still be there."""
    shown = enter(instance, open_page, midwatch)
    yield shown
    assert shown.evaluate("window.notReloaded") is True, "the page was loaded again"


def enter(instance: Instance, open_page: OpenPage, midwatch: Midwatch, **how: Any) -> Page:
    """Open the fleet page by a fresh link."""
    link = midwatch("link", "--data", instance.data)
    assert link.code == 0, link
    return live(open_page(link.out.strip(), first=NO_POLLING, **how))


def live(page: Page) -> Page:
    """Wait until the page follows the stream, and mark it so that a reload would show."""
    expect(page.locator("#pulse")).to_have_attribute("data-live", "yes")
    page.evaluate("window.notReloaded = true")
    return page


def state(instance: Instance, name: str) -> str | None:
    return (instance.agent(name) or {}).get("state")


def pid(instance: Instance, name: str) -> int | None:
    return (instance.agent(name) or {}).get("pid")


def kill(instance: Instance, name: str) -> int:
    """Kill an agent as the kernel would; return its process id."""
    victim = pid(instance, name)
    assert victim is not None, name
    os.kill(victim, signal.SIGKILL)
    return victim


def runs_anew(instance: Instance, name: str, old: int) -> int:
    """Wait until another process than `old` runs, and return its id."""
    found = instance.wait(lambda: (new := pid(instance, name)) not in (None, old) and new, WITHIN_S)
    assert isinstance(found, int), f"{name} does not run again\n{instance.last_words()}"
    assert b"sleep" in Path(f"/proc/{found}/cmdline").read_bytes()
    return found


def row(page: Page, name: str) -> Locator:
    return page.locator(f'li.agent[data-agent="{name}"]')


def shows(page: Page, name: str, word: str) -> None:
    """Wait until the row of an agent says this state."""
    expect(row(page, name).locator(".word")).to_have_text(word)


def tells(page: Page, sentence: str) -> None:
    """Wait until an open incident says this."""
    some = page.locator("#incidents .incident .sentence", has_text=re.compile(sentence))
    expect(some.first).to_be_visible()


def test_the_link_of_the_start_shows_the_fleet_and_works_once(
    instance: Instance, open_page: OpenPage
) -> None:
    file = instance.data / "hub" / "link"
    link = file.read_text().strip()
    page = live(open_page(link))
    assert page.url == f"{instance.url}/"
    assert not file.exists(), "a link that was used is still offered"
    expect(page.locator("li.agent")).to_have_count(len(AGENTS))
    for name in AGENTS:
        shows(page, name, "running")
    expect(page.locator("h1")).to_have_text(re.compile(rf"{len(AGENTS)} agents, all "))
    expect(page.locator("#incidents")).to_be_hidden()

    stranger = open_page(link, quiet=False)
    expect(stranger.locator("body")).to_contain_text("midwatch link")
    expect(stranger.locator("li.agent")).to_have_count(0)


def test_the_death_of_an_agent_and_its_restart_arrive(instance: Instance, page: Page) -> None:
    expect(row(page, "victim").locator(".restarts")).to_have_text("0 restarts")
    old = kill(instance, "victim")
    tells(page, "victim.*SIGKILL")
    expect(row(page, "victim").locator(".restarts")).to_have_text("1 restart")
    shows(page, "victim", "running")
    expect(row(page, "victim").locator(".chip")).to_have_text("1 incident")
    expect(page).to_have_title(re.compile(r"^\([1-9]\) drill · Midwatch$"))
    expect(page.locator("#spoken")).to_have_text(re.compile("victim"))
    runs_anew(instance, "victim", old)


def test_a_parked_agent_is_seen_and_started_from_the_page(instance: Instance, page: Page) -> None:
    broken = instance.work / "broken"
    broken.touch()
    old = kill(instance, "fragile")
    shows(page, "fragile", "parked")
    tells(page, "fragile.*no mailbox|fragile.*parked")
    expect(page.locator("h1")).to_have_text(re.compile("fragile is parked"))
    expect(page.locator("li.agent").first).to_have_attribute("data-agent", "fragile")
    assert pid(instance, "fragile") is None

    broken.unlink()
    row(page, "fragile").get_by_role("button", name="Start fragile").first.click()
    expect(page.locator("#said")).to_have_text(re.compile("fragile: "))
    shows(page, "fragile", "running")
    expect(page.locator("h1")).not_to_have_text(re.compile("fragile"))
    runs_anew(instance, "fragile", old)


def test_a_suspension_by_command_is_seen_and_ended_from_the_page(
    instance: Instance, page: Page, midwatch: Midwatch
) -> None:
    old = pid(instance, "held")
    assert old is not None
    said = midwatch("suspend", "held", "--data", instance.data)
    assert said.code == 0, said
    shows(page, "held", "suspended")
    expect(page.locator("h1")).to_have_text(re.compile("held is suspended"))
    assert Path(f"/proc/{old}").exists(), "suspension refuses its calls and leaves its process"

    row(page, "held").get_by_role("button", name="Resume held").first.click()
    shows(page, "held", "running")
    assert pid(instance, "held") == old


NOTICE = """() => {
  const pulse = document.getElementById("pulse");
  const note = () => { if (pulse.dataset.live === "no") document.documentElement.dataset.wasLost = "yes"; };
  new MutationObserver(note).observe(pulse, { attributes: true });
}"""
"""A hub is back within a second: what is shown meanwhile must be noted, not met by luck."""


def test_after_the_death_of_the_hub_the_page_finds_back_and_shows_what_is_true(
    instance: Instance, open_page: OpenPage, midwatch: Midwatch
) -> None:
    # the browser reports that the hub was away, and may
    page = enter(instance, open_page, midwatch, quiet=False)
    page.evaluate(NOTICE)
    hub, steady = instance.children()["hub"], pid(instance, "steady")
    mortal = pid(instance, "mortal")
    assert mortal is not None
    os.kill(hub, signal.SIGKILL)
    os.kill(mortal, signal.SIGKILL)  # while nobody can tell the page
    expect(page.locator("html")).to_have_attribute("data-was-lost", "yes")

    expect(page.locator("#pulse")).to_have_attribute("data-live", "yes")
    expect(page.locator("#lost")).to_be_hidden()
    shows(page, "mortal", "stopped")
    shows(page, "steady", "running")
    tells(page, "mortal.*SIGKILL")
    assert instance.children()["hub"] != hub
    assert pid(instance, "steady") == steady

    # the cookie outlives the hub: the page can still act
    row(page, "mortal").locator("summary").click()
    row(page, "mortal").get_by_role("button", name="Start mortal").last.click()
    shows(page, "mortal", "running")
    runs_anew(instance, "mortal", mortal)
    listing = page.context.new_page()
    listing.goto(f"{instance.url}/incidents", wait_until="domcontentloaded")
    expect(listing.locator(".incident", has_text="hub was down")).to_have_count(1)
    assert page.evaluate("window.notReloaded") is True
