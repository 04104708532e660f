"""The one-time link by which a browser signs in, and the cookie that it gets.

A code has 128 bits and works once, so guessing is hopeless and needs no slowing down. Its digest is in the state
database: of several hubs behind one address any takes it. The current link lies in `hub/link`, readable by the owner
only; a used link is removed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from midwatch.core.errors import SetupError
from midwatch.store.tokens import LOGIN_S, LoginStore

CODE_S: Final = 86_400.0
"""A link that nobody used is void after a day."""

MAX_CODES: Final = 20
"""Links that may be waiting; the oldest is void then."""


class Login:
    """Makes links, turns a code into a cookie, ends a login."""

    def __init__(self, logins: LoginStore, link_file: Path, clock: Callable[[], float]) -> None:
        self._logins = logins
        self._file = link_file
        self._clock = clock
        self.base_url = ""
        self.public_url: str | None = None
        """Where people reach the pages, when that is another address (`hub.public_url`)."""
        self._port = 0

    @property
    def cookie(self) -> str:
        """The cookie's name, with the port: cookies of one host are shared by all its ports."""
        if self.public_url is None:
            return f"midwatch_{self._port}"
        parts = urlsplit(self.public_url)
        # the same at all hubs behind that address, whatever they listen on
        return f"midwatch_{parts.port or (443 if parts.scheme == 'https' else 80)}"

    def listen(self, base_url: str, port: int) -> None:
        """Take the address that the hub got."""
        self.base_url = base_url
        self._port = port

    async def new_link(self) -> str:
        """Return a fresh link and write it to the file. Raises SetupError, StoreError."""
        code = await self._logins.create_code(self._clock(), CODE_S, MAX_CODES)
        url = f"{self.public_url or self.base_url}/login?code={code}"
        fresh = self._file.with_name(self._file.name + ".new")
        try:
            with contextlib.suppress(FileNotFoundError):
                fresh.unlink()
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as out:
                out.write(url + "\n")
            fresh.replace(self._file)
        except OSError as error:
            raise SetupError(f"cannot write {self._file}: {error.strerror}") from None
        return url

    async def enter(self, code: str) -> str | None:
        """Return the Set-Cookie header for a good code, once; None for any other."""
        now = self._clock()
        if not await self._logins.use_code(code, now):
            return None
        with contextlib.suppress(
            OSError
        ):  # void already; the file only spares a person the attempt
            if self._file.read_text().strip().endswith(code):
                self._file.unlink()
        secret = await self._logins.create(now)
        return self._header(secret, round(LOGIN_S))

    async def leave(self, secret: str) -> str:
        """End a login and return the Set-Cookie header that forgets it."""
        await self._logins.end(secret)
        return self._header("", 0)

    def _header(self, secret: str, age_s: int) -> str:
        # where people come by HTTPS, the cookie never travels without
        secure = "; Secure" if (self.public_url or "").startswith("https://") else ""
        return f"{self.cookie}={secret}; Path=/; Max-Age={age_s}; HttpOnly; SameSite=Strict{secure}"
