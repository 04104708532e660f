"""The variables by which clients find their provider: what an agent is given, what is kept from it, and whose
calls go past the gateway all the same.

Providers' keys stay with the gateway: what `midwatch up` inherited of them reaches no agent. What the fleet file
sets wins: an agent that brings a key or an address of its own keeps that provider to itself, and is told of.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from midwatch.core.access import KEY_PREFIX
from midwatch.core.calls.ask import Kind
from midwatch.core.fleet import Fleet


@dataclass(frozen=True, slots=True)
class Way:
    """How the clients of one kind of provider are led."""

    kind: Kind
    name: str
    """As people say it."""
    key: str
    url: str
    path: str = ""
    """What follows the gateway's address."""
    credentials: tuple[str, ...] = ()
    """Further keys that its clients read."""
    switches: tuple[str, ...] = ()
    """Variables by which its clients are let in by another cloud, with credentials of that."""
    addresses: tuple[str, ...] = ()
    """Further variables that lead its clients elsewhere."""


WAYS: Final = (
    Way(Kind.OPENAI, "OpenAI", "OPENAI_API_KEY", "OPENAI_BASE_URL", "/v1", (), (), ("OPENAI_API_BASE",)),
    Way(
        Kind.ANTHROPIC, "Anthropic", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "",
        ("ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"),
        ("CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX", "CLAUDE_CODE_USE_FOUNDRY"),
        ("ANTHROPIC_API_URL", "ANTHROPIC_BEDROCK_BASE_URL", "ANTHROPIC_VERTEX_BASE_URL"),
    ),
    Way(
        Kind.GEMINI, "Gemini", "GEMINI_API_KEY", "GOOGLE_GEMINI_BASE_URL", "",
        ("GOOGLE_API_KEY",), ("GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_GENAI_USE_ENTERPRISE"),
    ),
)  # fmt: skip

OTHER_KEYS: Final = (
    "AI21_API_KEY", "ANTHROPIC_FOUNDRY_API_KEY", "AWS_BEARER_TOKEN_BEDROCK", "AZURE_AI_API_KEY", "AZURE_API_KEY",
    "AZURE_OPENAI_AD_TOKEN", "AZURE_OPENAI_API_KEY", "CEREBRAS_API_KEY", "CODESTRAL_API_KEY", "COHERE_API_KEY",
    "CO_API_KEY", "DASHSCOPE_API_KEY", "DEEPINFRA_API_KEY", "DEEPINFRA_API_TOKEN", "DEEPSEEK_API_KEY",
    "FIREWORKS_API_KEY", "GOOGLE_GENERATIVE_AI_API_KEY", "GROQ_API_KEY", "HYPERBOLIC_API_KEY", "MINIMAX_API_KEY",
    "MISTRAL_API_KEY", "MOONSHOT_API_KEY", "NEBIUS_API_KEY", "NVIDIA_API_KEY", "OPENROUTER_API_KEY",
    "PERPLEXITY_API_KEY", "PPLX_API_KEY", "REPLICATE_API_TOKEN", "SAMBANOVA_API_KEY", "TOGETHERAI_API_KEY",
    "TOGETHER_API_KEY", "VOYAGE_API_KEY", "XAI_API_KEY", "ZAI_API_KEY", "ZHIPUAI_API_KEY",
)  # fmt: skip
"""Keys of further providers, by the names that their own clients read."""

_RIDERS: Final = (
    "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_ORGANIZATION", "OPENAI_PROJECT_ID", "OPENAI_CUSTOM_HEADERS",
    "ANTHROPIC_CUSTOM_HEADERS",
)  # fmt: skip
"""What clients send along with a key, or instead of one."""

OF_CLOUDS: Final = (
    "AWS_ACCESS_KEY_ID", "AWS_PROFILE", "GOOGLE_APPLICATION_CREDENTIALS", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN",
)  # fmt: skip
"""They open model providers among much else (files, databases), so agents keep them, and a person is told."""

_LIKE_KEYS: Final = re.compile(r"[A-Za-z0-9_]+_(?:API_?KEY|API_TOKEN)", re.IGNORECASE)

_KEYS: Final = frozenset(
    {
        *(w.key for w in WAYS),
        *(name for w in WAYS for name in (*w.credentials, *w.switches)),
        *OTHER_KEYS,
        *_RIDERS,
    }
)


def kept_back(fleet: Fleet) -> frozenset[str]:
    """Return the variables that no agent inherits: keys under their usual names, whatever the fleet file has the
    gateway read, and what is the hub's alone. The gateway has the former, the hub the latter."""
    sources = [key.source for p in fleet.models.providers.values() for key in p.keys]
    sources.append(fleet.gateway.ledger or "")
    named = {s.removeprefix("env:").strip() for s in sources if s.startswith("env:")}
    return _KEYS | named | of_hub(fleet)


