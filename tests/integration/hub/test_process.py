from __future__ import annotations

import contextlib
import shutil
import socket
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import duckdb
import pytest

from midwatch.hub.server import BACKLOG
from midwatch.wire.ids import new_id


def count(data: Path) -> tuple[int, int]:
    with duckdb.connect(str(data / "hub" / "telemetry.duckdb"), read_only=True) as db:
        row = db.execute("SELECT count(*), count(DISTINCT id) FROM beats").fetchone()
    assert row is not None
    return row[0], row[1]


def test_sigterm_ends_it_in_order_and_soon(hub_process: Any) -> None:
    hub_process.start()
    assert hub_process.ask("POST", "/api/beats", {"agent": "inbox", "tokens": 5})["accepted"] == 1
    code, said, took = hub_process.stop()
    assert code == 0, said
    assert took < 25.0  # less than a second on a machine that has nothing else to do
    assert "leaked" not in said
    assert count(hub_process.data) == (1, 1)
    # checkpointed: nothing is left to replay
    assert not (hub_process.data / "hub" / "telemetry.duckdb.wal").exists()


def test_what_was_acknowledged_survives_kill_9_and_is_there_once(hub_process: Any) -> None:
    acknowledged: set[str] = set()
    sent: list[list[dict[str, Any]]] = []
    hub_process.start()

    def load() -> None:
        while True:
            batch = [{"agent": "inbox", "id": new_id(), "tokens": 1} for _ in range(20)]
            sent.append(batch)
            try:
                answer = hub_process.ask("POST", "/api/beats", batch)
            except OSError:
                return
            if answer.get("accepted") == 20:
                acknowledged.update(item["id"] for item in batch)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    while len(acknowledged) < 400 and time.monotonic() < deadline:
        time.sleep(0.01)
    hub_process.kill()
    for thread in threads:
        thread.join(20)
    assert len(acknowledged) >= 400

    hub_process.start()
    # whoever got no answer sends again; so does, to be sure, everybody else
    for batch in sent:
        assert hub_process.ask("POST", "/api/beats", batch)["accepted"] == 20
    today = hub_process.ask("GET", "/api/agents/inbox")["today"]
    assert hub_process.stop()[0] == 0
    every = 20 * len(sent)
    assert count(hub_process.data) == (every, every)
    assert today["cycles"] == every


def test_a_port_in_use_is_told_and_ends_with_2(hub_process: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = hub_process.run("--listen", f"127.0.0.1:{port}")
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"127.0.0.1:{port} is in use" in said
    assert "Traceback" not in said


def test_a_database_from_a_newer_version_is_refused_untouched(hub_process: Any) -> None:
    hub_process.start()
    hub_process.stop()
    file = hub_process.data / "hub" / "state.db"
    with sqlite3.connect(file) as db:
        db.execute("UPDATE alembic_version SET version_num = '9999'")
    db.close()
    before = file.read_bytes()
    process = hub_process.run()
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "newer Midwatch" in said
    assert "Traceback" not in said
    assert file.read_bytes() == before


def test_a_telemetry_file_that_is_none_is_refused_untouched(hub_process: Any) -> None:
    folder = hub_process.data / "hub"
    folder.mkdir()
    (folder / "telemetry.duckdb").write_bytes(b"not a database" * 1000)
    process = hub_process.run()
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "telemetry.duckdb cannot be read" in said
    assert (folder / "telemetry.duckdb").read_bytes() == b"not a database" * 1000


def test_a_second_hub_on_the_same_directory_is_refused(hub_process: Any) -> None:
    hub_process.start()
    first = hub_process.process
    second = hub_process.run()
    said, _ = second.communicate(timeout=60)
    hub_process.process = first
    assert second.returncode == 2
    assert "in use by another process" in said
    assert hub_process.ask("GET", "/readyz")["status"] == "ok"


def test_a_missing_token_names_the_file_and_what_to_do(hub_process: Any) -> None:
    (hub_process.data / "token").unlink()
    process = hub_process.run()
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert str(hub_process.data / "token") in said
    assert "midwatch up" in said


def test_a_disk_that_takes_no_more_turns_readyz_red_and_ingest_answers_503(
    hub_process: Any,
) -> None:
    import resource

    hub_process.start()
    process = hub_process.process
    assert hub_process.ask("POST", "/api/beats", {"agent": "inbox"})["accepted"] == 1
    # no file may grow any more: what a full disk does, for this process alone
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    refused = hub_process.ask("POST", "/api/beats", {"agent": "inbox", "error": "x" * 8000})
    assert refused["status"] == 503, refused
    deadline = time.monotonic() + 30  # readyz answers from memory for a second
    while hub_process.ask("GET", "/readyz")["status"] != 503:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    infinite = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, infinite)
    deadline = time.monotonic() + 30
    while hub_process.ask("GET", "/readyz")["status"] != "ok" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert hub_process.ask("POST", "/api/beats", {"agent": "inbox"})["accepted"] == 1
    assert hub_process.stop()[0] == 0
    assert count(hub_process.data)[0] == 2


def test_the_view_is_rebuilt_from_the_store_after_a_restart(hub_process: Any) -> None:
    hub_process.start()
    beats = [{"agent": "inbox", "tokens": 100 + i, "cost_usd": 0.01} for i in range(5)]
    hub_process.ask("POST", "/api/beats", beats)
    before = hub_process.ask("GET", "/api/agents/inbox")
    hub_process.kill()
    hub_process.start()
    after = hub_process.ask("GET", "/api/agents/inbox")
    assert after["today"] == before["today"]
    assert after["recent_cycles"] == before["recent_cycles"]
    assert after["last_beat"] == before["last_beat"]
    assert shutil.which("true")  # the fleet's command exists; nothing here starts it


def test_connections_that_never_finish_a_head_keep_nobody_out(hub_process: Any) -> None:
    hub_process.start()
    port = int(hub_process.url.rpartition(":")[2])
    with contextlib.ExitStack() as open_ones:
        for _ in range(BACKLOG + 100):
            slow = open_ones.enter_context(socket.create_connection(("127.0.0.1", port), 30))
            slow.sendall(b"GET / HTTP/1.1\r\nhost: 127")
        assert hub_process.ask("GET", "/readyz", timeout_s=30)["status"] == "ok"


@pytest.mark.parametrize("name", ["state.db", "telemetry.duckdb"])
def test_readyz_is_red_when_a_database_was_deleted_under_the_hub(
    hub_process: Any, name: str
) -> None:
    hub_process.start()
    (hub_process.data / "hub" / name).unlink()
    answer = hub_process.ask("GET", "/readyz")
    assert answer["status"] == 503
    assert f"{name} was removed or replaced" in answer["detail"]
