"""`/control/*`: what the supervisor of the instance tells the gateway, and asks it. For a node's token, from this
machine alone; docs/design.md describes each route.

Everything can be said twice. What is told counts when the answer is there; `durable` says whether it also survives
the process, which a full disk can prevent and which is tried again until it succeeds.
"""

from __future__ import annotations

import ipaddress
import time
from collections import Counter
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, cast

from midwatch.core import access
from midwatch.core.access import Scope
from midwatch.core.calls.account import Payer
from midwatch.core.calls.budget import Limit, limits_of
from midwatch.core.calls.charge import By, CallQuery, CallState
from midwatch.core.calls.period import Window
from midwatch.core.calls.pool import KeyState
from midwatch.core.errors import SetupError
from midwatch.gateway import explaining, keys, refusals, shown
from midwatch.gateway.app import App
from midwatch.gateway.gateway import Cut
from midwatch.gateway.holds import HoldKind
from midwatch.gateway.http.port import Incoming, Outgoing
from midwatch.gateway.kept import Kept
from midwatch.gateway.keys import BadKey
from midwatch.gateway.reconciling import WITHIN_S
from midwatch.gateway.routes import Asked, Json, Table, Wrong, choice, problem, send
from midwatch.gateway.runs import GRACE_S

MAX_LISTED: Final = 1_000
"""Agents, calls or limits of one answer."""

OVERLAP_S: Final = 86_400.0
"""How long the old secret of a rotated key is good unless somebody says otherwise."""


