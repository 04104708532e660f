"""What the stores on DuckDB share: a question that ends in time, and what a person needs of a message."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import duckdb

from midwatch.core.errors import StoreError

READERS: Final = 2
"""Questions that are answered at the same time; more wait for their turn."""

READ_TIMEOUT_S: Final = 10.0
"""A question is interrupted after this time."""

INTERRUPT_S: Final = 1.0
"""How long an interrupted question may take to end before it is abandoned."""

CLOSE_S: Final = 5.0
"""How long it is tried to close a connection that is busy for a moment."""

T = TypeVar("T")

Asked = list[duckdb.DuckDBPyConnection]
"""The cursor on which a question runs, while it runs: what is interrupted."""


def first_line(error: Exception) -> str:
    """Return what a person needs of DuckDB's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def close(connection: duckdb.DuckDBPyConnection) -> None:
    """Close a connection from which another thread may be taking a cursor at this moment. Raises duckdb.Error."""
    deadline = time.monotonic() + CLOSE_S
    while True:
        try:
            connection.close()
        except duckdb.OperationalError:  # DuckDB refuses instead of waiting
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.002)
        else:
            return


async def answered(
    readers: ThreadPoolExecutor, question: Callable[[Asked], T], timeout_s: float
) -> T:
    """Return what a question makes, in a reading thread. Raises StoreError, also when it takes longer than that.

    The question puts its cursor into the list that it is given, and takes it out before it gives the cursor back.
    """

    def ask(asked: Asked) -> T:
        try:
            return question(asked)
        except duckdb.InterruptException:
            raise StoreError(
                f"the query took longer than {timeout_s:.0f} s; ask for less"
            ) from None
        except duckdb.Error as error:
            raise StoreError(f"the telemetry store cannot answer: {first_line(error)}") from None

    asked: Asked = []
    job = asyncio.get_running_loop().run_in_executor(readers, ask, asked)
    done, _ = await asyncio.wait([job], timeout=timeout_s)
    if not done:
        for cursor in asked:
            cursor.interrupt()
        # what was interrupted ends within a moment; what still waits for its turn is abandoned
        done, _ = await asyncio.wait([job], timeout=INTERRUPT_S)
        if not done:
            job.cancel()
            raise StoreError(
                f"no answer from the telemetry store within {timeout_s:.0f} s; ask for less, or again in a moment"
            )
    return job.result()
