"""`init` and `flush`: the beginning of a watched process, and waiting for delivery."""

from __future__ import annotations

import functools
import os

from midwatch.sdk import runtime, shield, span
from midwatch.sdk.shield import shielded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from midwatch.sdk.lineage import Place
    from midwatch.sdk.settings import Settings
    from midwatch.sdk.transport import Transport

MAX_FLUSH_S = 3600.0
"""The longest that `flush` waits, whatever it is told."""

FLUSH_WAIT_S = 0.04
"""How long `flush()` waits when it is not told: no name of the SDK blocks longer than 50 ms."""


@shielded
def init(
    agent: str | None = None,
    *,
    track: Iterable[str] = (),
    url: str | None = None,
    token: str | None = None,
    spool: str | None = None,
    run_id: str | None = None,
    ttl_s: float | None = None,
    memory_bytes: int | None = None,
) -> None:
    """Begin to tell the hub and the supervisor what this process does.

    All is read from the environment that `midwatch up` sets; arguments win. Without a hub
    and a supervisor this and every other name does nothing; with them, what is told before
    `init` is lost, and a line on stderr says so, once. `track` names the model clients
    whose tokens and cost are counted by themselves: `("openai", "anthropic")`. They may be
    imported before or after. Calling it again with the same values changes nothing.

    In a child that an agent started by itself, `agent` may be a name of its own: it is a sub-agent
    then (`search` of `inbox` is `inbox:search`), and its own children are told so by `os.environ`.
    Older than `ttl_s` seconds, or larger than `memory_bytes` with all that it started, it is stopped.
    """
    runtime.asked = True
    from midwatch.sdk.settings import Settings

    settings = Settings(os.environ, agent=agent, url=url, token=token, spool=spool, run_id=run_id)
    if settings.url is None and settings.family_socket is None:
        return
    if _begin(settings) and settings.introduction is not None:
        _introduce(settings.introduction, ttl_s, memory_bytes)
    clients = (track,) if isinstance(track, str) else tuple(track)
    if clients:
        from midwatch.sdk.track import track_clients

        track_clients(clients)


_begun_with: tuple[Any, ...] | None = None


def _begin(settings: Settings) -> bool:
    """Set up this process; False when it is so already."""
    global _begun_with
    wanted = (settings.url, settings.token, settings.agent, settings.run_id, settings.spool_dir)
    wanted = (*wanted, settings.notify_socket, settings.family_socket, settings.traces_url)
    if runtime.current is not None and wanted == _begun_with:
        return False
    transport = _transport(settings) if settings.url is not None else None
    notifier = family = None
    if settings.family_socket is not None:
        from midwatch.sdk.notify import Notifier

        family = Notifier(settings.family_socket)
        if settings.notify_socket is not None:
            notifier = family = Notifier(settings.notify_socket)
    runtime.begin(
        runtime.Runtime(
            settings.agent, settings.run_id, transport, notifier, family, traces=settings.traces
        )
    )
    _begun_with = wanted
    # a collector that is not ours would take an announcement for a span without an end
    ours = settings.traces_url is None or _same_place(settings.traces_url, settings.url)
    span.announcer = None
    if transport is not None and settings.traces and ours:
        from midwatch.sdk.announce import Announcer

        span.announcer = transport.announcer = Announcer(transport.awake)
    if transport is not None:
        transport.start()
    if notifier is not None:
        notifier.ready()
    return True


def _introduce(place: Place, ttl_s: float | None, memory_bytes: int | None) -> None:
    """Tell the supervisor that this process is a sub-agent, and its children whose they are."""
    from midwatch.sdk.lineage import identify
    from midwatch.sdk.plain import number

    now = runtime.current
    if now is None:
        return
    told: dict[str, Any] = {"self": True, "run": place.run_id, "agent": place.agent}
    told["pid"] = os.getpid()
    for key, wanted in (("ttl_s", ttl_s), ("memory_bytes", memory_bytes)):
        if wanted is not None:
            told[key] = number(wanted)
            if told[key] is None:
                now.lose("bad_argument")
    if place.introduces:
        identify(os.environ, place.agent, place.run_id, os.environ.get("MIDWATCH_RUN_ID"))
    if now.family is not None:
        now.family.child(told)


def _same_place(one: str, other: str | None) -> bool:
    """Tell whether two addresses are of one server."""
    return other is not None and one.split("/", 3)[:3] == other.rstrip("/").split("/", 3)[:3]


def _transport(settings: Settings) -> Transport | None:
    from midwatch.sdk.post import Poster
    from midwatch.sdk.transport import Transport

    if settings.traces_url is not None:
        try:
            Poster(settings.traces_url, settings.traces_headers)
        except ValueError as error:  # a mistake there must not cost the beats
            shield.complain(f"spans are not sent: {error}; look at OTEL_EXPORTER_OTLP_*")
            settings.traces, settings.traces_url = False, None
    try:
        return Transport(
            settings.url or "",
            settings.token,
            settings.spool_dir,
            settings.agent,
            run_id=settings.run_id,
            traces_url=settings.traces_url,
            traces_headers=settings.traces_headers,
            resource=settings.resource,
        )
    except ValueError as error:
        if shield.RAISE:
            raise
        shield.complain(f"nothing is sent: {error}")
        shield.log_complaints()
        return None


@functools.partial(shielded, instead=bool)
def flush(timeout_s: float = FLUSH_WAIT_S) -> bool:
    """Send now, wait at most `timeout_s`, and return whether all has been delivered.

    It blocks; in an event loop use `await asyncio.to_thread(mw.flush, 2)`. The end of the
    process flushes by itself.
    """
    from midwatch.sdk.plain import number

    now = runtime.current
    if now is None or now.transport is None:
        return True
    return now.transport.flush(min(number(timeout_s) or 0.0, MAX_FLUSH_S))


@functools.partial(shielded, instead=dict)
def statistics() -> dict[str, Any]:
    """Return what the SDK did: `sent`, `lost` by reason, what it could not track, and why."""
    now = runtime.current
    counts: dict[str, Any] = {"active": now is not None, "swallowed": dict(shield.swallowed)}
    if now is not None and now.transport is not None:
        counts.update(now.transport.statistics())
    return counts
