"""The page of an agent that waits for input: its question, its last lines as text, a way to answer."""

from __future__ import annotations

import demo_fleets as fleets
import pytest
from demo_hub import Demo
from fastapi.testclient import TestClient

from midwatch.web import prompt

SCREEN = ["Welcome", "", "  Do you trust <b>the files</b> in this folder? (y/N)"]


def waiting(state: str = "waiting", **evidence: object) -> Demo:
    demo = Demo()
    one = fleets.incident(
        1,
        "waiting-for-input",
        "inbox",
        sentence="inbox: waits for input: 'Do you trust the files in this folder? (y/N)'",
        evidence={"question": "Do you trust?", "screen": SCREEN, **evidence},
    )
    demo.book.keep(one)
    demo.reader.by_name["inbox"] = fleets.agent("inbox", state, incidents=[one.to_json()])
    return demo


def page(demo: Demo) -> str:
    with TestClient(demo.app(), follow_redirects=False) as client:
        return client.get("/agents/inbox").text


def test_the_last_lines_stand_on_the_page_as_text() -> None:
    text = page(waiting())
    assert "Welcome\n\n  Do you trust &lt;b&gt;the files&lt;/b&gt; in this folder? (y/N)" in text
    assert "<b>the files" not in text


def test_it_can_be_answered_without_javascript() -> None:
    text = page(waiting())
    assert 'method="post" action="/api/agents/inbox/input"' in text
    assert 'name="text"' in text


@pytest.mark.parametrize("state", ["running", "stopped", "unhealthy"])
def test_nothing_is_asked_of_who_does_not_wait(state: str) -> None:
    assert "/input" not in page(waiting(state))


@pytest.mark.parametrize(
    "evidence", [{"screen": None}, {"screen": 7, "question": 7}, {"screen": [7]}]
)
def test_evidence_that_is_none_breaks_nothing(evidence: dict[str, object]) -> None:
    assert "It waits for an answer" in page(waiting(**evidence))


@pytest.mark.parametrize("incidents", [None, [], ["id"], [{"kind": "waiting-for-input"}]])
def test_incidents_of_any_form_are_read(incidents: object) -> None:
    found = prompt.see({"state": "waiting", "incidents": incidents})
    assert found in (None, prompt.Prompt("", ""))


def test_a_screen_of_control_characters_is_shown_without_them() -> None:
    text = page(waiting(screen=["\x1b[2J\x1b]0;title\x07\u202eevil", "x" * 5000] * 200))
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "x" * 400 not in text
