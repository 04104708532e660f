"""What the gateway goes by: the resolved fleet, its providers with their keys, compiled rules. One snapshot,
made anew at each reload; a snapshot that cannot be made leaves the old one in force.

Keys are read by reference, from the environment or a file, and live in `Provided.secrets` alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from midwatch.core.calls.ask import Kind
from midwatch.core.calls.budget import Budgets
from midwatch.core.calls.chain import Chains
from midwatch.core.calls.policy import Policy
from midwatch.core.calls.pool import KeyHealth, KeyState
from midwatch.core.calls.route import Health
from midwatch.core.conditions import BadCondition
from midwatch.core.errors import SetupError
from midwatch.core.fleet import Agent, Fleet
from midwatch.core.models import Calls, Models, Provider, ProviderKey
from midwatch.core.pricing.names import seller
from midwatch.core.pricing.own import merge
from midwatch.core.pricing.shelf import Shelf

MAX_KEY_BYTES: Final = 16_384

USUAL: Final[Mapping[str, tuple[Kind, str, str]]] = {
    "openai": (Kind.OPENAI, "OPENAI_API_KEY", "OPENAI_BASE_URL"),
    "anthropic": (Kind.ANTHROPIC, "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"),
    "gemini": (Kind.GEMINI, "GEMINI_API_KEY", "GOOGLE_GEMINI_BASE_URL"),
}
"""Providers without a `models` section: name → kind, and the variables of key and address."""


_SECRET: Final = re.compile(r"auth|key|token|secret|cookie|password", re.IGNORECASE)
"""Headers by whose name their value is a secret."""


OPENROUTER: Final = "/generation?id={response}"
"""Where OpenRouter tells what one call came to."""


@dataclass(frozen=True, slots=True)
class Provided:
    """One provider, ready to be asked."""

    name: str
    given: Provider
    seller: str
    """Whose price list holds."""
    secrets: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    """Key name → key."""

    @property
    def kind(self) -> Kind:
        return self.given.kind

    @property
    def url(self) -> str:
        return self.given.url

    @property
    def reconcile(self) -> str:
        """Where below its address it tells what one call came to; empty when it does not."""
        return self.given.reconcile or (OPENROUTER if self.seller == "openrouter" else "")

    @property
    def shown(self) -> list[str]:
        """Return the secrets that it is shown: its keys, and what the fleet file's headers hold of them."""
        named = [v for n, v in self.given.headers.items() if _SECRET.search(n) is not None]
        return [*self.secrets.values(), *(word for value in named for word in value.split())]


@dataclass(frozen=True, slots=True)
class Settings:
    """One snapshot."""

    fleet: Fleet
    models: Models
    providers: Mapping[str, Provided]
    chains: Chains
    policy: Policy
    budgets: Budgets
    shelf: Shelf
    problems: tuple[str, ...] = ()
    """What is wrong and does not keep the gateway from working: keys that are not there."""

    def agent(self, entry: str) -> Agent | None:
        """Return the entry of an agent, a sub-agent's being that of the agent above it, and of an entry
        with `instances` that of its first."""
        name = entry.partition(":")[0]
        return self.fleet.agents.get(name) or self.fleet.agents.get(f"{name}.1")

    def calls(self, entry: str) -> Calls:
        agent = self.agent(entry)
        return Calls() if agent is None else agent.calls


def load(data: Path, environment: Mapping[str, str], rehearsal_url: str | None = None) -> Settings:
    """Read the snapshot that the supervisor wrote. Raises SetupError.

    `rehearsal_url`: all providers are replaced by the rehearsal model there, whatever the file says, so
    that a rehearsal never spends.
    """
    try:
        fleet = Fleet.model_validate_json((data / "fleet.json").read_bytes())
    except OSError as error:
        raise SetupError(
            f"{data / 'fleet.json'}: {error.strerror}; the gateway is started by midwatch up"
        ) from None
    except ValidationError as error:
        raise SetupError(
            f"{data / 'fleet.json'}: {error.error_count()} problems; stop the instance and start it again"
        ) from None
    return build(fleet, environment, rehearsal_url, _overrides(data))


def build(
    fleet: Fleet,
    environment: Mapping[str, str],
    rehearsal_url: str | None = None,
    overrides: object = None,
) -> Settings:
    """Return the snapshot for a fleet. Raises SetupError."""
    models = fleet.models
    if not models.providers:
        models = models.model_copy(update={"providers": _usual(environment)})
    if rehearsal_url is not None:
        providers = {n: _rehearsing(n, p, rehearsal_url) for n, p in _for_rehearsal(models).items()}
        models = models.model_copy(update={"providers": providers})
    problems: list[str] = []
    provided = {
        name: Provided(
            name,
            provider,
            seller(name, provider.url, provider.price_of),
            _secrets(name, provider, environment, Path(fleet.root), problems),
        )
        for name, provider in models.providers.items()
    }
    try:
        return Settings(
            fleet,
            models,
            provided,
            Chains(models),
            Policy(models.policy),
            _budgets(fleet),
            _shelf(models, overrides),
            tuple(problems),
        )
    except (BadCondition, ValueError) as error:
        raise SetupError(f"models: {error}") from None


