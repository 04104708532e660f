"""Sends one message to one target through apprise, in a thread of its own, within a time limit.

What apprise says about a failure is kept for people, without anything that is in a target's URL.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from midwatch.core.errors import DeliveryError
from midwatch.core.incident import Severity
from midwatch.core.plain import clean

TIMEOUT_S: Final = 20.0
"""One attempt, all of it. apprise's own socket timeouts are 4 s each."""

MAX_THREADS: Final = 32
"""Threads that may hang in services at once; an attempt beyond that fails and is tried again."""

MIN_SECRET: Final = 4
"""Shorter parts of a URL are no secrets, and words would be lost with them."""

_TALKATIVE: Final = ("apprise", "urllib3")
_FILE: Final = "file:"
_LEVELS: Final[dict[Severity, str]] = {"info": "info", "warning": "warning", "critical": "failure"}

log = logging.getLogger(__name__)


class AppriseSender:
    """Sends by the names under `notify:`; a `file:` reference is read anew for every message."""

    def __init__(self, root: Path, urls: Mapping[str, str], timeout_s: float = TIMEOUT_S) -> None:
        self._root = root
        self._urls = dict(urls)
        self._timeout_s = timeout_s
        self._threads = 0

    async def send(
        self, target: str, title: str, body: str, severity: Severity, over: bool
    ) -> None:
        """Deliver a message. Raises DeliveryError; `permanent` when trying again is useless."""
        url = await asyncio.to_thread(self._url, target)
        if self._threads >= MAX_THREADS:
            raise DeliveryError(
                f"{target}: {MAX_THREADS} messages hang already; trying again later"
            )
        level = "success" if over else _LEVELS[severity]
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[str | None] = loop.create_future()

        def settle(error: str | None) -> None:
            self._threads -= 1
            if not answer.done():
                answer.set_result(error)

        def work() -> None:
            error = _notify(url, title, body, level)
            try:
                loop.call_soon_threadsafe(settle, error)
            except RuntimeError:
                log.debug("a message to %s ended after the hub", target)

        self._threads += 1
        # a daemon thread: a service that never answers must not keep the hub from ending
        threading.Thread(target=work, name=f"notify-{target}", daemon=True).start()
        try:
            async with asyncio.timeout(self._timeout_s):
                error = await answer
        except TimeoutError:
            raise DeliveryError(f"{target}: no answer within {self._timeout_s:g} s") from None
        if error is not None:
            raise DeliveryError(f"{target}: {scrub(error, url)}", permanent=error == _UNUSABLE)

    def _url(self, target: str) -> str:
        url = self._urls.get(target)
        if url is None:
            raise DeliveryError(
                f"no target {target!r} under notify: in the fleet file", permanent=True
            )
        if not url.startswith(_FILE):
            return url
        path = self._root / url.removeprefix(_FILE).removeprefix("//")
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise DeliveryError(
                f"{target}: cannot read {str(path)!r}: {error.strerror}; it should hold the URL"
            ) from None
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if not lines:
            raise DeliveryError(f"{target}: {str(path)!r} is empty; it should hold the URL")
        return lines[0]


def scrub(text: str, url: str) -> str:
    """Return text without anything that `url` holds beyond its scheme, bounded."""
    secrets = {url, *re.split(r"[/:@?&=,;#]+", url.partition("://")[2])}
    secrets |= {unquote(s) for s in secrets}
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= MIN_SECRET:
            text = re.sub(re.escape(secret), "…", text, flags=re.IGNORECASE)
    return clean(text, 300)


_UNUSABLE: Final = "apprise does not understand its URL; see its documentation for the form"


def _notify(url: str, title: str, body: str, level: str) -> str | None:
    """Send in this thread; return None, or what went wrong (with secrets still in it)."""
    apprise: Any = importlib.import_module("apprise")
    _quiet()
    with _Said() as said:
        try:
            # one service, not apprise.Apprise(): that one sends in further threads
            service = apprise.Apprise.instantiate(url)
            if service is None:
                return _UNUSABLE
            if service.notify(title=title, body=body, notify_type=level):
                return None
        # apprise holds over a hundred plugins; whatever one raises is a failed delivery
        except Exception as error:  # noqa: BLE001  counted by the notifier as a failed attempt
            return f"{type(error).__name__}: {error}"
    return said.text() or "the service did not take the message"


class _Said(logging.Handler):
    """Keeps what apprise logs in this thread while it sends."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._thread = threading.get_ident()
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread and len(self._lines) < 5:
            self._lines.append(record.getMessage())

    def text(self) -> str:
        return " ".join(self._lines)

    def __enter__(self) -> _Said:
        logging.getLogger("apprise").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("apprise").removeHandler(self)


def _quiet() -> None:
    """Keep what apprise and its HTTP client log, which may hold parts of URLs, off every output."""
    for name in _TALKATIVE:
        logger = logging.getLogger(name)
        logger.propagate = False
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())


Console = Callable[[str], None]