def of_hub(fleet: Fleet) -> frozenset[str]:
    """Return the variables that are the hub's alone: addresses of its stores with their passwords, and what it shows
    to other back-ends."""
    said = [fleet.hub.stores.state, fleet.hub.stores.telemetry]
    said += [text for target in fleet.hub.forward.values() for text in target.headers.values()]
    return frozenset(s.removeprefix("env:").strip() for s in said if s and s.startswith("env:"))


def unused(fleet: Fleet, inherited: Mapping[str, str]) -> list[str]:
    """Return the keys that are there, are kept from agents, and that no provider of the gateway takes: before,
    agents found them, and called with them directly."""
    sources = {key.source for p in fleet.models.providers.values() for key in p.keys}
    usual = [w.key for w in WAYS] if sources else []
    keys = (*usual, *(name for w in WAYS for name in w.credentials), *OTHER_KEYS)
    return [name for name in keys if inherited.get(name) and f"env:{name}" not in sources]


def passed_on(fleet: Fleet, inherited: Iterable[str]) -> list[str]:
    """Return the variables that look as if they let one in at a model provider, and that agents inherit."""
    kept = kept_back(fleet)
    suspect = (n for n in inherited if n in OF_CLOUDS or _LIKE_KEYS.fullmatch(n))
    return sorted(name for name in suspect if name not in kept and not name.startswith("MIDWATCH_"))


@dataclass(frozen=True, slots=True)
class Past:
    """Calls of an agent that the gateway does not carry."""

    agent: str
    calls: str
    """Which, in words: `its OpenAI calls`."""
    variable: str
    """What the fleet file sets that leads them elsewhere."""
    lacks: str | None = None
    """The key that it needs and is not given: it has an address of its own, and none."""

    @property
    def sentence(self) -> str:
        """What that means, and the way out."""
        said = (
            f"{self.agent}: {self.calls} go past the gateway, since its env or env_file sets {self.variable}: budget,"
            " loop breaker and kill switch do not reach them"
        )
        if self.lacks is not None:
            return f"{said}; no key is given to it for that address: set {self.lacks}, too, or take {self.variable} out"
        return f"{said}; to have them carried, name the provider under models.providers and take {self.variable} out"


def past(agent: str, given: Mapping[str, str], gateway_url: str | None) -> list[Past]:
    """Return which calls of an agent go past the gateway, by what the fleet file gives it (`env`, `env_file`)."""
    found = [_past(agent, way, given, gateway_url) for way in WAYS]
    others = [Past(agent, f"its calls with {name}", name) for name in _set(given, *OTHER_KEYS)]
    return [one for one in found if one is not None] + others


def led(
    given: Mapping[str, str], inherited: Mapping[str, str], gateway_url: str, key: str
) -> dict[str, str]:
    """Return the variables that lead an agent's clients to the gateway, below what the fleet file gives it."""
    env: dict[str, str] = {}
    for way in WAYS:
        if _past("", way, given, gateway_url) is None:
            env[way.url] = f"{gateway_url}{way.path}"
            if not any(given.get(name) for name in (way.key, *way.credentials)):
                env[way.key] = key
        else:
            addresses = (way.url, *way.addresses)
            env |= {name: inherited[name] for name in addresses if name in inherited}
    return env


def astray(name: str) -> bool:
    """Tell whether an inherited variable would lead clients past the gateway."""
    return name in _ADDRESSES


_ADDRESSES: Final = frozenset(name for w in WAYS for name in (w.url, *w.addresses))


def rehearsed(env: Mapping[str, str], gateway_url: str, key: str) -> dict[str, str]:
    """Return an environment from which nothing leads elsewhere, whatever it said: a rehearsal never spends."""
    kept = {k: v for k, v in env.items() if k not in _KEYS and k not in _ADDRESSES}
    return kept | led({}, {}, gateway_url, key)


def _past(agent: str, way: Way, given: Mapping[str, str], gateway_url: str | None) -> Past | None:
    ours = [given[name] for name in _set(given, way.url, *way.addresses)]
    if gateway_url is not None and any(_same(url, gateway_url) for url in ours):
        return None  # the gateway answers a provider's key itself, and says what to do
    keys = _set(given, way.key, *way.credentials, *way.switches)
    foreign = next((name for name in keys if not given[name].startswith(KEY_PREFIX)), None)
    elsewhere = foreign or next(iter(_set(given, way.url, *way.addresses)), None)
    if elsewhere is None:
        return None
    return Past(agent, f"its {way.name} calls", elsewhere, None if keys else way.key)


def _set(given: Mapping[str, str], *names: str) -> list[str]:
    """Return which of these variables say anything."""
    return [n for n in names if given.get(n, "").strip().lower() not in ("", "0", "false")]


def _same(url: str, gateway_url: str) -> bool:
    """Tell whether an address is the gateway's, by whichever name of this machine."""
    one, other = urlsplit(url), urlsplit(gateway_url)
    try:
        return one.port == other.port and _here(one.hostname) == _here(other.hostname)
    except ValueError:
        return False


def _here(host: str | None) -> str | None:
    return "127.0.0.1" if host in ("localhost", "::1", "0.0.0.0") else host  # noqa: S104  a comparison
