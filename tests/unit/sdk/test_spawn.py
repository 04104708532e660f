"""`spawn`: a child with a name and a run of its own, and a plain Popen where nobody watches."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

import midwatch as mw
from midwatch.sdk import runtime, shield
from midwatch.sdk.testing import Recording

SHOW = "import json, os; print(json.dumps(dict(os.environ)))"


def run(name: str = "search", **options: Any) -> tuple[dict[str, str], Any]:
    child = mw.spawn([sys.executable, "-c", SHOW], name=name, stdout=subprocess.PIPE, **options)
    out, _ = child.communicate(timeout=20)
    return json.loads(out), child


def test_a_child_gets_a_name_and_a_run_of_its_own(
    seen: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "@nobody")
    monkeypatch.setenv("MIDWATCH_SPOOL", "/spool/inbox")
    monkeypatch.setenv(
        "OTEL_RESOURCE_ATTRIBUTES", "team=a,midwatch.agent=inbox,midwatch.run_id=run-1"
    )
    env, child = run(ttl_s=60, memory_bytes=1 << 28)
    assert env["MIDWATCH_AGENT"] == env["OTEL_SERVICE_NAME"] == "inbox:search"
    assert env["MIDWATCH_RUN_ID"] == child.run_id != "run-1"
    assert env["MIDWATCH_PARENT_RUN_ID"] == "run-1"
    assert env["MIDWATCH_SPOOL"] == "/spool/inbox/search"
    assert "NOTIFY_SOCKET" not in env  # its beats must not stand in for its parent's
    assert env["OTEL_RESOURCE_ATTRIBUTES"] == (
        f"team=a,service.instance.id={child.run_id},midwatch.agent=inbox:search,midwatch.run_id={child.run_id}"
    )
    assert seen.notifier.children == [
        {
            "run": child.run_id,
            "agent": "inbox:search",
            "outlive": False,
            "ttl_s": 60,
            "memory_bytes": 1 << 28,
        },
        {"run": child.run_id, "code": 0},
    ]


def test_its_end_is_told_once_however_often_it_is_asked_for(seen: Recording) -> None:
    child = mw.spawn([sys.executable, "-c", "raise SystemExit(3)"], name="x")
    assert [child.wait(20), child.poll(), child.wait()] == [3, 3, 3]
    assert [told["code"] for told in seen.notifier.children if "code" in told] == [3]


def test_an_odd_name_is_made_a_name(seen: Recording) -> None:
    env, _ = run(name="../../etc pass:wd\n")
    assert env["MIDWATCH_AGENT"] == "inbox:etc-pass-wd"
    assert run(name="")[0]["MIDWATCH_AGENT"] == "inbox:child"
    assert len(run(name="x" * 500)[0]["MIDWATCH_AGENT"]) < 64
    assert seen.lost == {}


def test_a_limit_that_is_no_number_is_left_out_and_counted(seen: Recording) -> None:
    run(ttl_s="soon")
    assert seen.notifier.children[0]["ttl_s"] is None
    assert seen.lost == {"bad_argument": 1}


def test_without_a_supervisor_it_is_a_plain_child() -> None:
    assert runtime.current is None
    env, child = run(env={"A": "b"})
    assert env["A"] == "b"
    assert "MIDWATCH_RUN_ID" not in env
    assert child.run_id is None


def test_a_broken_notifier_does_not_keep_the_child_from_starting(
    seen: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shield, "RAISE", False)

    def broken(_told: object) -> None:
        raise OSError("no")

    monkeypatch.setattr(seen.notifier, "child", broken)
    assert run()[1].returncode == 0


def test_a_program_that_does_not_exist_fails_as_with_subprocess(seen: Recording) -> None:
    with pytest.raises(FileNotFoundError):
        mw.spawn(["/no/such/program"], name="x")
    assert seen.notifier.children == []
