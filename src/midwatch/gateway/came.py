"""What can come of one attempt, and what it is charged for that. Whoever carries the call decides what follows."""

from __future__ import annotations

from enum import StrEnum

from midwatch.core.calls.budget import Refused
from midwatch.core.calls.classes import Failure
from midwatch.core.sealed import sealed
from midwatch.gateway.dialects import Refusal
from midwatch.gateway.http.port import Headers
from midwatch.gateway.relay import Relay
from midwatch.gateway.worth import Worst

CUT, GONE, KILLED, FAULT, STOPPED = "cut", "gone", "killed", "fault", "stopped"
"""Outcomes beside `ok` and the classes of failures: it broke off in the middle, its client left, somebody killed
the call, something here went wrong, the gateway stopped."""


class Due(StrEnum):
    """What an attempt is charged."""

    NOTHING = "nothing"
    UNHEARD = "unheard"  # what may have been made
    USED = "used"  # what was told, or is known of it


@sealed
class Answered:
    """A whole answer, in the client's dialect."""

    status: int
    headers: Headers
    """The provider's."""
    body: bytes


@sealed
class Streamed:
    """A stream that passed on well, to the end of which there is something to be said."""

    relay: Relay


@sealed
class Broke:
    """A stream of which the client has a part broke off."""

    relay: Relay
    failure: Failure


@sealed
class Failed:
    """No answer, and nothing of one has reached the client."""

    failure: Failure
    told: tuple[int, Headers, bytes] | None = None
    """The provider's own words, to be passed on when nobody else answers."""


@sealed
class Ended:
    """The call ends here, with a refusal of ours."""

    refusal: Refusal
    relay: Relay | None = None
    """The stream within which it ends, when its client has a part of it."""


@sealed
class TooDear:
    """It does not fit into a budget."""

    refused: Refused
    worst: Worst


Outcome = Answered | Streamed | Broke | Failed | Ended | TooDear
