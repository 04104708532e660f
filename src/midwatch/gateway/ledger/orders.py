"""What the ledger is asked to do: one order each, decided in the order of their arrival."""

from __future__ import annotations

from dataclasses import dataclass

from midwatch.core.calls.budget import Limit
from midwatch.core.calls.charge import Charge, Reservation
from midwatch.core.sealed import sealed


@sealed
class Reserve:
    """Answered with Admitted or Refused."""

    reservation: Reservation


@sealed
class Settle:
    """Answered with Settled. `exact` is True for figures that correct those of a settled call."""

    call_id: str
    charge: Charge
    exact: bool = False
    by: str = ""
    """Who has the exact figures."""


@sealed
class Release:
    """Answered with Settled."""

    call_id: str
    at: float
    why: str = "not sent"


@dataclass(frozen=True, slots=True)
class Note:
    """Keep the provider's id of a call's answer. Nobody waits for it."""

    call_id: str
    response: str


@dataclass(frozen=True, slots=True)
class Expire:
    """Answered with the ids of the calls that were counted at their worst case."""

    at: float


@dataclass(frozen=True, slots=True)
class Look:
    """Answered with a tuple of Left."""

    limits: tuple[Limit, ...]
    at: float


@dataclass(frozen=True, slots=True)
class Roll:
    """Answered with how many rows were rolled into daily sums or forgotten; 0: nothing is left to do."""

    at: float
    keep_days: int
    at_most: int = 1_000


@dataclass(frozen=True, slots=True)
class Pass:
    """Answered with None, when all that was asked before is committed."""


Order = Reserve | Settle | Release | Note | Expire | Look | Roll | Pass
