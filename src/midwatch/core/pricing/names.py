"""Whose price list holds, and under which names a model may stand in it.

Models have many names: with the provider in front, with a date, `-latest`, a region (Bedrock), a path
(Vertex AI, Fireworks). `spellings` returns them from the exact one to the most general; the first that a
list knows wins. A fine-tuned model (`ft:`) keeps its prefix: it costs more than what it was made from.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

MAX_NAME: Final = 256
"""Characters of a model's name that are looked at. No list has a longer one."""

MAX_PATH: Final = 8
"""Slashes in a name that are looked behind."""

_ALIASES: Final = {
    "gemini": "google",
    "vertex": "google",
    "vertex_ai": "google",
    "vertexai": "google",
    "bedrock": "aws",
    "amazon": "aws",
    "xai": "x-ai",
    "grok": "x-ai",
    "together_ai": "together",
    "togetherai": "together",
    "fireworks_ai": "fireworks",
    "moonshot": "moonshotai",
    "kimi": "moonshotai",
    "voyage": "voyageai",
    "azure_ai": "azure",
    "azure_openai": "azure",
    "mistralai": "mistral",
    "bigmodel": "zhipuai",
}
"""Other words for a seller."""

_HOSTS: Final = (
    ("api.openai.com", "openai"),
    ("openai.azure.com", "azure"),
    ("services.ai.azure.com", "azure"),
    ("cognitiveservices.azure.com", "azure"),
    ("api.anthropic.com", "anthropic"),
    ("googleapis.com", "google"),
    ("amazonaws.com", "aws"),
    ("openrouter.ai", "openrouter"),
    ("api.groq.com", "groq"),
    ("api.mistral.ai", "mistral"),
    ("api.deepseek.com", "deepseek"),
    ("api.x.ai", "x-ai"),
    ("api.together.xyz", "together"),
    ("api.together.ai", "together"),
    ("api.fireworks.ai", "fireworks"),
    ("api.cerebras.ai", "cerebras"),
    ("api.perplexity.ai", "perplexity"),
    ("api.moonshot.ai", "moonshotai"),
    ("api.moonshot.cn", "moonshotai"),
    ("api.cohere.com", "cohere"),
    ("api.cohere.ai", "cohere"),
    ("api.z.ai", "zai"),
    ("bigmodel.cn", "zhipuai"),
    ("api.minimax.io", "minimax"),
    ("api.novita.ai", "novita"),
    ("api.deepinfra.com", "deepinfra"),
    ("api.voyageai.com", "voyageai"),
    ("api.sambanova.ai", "sambanova"),
    ("api.hyperbolic.xyz", "hyperbolic"),
    ("nebius.com", "nebius"),
    ("dashscope.aliyuncs.com", "dashscope"),
    ("dashscope-intl.aliyuncs.com", "dashscope"),
    ("inference.baseten.co", "baseten"),
    ("api.cloudflare.com", "cloudflare"),
    ("githubcopilot.com", "github-copilot"),
    ("ai-gateway.vercel.sh", "vercel"),
)
"""Ends of host names. A host is known by its end, after a dot or whole."""

_REGIONS: Final = (("us.api.openai.com", "us"), ("eu.api.openai.com", "eu"))
"""Addresses that keep a call in one place, at a higher price."""

_MAKERS: Final = (
    ("gpt-", "openai"),
    ("chatgpt-", "openai"),
    ("o1", "openai"),
    ("o3", "openai"),
    ("o4", "openai"),
    ("text-embedding-", "openai"),
    ("claude-", "anthropic"),
    ("gemini-", "google"),
    ("grok-", "x-ai"),
    ("deepseek-", "deepseek"),
    ("mistral-", "mistral"),
    ("codestral-", "mistral"),
    ("magistral-", "mistral"),
    ("ministral-", "mistral"),
    ("command-", "cohere"),
    ("kimi-", "moonshotai"),
    ("moonshot-", "moonshotai"),
    ("glm-", "zai"),
    ("sonar", "perplexity"),
)
"""Who makes a model, by the beginning of its name: whose list stands in where the seller has none."""


