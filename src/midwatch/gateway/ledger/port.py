"""The seam between the gateway and its ledger."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from midwatch.core.calls.budget import Admitted, Left, Limit, Notice, Refused
from midwatch.core.calls.charge import (
    By,
    Call,
    CallQuery,
    Charge,
    Correction,
    Cost,
    Reservation,
)
from midwatch.core.calls.period import Calendar


class Ledger(Protocol):
    """Budgets and charges. Used from the event loop alone.

    Fails closed: while the database does not take a reservation, the answer is Refused with the reason
    `unavailable`, within `ANSWER_S`. What has been admitted is never forgotten: settlements wait until the
    database takes them.
    """

    @property
    def calendar(self) -> Calendar:
        """Days and months; replaced when the fleet's time zone changes."""
        ...

    @calendar.setter
    def calendar(self, calendar: Calendar) -> None: ...

    on_notice: Callable[[Notice], None]
    """Called in the event loop with each warning, once per period among all gateways."""

    async def start(self) -> None:
        """Open. Raises LedgerUnusable when the database can never be this ledger; LedgerDown is waited out."""
        ...

    async def stop(self) -> None:
        """Write what waits, for at most `STOP_S`, and close."""
        ...

    def expect(self) -> None:
        """Hear that a reservation is about to come: whoever keeps the books may get ready. Nothing depends on it."""
        ...

    async def reserve(self, reservation: Reservation) -> Admitted | Refused:
        """Return whether the call may be made. Admitted: its worst case is reserved, durably. A caller that is
        cancelled meanwhile leaves no reservation behind."""
        ...

    def settle(self, call_id: str, charge: Charge) -> None:
        """Replace the reservation by what the call came to; soon, and without waiting. A second settlement has
        no effect; one that comes after a release or an expiry counts."""
        ...

    def release(self, call_id: str, at: float, why: str = "not sent") -> None:
        """Take the reservation back: nothing was sent upstream, nothing is charged. `at` is Unix time."""
        ...

    def note(self, call_id: str, response: str) -> None:
        """Keep the provider's id of a call's answer, soon, without waiting: by it the call can be looked up there
        when this process is no more."""
        ...

    def carries(self, call_id: str) -> bool:
        """Tell whether a call was reserved by this process and has not ended."""
        ...

    async def reconcile(self, call_id: str, charge: Charge, by: str = "") -> str:
        """Correct a call by exact figures that came later, in either direction; who had them is kept. Returns
        `corrected`, `settled` (it was still open) or `unknown`. Raises LedgerDown."""
        ...

    async def expire(self, at: float) -> list[str]:
        """Count open calls whose deadline has passed at their worst case, marked estimated; return their ids.
        Raises LedgerDown."""
        ...

    async def left(self, limits: Sequence[Limit], at: float) -> tuple[Left, ...]:
        """Return how limits stand. Raises LedgerDown."""
        ...

    async def call(self, call_id: str) -> Call | None:
        """Return a call; what was settled before this question is in the answer. Raises LedgerDown."""
        ...

    async def calls(self, query: CallQuery) -> list[Call]:
        """Return calls, the newest first. Raises LedgerDown."""
        ...

    async def unsettled(self) -> list[Call]:
        """Return every open call. Raises LedgerDown."""
        ...

    async def doubtful(
        self, since: float, by_call: Collection[str], by_response: Collection[str] = ()
    ) -> list[Call]:
        """Return calls from then on (Unix seconds) whose cost is open or estimated, the oldest first: of the providers
        `by_call`, and of those `by_response` the ones whose answer is known by its id. Raises LedgerDown."""
        ...

    async def by_response(self, response: str) -> Call | None:
        """Return the call whose answer has this id in the provider's words. Raises LedgerDown."""
        ...

    async def corrections(self, call_id: str) -> list[Correction]:
        """Return how a call's cost was put right, the first time first. Raises LedgerDown."""
        ...

    async def cost(self, by: By, query: CallQuery) -> list[Cost]:
        """Return settled cost by a name, the dearest first. Raises LedgerDown."""
        ...

    async def audit(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Return where balances and calls differ, by account and day; empty when all is well."""
        ...
