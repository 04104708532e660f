"""Calls whose cost nobody knows exactly are asked for at their providers: those that a crash left open, that expired
at their worst case, or whose charge was estimated since their stream broke off.

Where a provider tells what one call came to (`models.providers.NAME.reconcile`; OpenRouter's way is known), each such
call is looked up, soon and then ever more seldom, for a day. Others wait for a person with the provider's bill:
`midwatch cost reconcile`. Either way the figure is exact, doing it again changes nothing, and each correction is kept
with who made it. A provider that does not know a call yet changes nothing either: what counts, counts until somebody
knows better.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast
from urllib.parse import quote

from midwatch.core.calls.bill import Bill, read
from midwatch.core.calls.charge import MAX_NUSD, Call, CallState, Charge
from midwatch.core.pricing.shelf import Basis
from midwatch.gateway.dialects.headers import credentials
from midwatch.gateway.house import House
from midwatch.gateway.settings import Provided, Settings
from midwatch.gateway.upstream.port import Request, UpstreamError

AGAIN_S: Final = (5.0, 15.0, 60.0, 300.0, 1_800.0, 7_200.0, 21_600.0)
"""Pauses between looking a call up; after the last of them no more."""

SINCE_S: Final = 86_400.0
"""Calls older than this are left to a person."""

OTHERS_S: Final = 60.0
"""Age from which on an open call of another process is looked up, too: that one may be no more."""

AT_ONCE: Final = 8
ANSWER_S: Final = 10.0
MAX_ANSWER_BYTES: Final = 256 * 1024

WITHIN_S: Final = 12.0
"""How long a person who asks for it waits at the most; the rest is looked up behind that."""

EXPIRED: Final = "expired"
RECONCILED: Final = "reconciled"

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Try:
    count: int = 0
    due: float = 0.0
    """Monotonic."""


class Reconciling:
    """Looks up the doubtful calls of one ledger."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._tries: dict[str, _Try] = {}

    async def look(self, within_s: float | None = None, by: str = "") -> Counter[str]:
        """Look up what is due; return how many calls became what. With `within_s`: all of them, due or not, as far
        as the time goes. Raises LedgerDown."""
        house, results = self._house, Counter[str]()
        paths = {name: one.reconcile for name, one in house.settings.providers.items()}
        if house.rehearsed or not any(paths.values()):
            return results
        wall = house.wall()
        by_response = [name for name, path in paths.items() if "{response}" in path]
        by_call = [name for name, path in paths.items() if path and name not in by_response]
        doubtful = await house.ledger.doubtful(wall - SINCE_S, by_call, by_response)
        known = [one for one in doubtful if self._may(one, paths.get(one.provider, ""))]
        self._tries = {one.call_id: self._tries.get(one.call_id, _Try()) for one in known}
        now = house.now()
        due = [c for c in known if within_s is not None or self._is_due(c, now, wall)]
        if not due:
            return results
        room = asyncio.Semaphore(AT_ONCE)

        async def one(call: Call) -> None:
            async with room:
                results[await self._look_up(call, paths[call.provider], by)] += 1

        tasks = [asyncio.create_task(one(call)) for call in due]
        try:
            _, late = await asyncio.wait(tasks, timeout=within_s)
        finally:
            for task in tasks:
                task.cancel()  # those that are late, or all when nobody waits for them any more
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(
                outcome, Exception
            ):  # a ledger that is down, or a fault of ours: counted by who asks
                raise outcome
        results["waiting"] = len(late) + results["unknown"] + results["failed"]
        return results

    def _may(self, call: Call, path: str) -> bool:
        """Tell whether a call can be looked up: it does not end by itself just now, and its id is known."""
        return bool(
            path
            and (call.response or "{response}" not in path)
            and not self._house.ledger.carries(call.call_id)
        )

    def _is_due(self, call: Call, now: float, wall: float) -> bool:
        tried = self._tries[call.call_id]
        if tried.count >= len(AGAIN_S) or now < tried.due:
            return False
        ours = call.gateway == self._house.name or call.state is not CallState.OPEN
        return ours or wall - call.reserved_at >= OTHERS_S

    async def _look_up(self, call: Call, path: str, by: str) -> str:
        house, tried = self._house, self._tries.setdefault(call.call_id, _Try())
        tried.due = house.now() + AGAIN_S[min(tried.count, len(AGAIN_S) - 1)]
        tried.count += 1
        provided = house.settings.providers.get(call.provider)
        if provided is None:  # it went with a reload, just now
            return "unknown"
        try:
            bill = await self._asked(call, provided, path)
        except UpstreamError as error:
            house.counts["reconcile.failed"] += 1
            log.info("%s could not be asked for a call: %s", call.provider, error)
            return "failed"
        charge = None if bill is None else charge_of(house.settings, call, bill, house.wall())
        if charge is None:
            return "unknown"
        result = await house.ledger.reconcile(call.call_id, charge, by or call.provider)
        house.counts[f"reconcile.{result}"] += 1
        return result

    async def _asked(self, call: Call, provided: Provided, path: str) -> Bill | None:
        names = {"{call}": call.call_id, "{response}": call.response}
        for name, value in names.items():
            path = path.replace(name, quote(value, safe=""))
        secret = provided.secrets.get(call.sent_key) or next(iter(provided.secrets.values()), "")
        headers = [("accept", "application/json"), *credentials(provided.kind, secret)]
        headers += list(provided.given.headers.items())
        request = Request("GET", provided.url + path, headers, b"", 5.0, ANSWER_S, ANSWER_S)
        reply = await self._house.upstream.open(request)
        try:
            if reply.status != 200:
                return None
            answer = await reply.whole(ANSWER_S, MAX_ANSWER_BYTES)
        finally:
            await reply.close()
        try:
            return read(provided.kind, json.loads(answer))
        except (ValueError, RecursionError):
            return None

    async def take(self, rows: Sequence[object], by: str) -> list[dict[str, Any]]:
        """Settle calls by figures that somebody brings; return what became of each row. Raises LedgerDown."""
        return [await self._take(cast("Mapping[str, Any]", row), by) for row in rows]

    async def _take(self, row: object, by: str) -> dict[str, Any]:
        if not isinstance(row, Mapping):
            return {"result": "unread", "why": "expected an object"}
        given = cast("Mapping[str, Any]", row)
        named, answered = given.get("call"), given.get("response")
        call = None
        if isinstance(named, str):
            call = await self._house.ledger.call(named)
        elif isinstance(answered, str):
            call = await self._house.ledger.by_response(answered)
        else:
            return {"result": "unread", "why": "expected call or response, an id"}
        said = {"call": call.call_id} if call is not None else {k: v for k, v in (("call", named), ("response", answered)) if isinstance(v, str)}  # fmt: skip
        if call is None:
            return {**said, "result": "unknown"}
        charge = self._charge(given, call)
        if charge is None:
            why = "expected cost_nusd, cost_usd or usage as the provider's answers have it, of a model with a price"
            return {**said, "result": "unread", "why": why}
        was = call.charged_nusd
        if call.state is CallState.SETTLED and not call.estimated and was == charge.cost_nusd:
            return {**said, "result": "same", "was_nusd": was, "cost_nusd": was}
        result = await self._house.ledger.reconcile(call.call_id, charge, by)
        self._house.counts[f"reconcile.{result}"] += 1
        return {**said, "result": result, "was_nusd": was, "cost_nusd": charge.cost_nusd}

    def _charge(self, row: Mapping[str, Any], call: Call) -> Charge | None:
        settings, cost = self._house.settings, row.get("cost_nusd")
        provided = settings.providers.get(call.provider)
        if isinstance(cost, int) and not isinstance(cost, bool):
            bill = Bill(None, cost) if 0 <= cost <= MAX_NUSD else None
        else:
            bill = None if provided is None else read(provided.kind, row)
        return None if bill is None else charge_of(settings, call, bill, self._house.wall())