def seller(name: str, base_url: str = "", price_of: str | None = None) -> str:
    """Return whose price list holds for a provider of the fleet file.

    `price_of` wins; then the address, where it is known; else the provider's own name.
    """
    if price_of:
        return canonical(price_of)
    try:
        host = urlsplit(base_url).hostname or ""
    except ValueError:
        host = ""
    for end, known in _HOSTS:
        if host == end or host.endswith("." + end):
            return known
    return canonical(name)


def region(base_url: str) -> str:
    """Return the place that an address keeps calls in, "" for none (OpenAI's regional addresses)."""
    try:
        host = urlsplit(base_url).hostname or ""
    except ValueError:
        return ""
    return next((place for end, place in _REGIONS if host == end), "")


def canonical(name: str) -> str:
    """Return the one word for a seller."""
    word = name.strip().lower()[:MAX_NAME]
    return _ALIASES.get(word, word)


def maker(model: str) -> str:
    """Return who makes a model, "" when its name does not tell."""
    name = model.lower().rpartition("/")[2]
    return next((who for start, who in _MAKERS if name.startswith(start)), "")


_BEDROCK: Final = re.compile(r"(?:us-gov|us|eu|apac|apn|global|jp|au|ca|sa)\.(?=[a-z0-9-]+\.)")
_MAKER_DOT: Final = re.compile(
    r"(?:anthropic|amazon|meta|mistral|cohere|ai21|deepseek|openai|qwen|google|minimax|moonshot|moonshotai|zai|nvidia|writer)\."
)
_REVISION: Final = re.compile(r"(?:-v\d{1,2})?:\d{1,2}(?::\w{1,8})?$|-v\d{1,2}$")
_DATES: Final = (
    re.compile(r"[-@](20\d{2})(\d{2})(\d{2})$"),
    re.compile(r"[-@](20\d{2})-(\d{2})-(\d{2})$"),
)
_LOOSE: Final = re.compile(r"(?:[-@:]latest|@default|-0\d{2}|-\d{4}|-\d{2}-\d{2}|-\d{2}-20\d{2})$")
"""Ends that name a build: -latest, @default, -001, -0613, -05-06, -09-2025."""
_VARIANT: Final = re.compile(r":(?:nitro|floor|online|exacto|extended|thinking)$")
"""OpenRouter's ways to route: they choose a host, the model is the same. `:free` is another price."""


def spellings(model: str) -> Iterator[str]:
    """Return the names under which a model may be listed, exact ones first, each once."""
    seen: set[str] = set()
    for name in _spell(model.strip().lower()[:MAX_NAME]):
        if name and name not in seen:
            seen.add(name)
            yield name


def _spell(name: str) -> Iterator[str]:
    yield name
    if name.startswith("ft:"):
        # ft:BASE:organisation:suffix:id
        base = ":".join(name.split(":")[:2])
        yield base
        yield from _undated(base)
        return
    bare = _VARIANT.sub("", name)
    yield bare
    if bare.endswith(":free"):
        return
    yield from _undated(bare)
    # a path, or a provider in front: models/…, publishers/google/models/…, accounts/…/models/…, openai/…
    short = bare
    for _ in range(MAX_PATH):
        short = short.partition("/")[2]
        yield short
        yield from _undated(short)
    last = bare.rpartition("/")[2]
    near = _BEDROCK.sub("", last, count=1)
    if near != last:
        yield near
    away = _REVISION.sub("", near)
    yield away
    plain = _MAKER_DOT.sub("", away, count=1)
    yield plain
    yield from _undated(plain)


def _undated(name: str) -> Iterator[str]:
    """Return a name with its date written the other way, and without it or another sign of its build."""
    for pattern, other in zip(_DATES, ("-{}-{}-{}", "-{}{}{}"), strict=True):
        match = pattern.search(name)
        if match is not None:
            head = name[: match.start()]
            yield head + other.format(*match.groups())
            yield f"{head}@{''.join(match.groups())}"
            yield head
            yield from _loose(head)
            return
    yield from _loose(name)


def _loose(name: str) -> Iterator[str]:
    shorter = _LOOSE.sub("", name)
    if shorter != name:
        yield shorter
        if not name.endswith("latest"):
            yield f"{shorter}-latest"
