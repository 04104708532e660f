"""The prices by which the hub reckons calls that the gateway did not carry: the fleet file's, and the lists."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

from midwatch.core.errors import SetupError
from midwatch.core.fleet import Fleet
from midwatch.core.pricing.names import seller
from midwatch.core.pricing.own import merge
from midwatch.core.pricing.shelf import Shelf
from midwatch.core.spans.priced import Pricer
from midwatch.core.units import Unexpected

log = logging.getLogger(__name__)


def pricer(fleet: Fleet, data: Path) -> Pricer:
    """Return what prices calls by the fleet file, and by what `midwatch prices set` wrote below `data`."""
    providers = fleet.models.providers
    sellers = {n: seller(n, each.url, each.price_of) for n, each in providers.items()}
    return Pricer(_shelf(fleet, set_prices(data)), sellers)


def set_prices(data: Path) -> Path:
    """Return the file of `midwatch prices set`."""
    return data / "gateway" / "prices.json"


def written_at(file: Path) -> float:
    """Return when a file was last written, 0 when there is none."""
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def _shelf(fleet: Fleet, file: Path) -> Callable[[], Shelf]:
    def make() -> Shelf:
        free = [name for name, provider in fleet.models.providers.items() if provider.free]
        try:
            return Shelf(merge(fleet.models.prices, _read(file)), None, free)
        except (OSError, ValueError, Unexpected, SetupError) as error:
            # the gateway says the same and refuses to start; here the lists go on
            log.error("prices of one's own are not used: %s: %s", file, error)  # noqa: TRY400  its words suffice
            return Shelf(None, None, free)

    return make


def _read(file: Path) -> object:
    try:
        return json.loads(file.read_bytes())
    except FileNotFoundError:
        return None
