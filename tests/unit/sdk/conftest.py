"""Every test begins without a runtime; what our code would swallow is raised."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from midwatch.sdk import runtime, say, shield, start, usage
from midwatch.sdk.testing import Recording, recording


@pytest.fixture(autouse=True)
def _clean_sdk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(shield, "RAISE", True)
    monkeypatch.setattr(runtime, "current", None)
    monkeypatch.setattr(runtime, "asked", False)
    monkeypatch.setattr(runtime, "_missed", False)
    monkeypatch.setattr(start, "_begun_with", None)
    monkeypatch.setattr(usage, "tracking", False)
    monkeypatch.setattr(usage, "counting_tools", False)
    monkeypatch.setattr(say, "_progress_at", float("-inf"))
    usage.loose.clear()
    shield.reset()
    yield
    usage.loose.clear()
    shield.reset()


@pytest.fixture
def seen() -> Iterator[Recording]:
    with recording("inbox", "run-1") as one:
        yield one