def _budgets(fleet: Fleet) -> Budgets:
    """Return the fleet's budgets. The snapshot knows `inbox` with `instances` as inbox.1, inbox.2 …: they
    share one account, that of `inbox`, and its budget."""
    of = Budgets.of(fleet)
    entries = {name[:-2]: budget for name, budget in of.agents.items() if name.endswith(".1")}
    return replace(of, agents={**entries, **of.agents})


def health(settings: Settings, before: Health | None = None) -> Health:
    """Return the state of all places and keys; what is known of those that stay is kept."""
    known = before or Health(settings.models.breaker)
    pools: dict[str, list[KeyHealth]] = {}
    for name, provided in settings.providers.items():
        pools[name] = [
            _key(known, name, key, provided.secrets.get(key.name, ""))
            for key in provided.given.keys
        ]
    breakers = {
        place: breaker
        for place, breaker in known.breakers.items()
        if place[0] in settings.providers
    }
    of_keys = (one for pool in pools.values() for key in pool for one in key.failing.values())
    for breaker in (*breakers.values(), *of_keys):
        breaker.terms = settings.models.breaker
    return Health(settings.models.breaker, breakers, pools)


def _key(known: Health, provider: str, key: ProviderKey, secret: str) -> KeyHealth:
    digest = blake2b(secret.encode(), digest_size=8).hexdigest() if secret else ""
    held = known.key(provider, key.name)
    if held is None or (digest and held.secret and digest != held.secret):
        held = KeyHealth(
            key.name
        )  # what is held against a key that was exchanged is not this one's
    held.weight, held.reserve, held.secret = key.weight, key.reserve, digest or held.secret
    held.budget_nusd = key.budget
    if not secret:
        held.state, held.reason = KeyState.MISSING, f"{key.source} leads to no key"
    elif held.state is KeyState.MISSING:
        held.state, held.reason, held.until = KeyState.ACTIVE, "", 0.0
    return held


def _usual(environment: Mapping[str, str]) -> dict[str, Provider]:
    """Return the providers whose keys stand under their usual names."""
    return {
        name: Provider.model_validate(
            {
                "kind": kind,
                "base_url": environment.get(url) or None,
                "keys": [{"name": "main", "from": f"env:{key}"}],
            }
        )
        for name, (kind, key, url) in USUAL.items()
        if environment.get(key)
    }


def _for_rehearsal(models: Models) -> dict[str, Provider]:
    """In a rehearsal every usual provider is there, with or without a key."""
    usual = {name: Provider(kind=kind) for name, (kind, _, _) in USUAL.items()}
    return dict(models.providers) or usual


def _rehearsing(name: str, provider: Provider, url: str) -> Provider:
    """Return the provider as the rehearsal plays it: its prices stay what they are."""
    base = f"{url}/v1" if provider.kind is Kind.OPENAI else url
    whose = seller(name, provider.url, provider.price_of)
    return provider.model_copy(
        update={"base_url": base, "keys": [], "headers": {}, "price_of": whose}
    )


def _secrets(
    name: str,
    provider: Provider,
    environment: Mapping[str, str],
    root: Path,
    problems: list[str],
) -> dict[str, str]:
    found: dict[str, str] = {}
    for key in provider.keys:
        scheme, _, where = key.source.partition(":")
        secret = (
            environment.get(where, "")
            if scheme == "env"
            else _file(root / Path(where).expanduser(), name, problems)
        ).strip()
        if secret and secret.isprintable() and secret.isascii():
            found[key.name] = secret
        else:
            do = f"export {where} before midwatch up" if scheme == "env" else f"write it to {where}"
            problems.append(f"models.providers.{name}: key {key.name!r} is not there; {do}")
    return found


def _file(path: Path, provider: str, problems: list[str]) -> str:
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_KEY_BYTES).decode("utf-8", "replace")
    except OSError as error:
        problems.append(f"models.providers.{provider}: {str(path)!r}: {error.strerror}")
        return ""


def _overrides(data: Path) -> object:
    """Return what `midwatch prices set` wrote."""
    try:
        return json.loads((data / "gateway" / "prices.json").read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise SetupError(
            f"gateway/prices.json cannot be read ({error}); write it anew with midwatch prices set"
        ) from None


def _shelf(models: Models, overrides: object) -> Shelf:
    free = [name for name, provider in models.providers.items() if provider.free]
    return Shelf(merge(models.prices, overrides), None, free)