class Control:
    """Answers `/control/*` of one gateway."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._table = Table(
            ("GET", "/control/state", self._state),
            ("POST", "/control/hold", self._hold),
            ("POST", "/control/lift", self._lift),
            ("POST", "/control/kill", self._kill),
            ("POST", "/control/runs", self._live),
            ("POST", "/control/runs/began", self._began),
            ("POST", "/control/runs/ended", self._ended),
            ("POST", "/control/reload", self._reload),
            ("GET", "/control/keys", self._keys),
            ("POST", "/control/keys", self._create),
            ("POST", "/control/keys/{name}/rotate", self._rotate),
            ("POST", "/control/keys/{name}/revoke", self._revoke),
            ("GET", "/control/prices", self._prices),
            ("GET", "/control/health", self._health),
            ("POST", "/control/health/reset", self._reset),
            ("GET", "/control/budgets", self._budgets),
            ("GET", "/control/cost", self._cost),
            ("GET", "/control/calls", self._calls),
            ("GET", "/control/calls/{id}", self._call),
            ("GET", "/control/audit", self._audit),
            ("POST", "/control/reconcile", self._reconcile),
            ("POST", "/control/policy/explain", self._explain),
        )

    async def handle(self, incoming: Incoming, out: Outgoing) -> None:
        """Answer one request, or refuse it."""
        refused = self._refused(incoming)
        if refused is not None:
            self._app.house.counts["refused.control"] += 1
            send(out, refused[0], problem(refused[1]))
            return
        await self._table.answer(incoming, out)

    def _refused(self, incoming: Incoming) -> tuple[int, str] | None:
        try:
            local = ipaddress.ip_address(incoming.client).is_loopback
        except ValueError:
            local = incoming.client == ""  # a socket of this machine has no address
        if not local:
            return 403, "the gateway is controlled from its own machine alone"
        scheme, _, token = (incoming.header("authorization") or "").partition(" ")
        caller = (
            access.verify(self._app.secret, token.strip()) if scheme.lower() == "bearer" else None
        )
        if caller is None or Scope.NODE not in caller.scopes:
            return 401, "this needs the supervisor's token; use the midwatch command instead"
        return None

    # -- agents --------------------------------------------------------------------------------------

    async def _state(self, _: Asked) -> tuple[int, Json]:
        app = self._app
        settings, under_way = app.house.settings, app.gateway.under_way
        busy = {agent: len(calls) for agent, calls in list(under_way.items())[:MAX_LISTED]}
        return 200, {
            "version": version("midwatch"),
            "name": app.options.name,
            "up_s": round(time.monotonic() - app.began, 1),
            "fleet": settings.fleet.fleet,
            "providers": {n: p.kind.value for n, p in settings.providers.items()},
            "unserved": app.house.counts["refused.midwatch_no_provider"],
            "problems": [*settings.problems, *self._unkept()],
            "ready": app.not_ready() is None,
            "why_not": app.not_ready(),
            "holds": [hold.to_json() for hold in app.holds.all()],
            "under_way": busy,
            "working": app.gateway.working(),
            "calls_under_way": sum(len(calls) for calls in under_way.values()),
            "prices": settings.shelf.version,
        }

    def _unkept(self) -> list[str]:
        app = self._app
        return [document.problem for document in app.documents if document.problem is not None]

    async def _hold(self, asked: Asked) -> tuple[int, Json]:
        kinds = [kind.value for kind in HoldKind if kind is not HoldKind.KILLED]
        kind = HoldKind(choice(asked.text("kind", HoldKind.SUSPENDED.value), kinds, "kind"))
        hold = self._app.holds.hold(
            asked.text("agent"), kind, asked.text("why", ""), asked.text("by", "")
        )
        return 200, {"hold": hold.to_json(), **await _durable(self._app.holds.document)}

    async def _lift(self, asked: Asked) -> tuple[int, Json]:
        agent = asked.text("agent")
        lifted = self._app.holds.lift(agent)
        self._app.gateway.paces.forgive(agent)
        above = self._app.holds.find(agent)
        said = await _durable(self._app.holds.document)
        return 200, {
            "lifted": [hold.to_json() for hold in lifted],
            "held_by": above.to_json() if above is not None else None,
            **said,
        }

    async def _kill(self, asked: Asked) -> tuple[int, Json]:
        """Hold an agent and cut its calls. The hold comes first: no new call slips in between."""
        app, agent = self._app, asked.text("agent")
        hold = app.holds.hold(agent, HoldKind.KILLED, asked.text("why", ""), asked.text("by", ""))
        cut = await app.gateway.cut(app.gateway.calls_of(agent), refusals.held(hold, agent))
        said = await _durable(app.holds.document)
        return 200, {"hold": hold.to_json(), "receipt": _receipt(cut), **said}

    async def _live(self, asked: Asked) -> tuple[int, Json]:
        """Hear which runs live, whole, so that the key of none outlives an end that was never told."""
        live = asked.body.get("live")
        if not isinstance(live, dict):
            raise Wrong(422, 'live: expected {"AGENT": ["RUN", …], …} with every run that is alive')
        runs = {agent: _texts(ids, f"live.{agent}") for agent, ids in cast("Json", live).items()}
        at = min(asked.number("at", self._app.house.wall()), self._app.house.wall())
        self._app.runs.told(runs, at)
        return 200, await _durable(self._app.runs.document)

    async def _began(self, asked: Asked) -> tuple[int, Json]:
        """A run began. Where a loop is answered with a restart, this was it."""
        app, agent, run = self._app, asked.text("agent"), asked.text("run")
        app.runs.began(agent, run)
        lifted = app.holds.renew(agent, run)
        for hold in lifted:
            app.gateway.paces.forgive(hold.agent)
        return 200, {"lifted": [h.to_json() for h in lifted], **await _durable(app.runs.document)}

    async def _ended(self, asked: Asked) -> tuple[int, Json]:
        grace_s = asked.number("grace_s", GRACE_S)
        until = self._app.runs.ended(asked.text("agent"), asked.text("run"), grace_s)
        return 200, {"key_good_until": until, **await _durable(self._app.runs.document)}

    async def _reload(self, _: Asked) -> tuple[int, Json]:
        try:
            settings = self._app.reload()
        except SetupError as error:
            self._app.house.counts["reload.refused"] += 1
            raise Wrong(422, f"{error}; what was in force stays in force") from None
        self._app.house.counts["reload.done"] += 1
        return 200, {
            "providers": sorted(settings.providers),
            "problems": list(settings.problems),
            "prices": settings.shelf.version,
        }

    # -- keys ----------------------------------------------------------------------------------------

    async def _keys(self, _: Asked) -> tuple[int, Json]:
        return 200, {"keys": self._app.keys.all()[:MAX_LISTED]}

    async def _create(self, asked: Asked) -> tuple[int, Json]:
        kept = self._app.keys
        try:
            secret = kept.create(asked.body)
        except BadKey as bad:
            raise Wrong(bad.status, str(bad)) from None
        name = asked.text("name")
        said = await _durable(kept.document)
        if not said["durable"]:  # shown once and then forgotten: rather not at all
            kept.document.drop(name)
            raise Wrong(507, f"the key was not made: {said['problem']}")
        return 201, {"key": secret, **self._one(name), **said}

    async def _rotate(self, asked: Asked) -> tuple[int, Json]:
        kept, name = self._app.keys, asked.names["name"]
        try:
            secret = kept.rotate(name, asked.number("overlap_s", OVERLAP_S))
        except BadKey as bad:
            raise Wrong(bad.status, str(bad)) from None
        return 200, {"key": secret, **self._one(name), **await _durable(kept.document)}

    async def _revoke(self, asked: Asked) -> tuple[int, Json]:
        """End a key, and the calls that it carries now."""
        app, name = self._app, asked.names["name"]
        try:
            app.keys.revoke(name)
        except BadKey as bad:
            raise Wrong(bad.status, str(bad)) from None
        calls = [
            c for calls in app.gateway.under_way.values() for c in calls if c.payer.key == name
        ]
        cut = await app.gateway.cut(calls, refusals.key_over(f"the key {name!r} was revoked"))
        said = await _durable(app.keys.document)
        return 200, {**self._one(name), "receipt": _receipt(cut), **said}

    def _one(self, name: str) -> Json:
        key = self._app.keys.named(name)
        return {} if key is None else keys.show(key, self._app.house.wall())

    # -- places and prices ---------------------------------------------------------------------------

    async def _prices(self, _: Asked) -> tuple[int, Json]:
        shelf = self._app.house.settings.shelf
        books = [{"source": b.source, "read_on": b.read_on} for b in shelf.books]
        own = self._app.options.data / "gateway" / "prices.json"
        return 200, {"version": shelf.version, "lists": books, "own": _stamp(own)}

    async def _health(self, _: Asked) -> tuple[int, Json]:
        return 200, shown.health(self._app.house.health, self._app.house.now())

    async def _reset(self, asked: Asked) -> tuple[int, Json]:
        """Ask a place again at once: a person knows that it is well."""
        known, provider = self._app.house.health, asked.text("provider")
        model, key = asked.text("model", ""), asked.text("key", "")
        if bool(model) == bool(key):
            raise Wrong(422, "exactly one of model (its breaker) and key says what is reset")
        if model:
            breaker = known.breakers.get((provider, model))
            if breaker is None:
                return 200, {"reset": False, "why": f"{provider}/{model} has not been asked yet"}
            return 200, {"reset": breaker.answered()}
        held = known.key(provider, key)
        if held is None:
            raise Wrong(404, f"{provider} has no key {key!r}; see models.providers")
        if held.state is KeyState.MISSING:
            raise Wrong(409, f"{held.reason}; then reload")
        now = self._app.house.now()
        rested = held.rests(now) or bool(held.resting(now))
        held.state, held.reason, held.until = KeyState.ACTIVE, "", 0.0
        held.models.clear()
        held.failing.clear()
        return 200, {"reset": rested}

    # -- money ---------------------------------------------------------------------------------------

    async def _budgets(self, asked: Asked) -> tuple[int, Json]:
        app, agent = self._app, asked.query.get("agent")
        settings = app.house.settings
        names = [agent] if agent is not None else list(settings.fleet.agents)
        found: dict[tuple[str, str], Limit] = {}
        for name in names[:MAX_LISTED]:
            entry = settings.agent(name)
            payer = Payer(name, group=entry.group if entry is not None else None)
            for limit in limits_of(payer, settings.budgets):
                found[limit.account, limit.window.value] = limit
        limits = list(found.values())[:MAX_LISTED]
        standing = await app.ledger.left(
            [one for one in limits if one.window is not Window.CALL], app.house.wall()
        )
        single = [shown.limit(one) for one in limits if one.window is Window.CALL]
        return 200, {"limits": [shown.left(one) for one in standing], "per_call": single}

    async def _cost(self, asked: Asked) -> tuple[int, Json]:
        by = By(choice(asked.query.get("by", "agent"), [by.value for by in By], "by"))
        rows = await self._app.ledger.cost(by, _call_query(asked))
        total = sum(row.cost_nusd for row in rows)
        saved = sum(row.saved_nusd for row in rows)
        return 200, {
            "by": by.value,
            "rows": [shown.cost(row) for row in rows],
            **shown.usd("total", total),
            **shown.usd("saved", saved),
        }

    async def _calls(self, asked: Asked) -> tuple[int, Json]:
        calls = await self._app.ledger.calls(_call_query(asked))
        return 200, {"calls": [shown.call(call) for call in calls]}

    async def _call(self, asked: Asked) -> tuple[int, Json]:
        call = await self._app.ledger.call(asked.names["id"])
        if call is None:
            raise Wrong(404, f"no call has the id {asked.names['id'][:80]!r}")
        put_right = await self._app.ledger.corrections(call.call_id)
        return 200, {**shown.call(call), "corrections": [asdict(one) for one in put_right]}

    async def _reconcile(self, asked: Asked) -> tuple[int, Json]:
        """Settle calls by exact figures: those of `rows`, or those that their providers tell now."""
        rows, by = asked.body.get("rows"), asked.text("by", "a person")
        if rows is None:
            found = await self._app.reconciling.look(WITHIN_S, by)
            return 200, {"results": dict(found)}
        if not isinstance(rows, list) or len(cast("list[object]", rows)) > MAX_LISTED:
            raise Wrong(422, f"rows: expected a list of up to {MAX_LISTED} objects")
        said = await self._app.reconciling.take(cast("list[object]", rows), by)
        return 200, {"results": dict(Counter(one["result"] for one in said)), "rows": said}

    async def _audit(self, _: Asked) -> tuple[int, Json]:
        wrong = await self._app.ledger.audit()
        differ = [
            {"account": account, "day": day, "spent_nusd": spent, "reserved_nusd": reserved}
            for (account, day), (spent, reserved) in list(wrong.items())[:MAX_LISTED]
        ]
        return 200, {"sound": not wrong, "differ": differ}

    async def _explain(self, asked: Asked) -> tuple[int, Json]:
        return 200, explaining.explain(self._app.house.settings, asked, self._app.house.wall())


async def _durable(document: Kept) -> Json:
    try:
        await document.saved()
    except OSError as error:
        return {"durable": False, "problem": str(error)}
    return {"durable": True}


def _receipt(cut: Cut) -> Json:
    """Return what became of calls that were cut, for a person to read."""
    settled = [call for call in cut.calls if call.ended]
    return {
        "calls_cut": len(cut.calls),
        "still_ending": cut.left,
        "seconds": round(cut.seconds, 3),
        **shown.usd("settled", sum(call.cost_nusd for call in settled)),
        "estimated": sum(1 for c in settled if any(a.estimated for a in c.attempts)),
        "calls": [
            {
                "call": c.id,
                "agent": c.payer.agent,
                "model": c.ask.model,
                **shown.usd("cost", c.cost_nusd),
            }
            for c in cut.calls[:100]
        ],
    }


def _texts(value: object, field: str) -> list[str]:
    found = cast("list[object]", value) if isinstance(value, list) else [None]
    texts = [one for one in found if isinstance(one, str)]
    if len(texts) < len(found):
        raise Wrong(422, f"{field[:100]}: expected a list of texts, got {str(found)[:100]}")
    return texts


def _stamp(path: Path) -> Any:
    try:
        return {"file": path.name, "written_at": path.stat().st_mtime}
    except OSError:
        return None


_TEXTS: Final = ("agent", "group", "run", "session", "key", "tag", "model", "before")


def _call_query(asked: Asked) -> CallQuery:
    query = asked.query
    known = {*_TEXTS, "by", "state", "since", "until", "limit"}
    unknown = next((name for name in query if name not in known), None)
    if unknown is not None:
        raise Wrong(422, f"{unknown[:60]}: expected one of {', '.join(sorted(known))}")
    facts: dict[str, Any] = {name: query[name] for name in _TEXTS if query.get(name)}
    for name in ("since", "until", "limit"):
        if query.get(name):
            try:
                facts[name] = int(query[name]) if name == "limit" else float(query[name])
            except ValueError:
                raise Wrong(422, f"{name}: expected a number, got {query[name][:60]!r}") from None
    if query.get("state"):
        states = [state.value for state in CallState]
        facts["state"] = CallState(choice(query["state"], states, "state"))
    facts.setdefault("limit", MAX_LISTED)
    return CallQuery(**facts)
