"""The loop that is there is taken, and open files are asked for within what is allowed."""

from __future__ import annotations

import asyncio
import resource
import sys

import pytest
import uvloop

from midwatch.gateway.http import loop


async def _kind() -> type:
    return type(asyncio.get_running_loop())


def test_uvloop_is_taken_where_it_is_and_asyncios_own_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert loop.run(_kind()) is uvloop.Loop
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert loop.run(_kind()) is not uvloop.Loop


def test_open_files_are_raised_as_far_as_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [(1_024, 4_096), (1_024, resource.RLIM_INFINITY), (500_000, 500_000), (resource.RLIM_INFINITY,) * 2]  # fmt: skip
    asked: list[object] = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: asked.append(wanted))
    for now in limits:
        monkeypatch.setattr(resource, "getrlimit", lambda _, now=now: now)
        loop.raise_open_files()
    assert asked == [(4_096, 4_096), (65_536, resource.RLIM_INFINITY)]