def charge_of(settings: Settings, call: Call, bill: Bill, now: float) -> Charge | None:
    """Return what a call is charged by its bill; None when it tells tokens alone, and no price is known."""
    usage, provided = bill.usage, settings.providers.get(call.provider)
    amount, costs, version, disputed = bill.cost_nusd, dict(call.costs), call.price_version, False
    if usage is not None and provided is not None:
        quoted = settings.shelf.quote(
            usage, call.provider, provided.seller, call.model, call.reserved_at
        )
        costs = {one.source: one.nusd for one in quoted.bills}
        version, disputed = quoted.version, quoted.basis is Basis.DISPUTED
        amount = quoted.nusd if amount is None else amount
    if amount is None or amount > MAX_NUSD:
        return None
    if bill.cost_nusd is not None:
        costs["provider"], disputed = bill.cost_nusd, False
    told = call.state is CallState.SETTLED and call.outcome != EXPIRED
    return Charge(
        cost_nusd=amount,
        at=now,
        usage=dict(call.usage) if usage is None else usage.to_json(),
        input_tokens=call.input_tokens if usage is None else usage.input_tokens,
        output_tokens=call.output_tokens if usage is None else usage.output_tokens,
        price_version=version,
        costs=costs,
        disputed=disputed,
        saved_nusd=call.saved_nusd,
        outcome=call.outcome if told else RECONCILED,
    )
