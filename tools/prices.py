"""Writes the price lists that ship with the package, from the packages that they come from.

    python tools/prices.py            # genai.json, from the installed genai-prices
    python tools/prices.py --litellm litellm-1.109.1-….whl      # litellm.json, from a wheel of litellm

Only facts are taken: which model of whom costs what since when, and how much it takes in and gives out.
Both sources are published under the MIT licence. Format: `midwatch.core.pricing.book`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import zipfile
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / "src" / "midwatch" / "core" / "pricing"
HISTORY = date(2025, 6, 1)
"""Prices that ended before this day are of no use to anybody who starts now."""
OLDEST = date(2000, 1, 1)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--litellm", type=Path, metavar="WHEEL")
    parser.add_argument("--read-on", default=datetime.now(UTC).date().isoformat())
    asked = parser.parse_args(arguments)
    name = "litellm.json" if asked.litellm else "genai.json"
    data = litellm(asked.litellm, asked.read_on) if asked.litellm else genai(asked.read_on)
    text = render(data)
    (PLACE / name).write_text(text, "utf-8")
    print(
        f"{name}: {len(data['entries'])} models, {len(data['prices'])} prices, {len(text) >> 10} KiB"
    )
    return 0


def render(data: dict[str, Any]) -> str:
    """Return the document with one line per price, seller and hundred models: small, and fit for a diff."""
    parts: list[str] = []
    for key, value in data.items():
        if key in ("prices", "entries"):
            lines = ",\n".join(json.dumps(item, separators=(",", ":")) for item in value)
            parts.append(f"{json.dumps(key)}:[\n{lines}\n]")
        elif key == "sellers":
            lines = ",\n".join(
                f"{json.dumps(k)}:{json.dumps(v, separators=(',', ':'))}" for k, v in value.items()
            )
            parts.append(f"{json.dumps(key)}:{{\n{lines}\n}}")
        else:
            parts.append(f"{json.dumps(key)}:{json.dumps(value)}")
    return "{" + ",\n".join(parts) + "}\n"


class Writer:
    """Collects prices and entries, each once."""

    def __init__(self, source: str, source_version: str, read_on: str, url: str) -> None:
        self.head = {
            "source": source,
            "version": source_version,
            "read_on": read_on,
            "from": url,
            "licence": "MIT",
        }
        self.prices: list[Any] = []
        self.entries: list[Any] = []
        self._places: dict[str, int] = {}
        self._entries: dict[str, int] = {}

    def price(self, value: Any) -> int:
        return self._once(value, self.prices, self._places)

    def entry(self, value: Any) -> int:
        return self._once(value, self.entries, self._entries)

    @staticmethod
    def _once(value: Any, kept: list[Any], places: dict[str, int]) -> int:
        text = json.dumps(value, sort_keys=True)
        if text not in places:
            places[text] = len(kept)
            kept.append(value)
        return places[text]

    def document(self, sellers: dict[str, Any]) -> dict[str, Any]:
        return {**self.head, "prices": self.prices, "entries": self.entries, "sellers": sellers}


def amount(value: Decimal) -> str:
    """Return a decimal in its shortest plain form."""
    text = format(value.normalize(), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


# genai-prices

GENAI = {
    "input_mtok": "i",
    "cache_read_mtok": "c",
    "cache_write_mtok": "w",
    "cache_write_1h_mtok": "w1",
    "output_mtok": "o",
    "output_reasoning_mtok": "r",
    "input_audio_mtok": "ia",
    "cache_audio_read_mtok": "ca",
    "output_audio_mtok": "oa",
    "input_image_mtok": "ii",
    "cache_image_read_mtok": "ci",
    "output_image_mtok": "oi",
    "input_video_mtok": "iv",
    "output_citation_mtok": "cite",
    "requests_kcount": "q",
    "web_searches_kcount": "web",
    "storage_searches_kcount": "file",
}
PER_THOUSAND = ("q", "web", "file", "map")
CONTEXTS = {
    "batch": {"processing": "batch"},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
    "fast": {"service_tier": "fast", "speed": "fast"},
}


def genai(read_on: str) -> dict[str, Any]:
    from genai_prices.data import providers

    writer = Writer(
        "genai-prices", version("genai-prices"), read_on, "https://github.com/pydantic/genai-prices"
    )
    sellers: dict[str, Any] = {}
    for provider in providers:
        exact: dict[str, int] = {}
        rules: list[Any] = []
        for model in provider.models:
            periods = [(s, m, writer.price(p)) for s, m, p in _periods(model)]
            if not periods:
                continue
            place = writer.entry([model.id, model.context_window, None, _compact(periods)])
            for clause in _alternatives(model.match):
                if clause[0] != "=":
                    rules.append([clause, place])
                elif _first(provider, clause[1]) is model:
                    exact.setdefault(clause[1], place)
        if exact or rules:
            others = provider.fallback_model_providers or []
            sellers[provider.id] = {"else": others, "exact": exact, "rules": rules}
    return writer.document(sellers)


def _first(provider: Any, name: str) -> Any:
    return next((model for model in provider.models if model.is_match(name)), None)


def _alternatives(match: Any) -> list[list[Any]]:
    """Return a match as clauses any of which will do."""
    clause = _clause(match)
    return clause[1:] if clause[0] == "or" else [clause]


def _clause(match: Any) -> list[Any]:
    kind = type(match).__name__.removeprefix("Clause")
    if kind == "Or":
        return ["or", *(_clause(inner) for inner in match.or_)]
    if kind == "And":
        return ["and", *(_clause(inner) for inner in match.and_)]
    sign = {"Equals": "=", "StartsWith": "^", "EndsWith": "$", "Contains": "*", "Regex": "~"}[kind]
    text = next(iter(vars(match).values()))
    return [sign, text if sign == "~" else text.lower()]


def _periods(model: Any) -> list[tuple[int, int, Any]]:
    """Return (since, minute of the day, price) of a model: asked anew at each moment when it may change."""
    constraints = [c.constraint for c in model.prices] if isinstance(model.prices, list) else []
    constraints += [v.constraint for v in model.price_variants or ()]
    days = {OLDEST, *(c.start_date for c in constraints if hasattr(c, "start_date"))}
    minutes = {0}
    for c in constraints:
        if hasattr(c, "start_time"):
            minutes |= {t.hour * 60 + t.minute for t in (c.start_time, c.end_time)}
    newest_old = max(d for d in days if d <= HISTORY)
    found: list[tuple[int, int, Any]] = []
    for day in sorted(d for d in days if d >= newest_old):
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        since = 0 if day == newest_old else int(start.timestamp())
        for minute in sorted(minutes):
            price = _genai_price(model, start + timedelta(minutes=minute))
            if price is not None:
                found.append((since, minute, price))
    return found


def _compact(periods: list[tuple[int, int, int]]) -> list[list[int]]:
    """Drop a day on which nothing changed, and a minute at which nothing does."""
    days: dict[int, list[tuple[int, int]]] = {}
    for since, minute, price in periods:
        day = days.setdefault(since, [])
        if not day or day[-1][1] != price:
            day.append((minute, price))
    kept: list[list[int]] = []
    before: list[tuple[int, int]] = []
    for since, day in days.items():
        if day != before:
            kept += [[since, minute, price] for minute, price in day]
        before = day
    return kept


def _genai_price(model: Any, at: datetime) -> dict[str, Any] | None:
    usual = _genai_table(model.get_prices(at))
    if not usual["r"].keys() & {"i", "o", "q"}:
        return None  # by the second, page or picture
    tiers: dict[str, Any] = {}
    for tier, context in CONTEXTS.items():
        for key, word in context.items():
            variants = [
                v
                for v in model.price_variants or ()
                if v.when == {key: word} and (v.constraint is None or v.constraint.active(at))
            ]
            if variants:
                tiers[tier] = _genai_table(model.get_prices(at, {key: word}))
    return {**usual, **({"t": tiers} if tiers else {})}


def _genai_table(prices: Any) -> dict[str, Any]:
    rates: dict[str, str] = {}
    bands: dict[int, dict[str, str]] = {}
    for key, value in vars(prices).items():
        code = GENAI.get(key)
        if code is None or value is None:
            continue
        per = 1000 if code in PER_THOUSAND else 1
        rates[code] = amount(getattr(value, "base", value) / per)
        for tier in getattr(value, "tiers", ()):
            bands.setdefault(tier.start, {})[code] = amount(tier.price / per)
    # a part without a step of its own stays as it is, by this source's rule
    full = [[start, {**rates, **band}] for start, band in sorted(bands.items())]
    return {"r": rates, **({"b": full} if full else {})}


# litellm

LITELLM = {
    "input_cost_per_token": "i",
    "cache_read_input_token_cost": "c",
    "cache_creation_input_token_cost": "w",
    "cache_creation_input_token_cost_above_1hr": "w1",
    "cache_creation_input_token_cost_above_12hr": "w12",
    "output_cost_per_token": "o",
    "output_cost_per_reasoning_token": "r",
    "input_cost_per_audio_token": "ia",
    "cache_read_input_audio_token_cost": "ca",
    "output_cost_per_audio_token": "oa",
    "input_cost_per_image_token": "ii",
    "cache_read_input_image_token_cost": "ci",
    "output_cost_per_image_token": "oi",
    "input_cost_per_video_token": "iv",
    "citation_cost_per_token": "cite",
}
SUFFIXES = {
    "": "",
    "_batches": "batch",
    "_flex": "flex",
    "_priority": "priority",
    "_ultrafast": "ultrafast",
}
MODES = ("chat", "responses", "completion", "embedding", "realtime")
SELLERS = {
    "gemini": "google",
    "bedrock_converse": "aws",
    "bedrock": "aws",
    "bedrock_mantle": "aws",
    "azure_ai": "azure",
    "azure_text": "azure",
    "xai": "x-ai",
    "together_ai": "together",
    "fireworks_ai": "fireworks",
    "fireworks_ai-embedding-models": "fireworks",
    "moonshot": "moonshotai",
    "voyage": "voyageai",
    "cohere_chat": "cohere",
    "text-completion-openai": "openai",
    "text-completion-codestral": "mistral",
    "codestral": "mistral",
    "vercel_ai_gateway": "vercel",
    "github_copilot": "github-copilot",
}
OTHERS = {"azure": ["openai", "anthropic"], "google": ["anthropic"], "aws": ["anthropic"]}
NOT_SOLD_BY_TOKEN = ("chatgpt", "github_copilot", "ollama", "snowflake", "sagemaker", "watsonx")
RESOLD = ("kyma", "aihubmix", "inferenceapis", "llamagate", "aiand", "zerogpu")
"""Resellers whose many entries would make the file large for few."""
BAND = re.compile(r"_above_(\d+)k_tokens")


def litellm(wheel: Path, read_on: str) -> dict[str, Any]:
    with zipfile.ZipFile(wheel) as archive:
        raw = json.loads(
            archive.read("litellm/model_prices_and_context_window_backup.json"), parse_float=Decimal
        )
    release = wheel.name.split("-")[1]
    writer = Writer("litellm", release, read_on, "https://github.com/BerriAI/litellm")
    sellers: dict[str, Any] = {}
    # what a seller calls its own comes first: Gemini's list before Vertex AI's
    for key, item in sorted(raw.items(), key=lambda kv: _late(kv[1])):
        who = str(item.get("litellm_provider", ""))
        if item.get("mode") not in MODES or who in NOT_SOLD_BY_TOKEN + RESOLD:
            continue
        price = _litellm_price(item)
        if price is None:
            continue
        seller = SELLERS.get(who, "google" if who.startswith("vertex_ai") else who)
        # the names of Bedrock's regions stay: regions differ in price
        name = key.split("/", 1)[1] if "/" in key and key.split("/", 1)[0] in _fronts(who) else key
        window, longest = _size(item, "max_input_tokens"), _size(item, "max_output_tokens")
        entry = [name.lower(), window, longest, [[0, 0, writer.price(price)]]]
        prefill = item.get("supports_assistant_prefill")
        place = writer.entry([*entry, prefill] if isinstance(prefill, bool) else entry)
        listed = sellers.setdefault(
            seller, {"else": OTHERS.get(seller, []), "exact": {}, "rules": []}
        )
        listed["exact"].setdefault(name.lower(), place)
    return writer.document(sellers)


def _late(item: dict[str, Any]) -> int:
    return str(item.get("litellm_provider", "")).startswith("vertex_ai")


def _fronts(who: str) -> set[str]:
    return {who, who.partition("-")[0], "bedrock", "azure", "vertex_ai", "text-completion-openai"}


def _size(item: dict[str, Any], key: str) -> int | None:
    value = item.get(key)
    return int(value) if isinstance(value, int | Decimal) and value > 0 else None


def _litellm_price(item: dict[str, Any]) -> dict[str, Any] | None:
    tables: dict[str, dict[str, str]] = {}
    bands: dict[str, dict[int, dict[str, str]]] = {}
    for key, value in item.items():
        if not isinstance(value, int | Decimal) or isinstance(value, bool) or value < 0:
            continue
        for suffix, tier in SUFFIXES.items():
            base = key.removesuffix(suffix) if suffix else key
            match = BAND.search(base)
            code = LITELLM.get(BAND.sub("", base))
            if code is None or (suffix and base == key):
                continue
            per_million = amount(Decimal(value) * 1_000_000)
            if match is None:
                tables.setdefault(tier, {})[code] = per_million
            else:
                bands.setdefault(tier, {}).setdefault(int(match[1]) * 1000, {})[code] = per_million
            break
    usual = tables.get("", {})
    _stepped(item, usual, bands)
    _fees(item, usual)
    if not usual.keys() & {"i", "o", "q"}:
        return None
    price = _litellm_table(usual, bands.get("", {}))
    tiers = {
        tier: _litellm_table(tables[tier], bands.get(tier, {}))
        for tier in SUFFIXES.values()
        if tier and "i" in tables.get(tier, {})
    }
    more = item.get("provider_specific_entry")
    more = more if isinstance(more, dict) else {}
    uplift = {k: int(Decimal(more[k]) * 1000) for k in ("us", "eu") if k in more}
    for place in ("us", "eu"):
        factor = item.get(f"regional_processing_uplift_multiplier_{place}")
        if factor:
            uplift[place] = int(Decimal(factor) * 1000)
    if "fast" in more:
        tiers["fast"] = _times(price, Decimal(more["fast"]))
    return {**price, **({"t": tiers} if tiers else {}), **({"u": uplift} if uplift else {})}


def _litellm_table(rates: dict[str, str], bands: dict[int, dict[str, str]]) -> dict[str, Any]:
    listed = [[start, band] for start, band in sorted(bands.items())]
    return {"r": rates, **({"b": listed} if listed else {})}


def _times(table: dict[str, Any], factor: Decimal) -> dict[str, Any]:
    def grown(rates: dict[str, str]) -> dict[str, str]:
        return {
            k: v if k in PER_THOUSAND else amount(Decimal(v) * factor) for k, v in rates.items()
        }

    bands = [[start, grown(rates)] for start, rates in table.get("b", [])]
    return {"r": grown(table["r"]), **({"b": bands} if bands else {})}


def _stepped(
    item: dict[str, Any], usual: dict[str, str], bands: dict[str, dict[int, dict[str, str]]]
) -> None:
    """Read prices by length that stand in a list of their own."""
    for step in item.get("tiered_pricing") or ():
        if not isinstance(step, dict) or not step.get("range"):
            continue
        start = int(step["range"][0])
        place = usual if start == 0 else bands.setdefault("", {}).setdefault(start, {})
        for key, code in LITELLM.items():
            if isinstance(step.get(key), int | Decimal):
                place[code] = amount(Decimal(step[key]) * 1_000_000)


def _fees(item: dict[str, Any], usual: dict[str, str]) -> None:
    sizes = item.get("search_context_cost_per_query")
    if isinstance(sizes, dict):
        fees = [Decimal(v) for v in sizes.values() if isinstance(v, int | Decimal)]
        if fees:
            # Perplexity searches with every request, and bills each
            code = "q" if item.get("litellm_provider") == "perplexity" else "web"
            usual[code] = amount(max(fees))
    for key, code in (
        ("google_maps_grounding_cost_per_query", "map"),
        ("input_cost_per_request", "q"),
    ):
        if isinstance(item.get(key), int | Decimal):
            usual[code] = amount(Decimal(item[key]))
    if isinstance(item.get("file_search_cost_per_1k_calls"), int | Decimal):
        usual["file"] = amount(Decimal(item["file_search_cost_per_1k_calls"]) / 1000)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
