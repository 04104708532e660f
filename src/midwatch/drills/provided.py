"""Providers behind a drill's gateway, played by the rehearsal model: each behind a path and with keys of its own."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Final

from midwatch.drills.rehearsal.behave import read
from midwatch.drills.rehearsal.calls import Record
from midwatch.drills.rehearsal.model import Rehearsal
from midwatch.drills.rehearsal.thread import running

KEYS: Final = {
    "DRILL_MAIN_KEY": "rehearsal:main",
    "DRILL_SPARE_KEY": "rehearsal:spare",
    "DRILL_OTHER_KEY": "rehearsal:other",
}
"""What `midwatch up` finds in its environment, and no agent may: the providers' keys."""


class Provided:
    """`openai` with two keys, `second`, which serves the same models, and `anthropic`."""

    def __init__(self, model: Rehearsal) -> None:
        self._model = model

    def providers(self) -> dict[str, Any]:
        """Return `models.providers`."""
        url = self._model.url
        main = {"name": "main", "from": "env:DRILL_MAIN_KEY"}
        spare = {"name": "spare", "from": "env:DRILL_SPARE_KEY", "weight": 0}
        other = {"name": "other", "from": "env:DRILL_OTHER_KEY"}
        return {
            "openai": {"base_url": f"{url}/openai/v1", "keys": [main, spare]},
            "second": {"base_url": f"{url}/second/v1", "keys": [other], "price_of": "openai"},
            "anthropic": {"kind": "anthropic", "base_url": f"{url}/anthropic", "keys": [other]},
        }

    def order(self, *orders: Mapping[str, Any]) -> None:
        """Let them misbehave, by the first order that applies."""
        for order in orders:
            self._model.orders.add(read(dict(order)), last=True)

    def asked(self, provider: str = "") -> list[Record]:
        """Return the calls that reached a provider, or any of them, oldest first."""
        return [c for c in self._model.calls.records() if c.path.startswith(f"/{provider}")]

    def billed(self) -> dict[str, int]:
        """Return what all of them bill: calls, and tokens by sort."""
        return asdict(self._model.billed.total)

    def billed_nusd(self) -> int:
        """Return what they bill for calls of gpt-4o-mini, all of them below what is cached: $0.15 and $0.60 a
        million tokens."""
        billed = self.billed()
        return billed["input"] * 150 + billed["output"] * 600


@contextmanager
def provided(orders: Sequence[Mapping[str, Any]] = ()) -> Generator[Provided]:
    """Play providers while the block lasts."""
    with running() as model:
        found = Provided(model)
        found.order(*orders)
        yield found
