"""The bus between hubs over PostgreSQL's NOTIFY (`core.ports.Bus`).

One connection tells, one listens. A message is cut into parts of what one notification takes; those of one message
are committed together and so arrive together, in order. What is told while nobody listens is gone, as it should be;
when the connection that listens is lost, every listener is told that he missed something.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import uuid
from collections.abc import AsyncIterator
from typing import Final

import psycopg
from psycopg import sql

from midwatch.core.errors import StoreError
from midwatch.core.ports import MAX_TOLD
from midwatch.store.ear import Ear
from midwatch.store.migrate import first_line
from midwatch.store.postgres import CONNECT_S, IDLE_MS

PART: Final = 7_600
"""Characters of a message in one notification, of 8,000 that PostgreSQL takes."""

MAX_TELLERS: Final = 1_000
"""Ends of which the last message is remembered; each start of a hub is a new one."""

TELL_S: Final = 5.0
"""How long telling may take."""


class PostgresBus:
    """One end. Call inside the running loop; `stop` closes the connections."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._me = uuid.uuid4().hex[:12]
        self._count = 0
        self._mouth: psycopg.AsyncConnection[tuple[object, ...]] | None = None
        self._speaking = asyncio.Lock()
        self._ear: psycopg.AsyncConnection[tuple[object, ...]] | None = None
        self._opening = asyncio.Lock()
        self._listening: asyncio.Task[None] | None = None
        self._ears: dict[str, list[Ear]] = {}
        self._parts: dict[str, list[str]] = {}
        self._channels: dict[str, str] = {}
        self._heard: dict[str, int] = {}
        self._schema: str | None = None

    async def tell(self, topic: str, data: bytes) -> None:
        """Tell whoever listens now; see the port."""
        if len(data) > MAX_TOLD:
            raise StoreError(
                f"{len(data)} bytes are too many for one message; at most {MAX_TOLD}",
                permanent=True,
            )
        text = base64.b64encode(data).decode()
        parts = [text[at : at + PART] for at in range(0, len(text), PART)] or [""]
        async with self._speaking:
            self._count += 1
            name = f"{self._me}.{self._count}"
            for again in (True, False):
                fresh = self._mouth is None
                try:
                    async with asyncio.timeout(TELL_S):
                        await self._say(topic, name, parts)
                    return
                except (psycopg.Error, TimeoutError, OSError) as error:
                    await self._hush()
                    # a connection that was lost while it rested; whoever hears both hears one (by name)
                    if fresh or not again:
                        raise StoreError(
                            f"the bus between hubs cannot tell: {first_line(error)}"
                        ) from None

    async def _say(self, topic: str, name: str, parts: list[str]) -> None:
        if self._mouth is None:
            self._mouth = await self._connect()
        channel = await self._channel(self._mouth, topic)
        rows = [
            (channel, f"{name} {number} {len(parts)} {part}") for number, part in enumerate(parts)
        ]
        async with self._mouth.transaction(), self._mouth.cursor() as cursor:
            await cursor.executemany("SELECT pg_notify(%s, %s)", rows)

    async def _hush(self) -> None:
        if self._mouth is not None:
            with contextlib.suppress(psycopg.Error, OSError):
                await self._mouth.close()
            self._mouth = None

    async def hear(self, topic: str) -> AsyncIterator[bytes]:
        """Listen; see the port."""
        async with self._opening:
            try:
                async with asyncio.timeout(TELL_S):
                    await self._listen(topic)
            except (psycopg.Error, TimeoutError, OSError) as error:
                await self._deafen()
                raise StoreError(
                    f"the bus between hubs cannot be heard: {first_line(error)}"
                ) from None
            ear = Ear(self._ears.setdefault(topic, []))
            self._ears[topic].append(ear)
            return ear

    async def _listen(self, topic: str) -> None:
        if self._listening is not None and (self._listening.done() or self._ear is None):
            await self._deafen()
        if self._ear is None:
            self._ear = await self._connect()
        elif self._listening is not None:
            if topic in self._channels.values():
                return
            # one statement at a time on a connection: it listens again a moment later, and nothing is lost meanwhile
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        channel = await self._channel(self._ear, topic)
        await self._ear.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        self._channels[channel] = topic
        self._listening = asyncio.get_running_loop().create_task(self._run(self._ear), name="bus")

    async def _run(self, connection: psycopg.AsyncConnection[tuple[object, ...]]) -> None:
        try:
            async for note in connection.notifies():
                self._take(self._channels.get(note.channel, ""), note.payload)
        except (psycopg.Error, OSError):
            pass
        # whoever listens has missed something by the time he listens again
        self._miss()

    def _take(self, topic: str, payload: str) -> None:
        name, number, total, part = payload.split(" ", 3)
        parts = self._parts.setdefault(name, [])
        if int(number) != len(parts):
            del self._parts[name]
            return
        parts.append(part)
        if len(parts) < int(total):
            return
        del self._parts[name]
        teller, _, count = name.partition(".")
        if int(count) <= self._heard.get(teller, 0):
            return  # told twice: the first answer was lost
        self._heard[teller] = int(count)
        while len(self._heard) > MAX_TELLERS:
            del self._heard[next(iter(self._heard))]
        data = base64.b64decode("".join(parts))
        for ear in tuple(self._ears.get(topic, ())):
            ear.put(data)

    def _miss(self) -> None:
        ears, self._ears = self._ears, {}
        self._parts.clear()
        for ear in [ear for each in ears.values() for ear in each]:
            ear.miss()

    async def _deafen(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
            self._listening = None
        self._miss()
        self._channels.clear()
        if self._ear is not None:
            with contextlib.suppress(psycopg.Error, OSError):
                await self._ear.close()
            self._ear = None

    async def stop(self) -> None:
        """Close both connections; whoever listens is told that he missed something."""
        await self._deafen()
        await self._hush()

    async def _connect(self) -> psycopg.AsyncConnection[tuple[object, ...]]:
        return await psycopg.AsyncConnection.connect(
            self._address,
            autocommit=True,
            connect_timeout=CONNECT_S,
            application_name="midwatch-bus",
            tcp_user_timeout=IDLE_MS,
            keepalives_idle=5,
            keepalives_interval=2,
            keepalives_count=3,
        )

    async def _channel(
        self, connection: psycopg.AsyncConnection[tuple[object, ...]], topic: str
    ) -> str:
        """Return a topic's channel: of one database, whose schemas are different fleets."""
        if self._schema is None:
            row = await (await connection.execute("SELECT current_schema()")).fetchone()
            self._schema = str(row[0]) if row else ""
        named = hashlib.blake2b(f"{self._schema} {topic}".encode(), digest_size=12)
        return f"midwatch_{named.hexdigest()}"
