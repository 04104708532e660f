"""What lies where a walled agent may write may be its own."""

from __future__ import annotations

from posixpath import normpath
from typing import Any

import pytest

from midwatch.core.fleet import Agent
from midwatch.core.ground import grounds, stranger


def writer(folder: str, cwd: str = "/srv", **terms: Any) -> str | None:
    agents = {
        "plain": Agent(command=["x"]),
        "walled": Agent.model_validate({"command": ["x"], "cwd": cwd, "sandbox": terms}),
    }
    known = grounds(agents, lambda agent: agent.cwd or "/srv", normpath, "/home/me")
    return stranger([folder], known)


@pytest.mark.parametrize(
    ("folder", "terms"),
    [
        ("/srv", {}),
        ("/srv/conf", {}),
        ("/srv/conf", {"write": [".", "conf"], "read": ["conf"]}),
        ("/home/me/x", {"write": ["~/x"]}),
        ("/srv/conf/open", {"read": ["conf"], "write": [".", "conf/open"]}),
        ("/tmp/x", {"write": ["/tmp"]}),
        ("/anywhere", {"write": ["/"]}),
    ],
)
def test_it_may_write_there(folder: str, terms: dict[str, Any]) -> None:
    assert writer(folder, **terms) == "walled"


@pytest.mark.parametrize(
    ("folder", "terms"),
    [
        ("/", {}),
        ("/srvx", {}),
        ("/etc", {"write": ["."]}),
        ("/srv", {"write": ["out"]}),
        ("/srv", {"cwd": "/srv/agents/walled"}),
        ("/srv/conf", {"read": ["conf"]}),
        ("/srv/conf/deep", {"hide": ["conf"], "write": ["."]}),
        ("/srv/conf", {"write": ["conf"], "hide": ["conf"]}),
        ("/tmp/x", {"write": ["/"]}),
        ("/srv", {"enabled": False}),
    ],
)
def test_it_may_not_write_there(folder: str, terms: dict[str, Any]) -> None:
    assert writer(folder, **terms) is None
