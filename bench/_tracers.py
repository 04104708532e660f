"""The tracing servers that ours is measured beside: each is started at a free port over an empty folder.

Every one is a context manager `(folder)` that yields a `Tracer`. `stored` counts what is in the database,
which is what is left after the power has gone; ours is asked over its API.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from _gateways import answers, free_port
from _peers import child, installed, tree


@dataclass(frozen=True)
class Tracer:
    """Where posts go, with which headers, which processes take them, and how many spans they have stored."""

    port: int
    pid: int
    stored: Callable[[], int]
    headers: Sequence[str] = ()
    path: str = "/v1/traces"

    def pids(self) -> list[int]:
        return [self.pid, *tree(self.pid)]


def _rows(file: Path, table: str) -> Callable[[], int]:
    def count() -> int:
        if not file.exists():
            return 0
        with contextlib.closing(
            sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=30)
        ) as db:
            return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])

    return count


@contextlib.contextmanager
def phoenix(folder: Path) -> Iterator[Tracer]:
    """Arize Phoenix over its SQLite."""
    tool = installed("phoenix", "arize-phoenix") / "phoenix"
    port = free_port()
    env = {
        **os.environ,
        "PHOENIX_WORKING_DIR": str(folder),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(free_port()),
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    with child([str(tool), "serve"], folder, env) as pid:
        answers(port, "/healthz", 120, pid)
        yield Tracer(port, pid, _rows(folder / "phoenix.db", "spans"))


@contextlib.contextmanager
def mlflow(folder: Path) -> Iterator[Tracer]:
    """MLflow's tracking server over its SQLite."""
    tool = installed("mlflow", "mlflow") / "mlflow"
    port = free_port()
    file = folder / "mlflow.db"
    command = [
        str(tool), "server", "--host", "127.0.0.1", "--port", str(port),
        "--backend-store-uri", f"sqlite:///{file}", "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    with child(command, folder) as pid:
        answers(port, "/health", 120, pid)
        yield Tracer(port, pid, _rows(file, "spans"), ["x-mlflow-experiment-id: 0"])


PEERS: tuple[Callable[[Path], contextlib.AbstractContextManager[Tracer]], ...] = (phoenix, mlflow)
