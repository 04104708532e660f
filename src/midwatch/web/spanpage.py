"""One span as its page shows it: what is known, what was said, and what its sender wrote, in groups that fold.

Everything here is of agents: each text is bounded, and shown without what moves or hides text. Whoever needs it to
the byte follows the link to the API.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from midwatch.core.contamination import NAME as CONTAMINATION
from midwatch.core.contamination import Flag, flags_of
from midwatch.core.spans.told import may_tell, results_in
from midwatch.web import words

MAX_SHOWN: Final = 300
"""Attributes, events or links of one span that its page shows; it says how many more there are."""

MAX_VALUE: Final = 2_000
"""Characters of one value."""

_OWN: Final = (
    "agent", "run_id", "session", "turn", "user", "tags", "role", "operation", "agent_name", "provider", "model",
    "response_model", "tool", "tool_call_id", "response_id", "call_id", "finish", "first_token_s", "input_tokens",
    "cached_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens", "cost_usd", "cost_from", "outcome",
    "goal_met", "escalated", "side_effect", "status", "status_message", "error_type", "rank", "duration_s", "kind",
    "parent_id", "dialect",
)  # fmt: skip
"""Columns that the page's head shows, in this order."""

_TIMES: Final = {"duration_s": "took", "first_token_s": "first token after"}
_SILENT: Final = ("unset", "unspecified", "ended")
"""Words of columns that say nothing."""

_ID: Final = re.compile(r"[0-9a-f]{1,32}")


@dataclass(frozen=True, slots=True)
class Entry:
    """A name and its value as text, clipped to MAX_VALUE; `more` characters are not shown."""

    name: str
    text: str
    more: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    """Attributes whose names begin alike."""

    name: str
    entries: Sequence[Entry]


@dataclass(frozen=True, slots=True)
class Happened:
    """An event of the span. `at_s` is from the span's start on."""

    name: str
    at_s: float
    entries: Sequence[Entry]


@dataclass(frozen=True, slots=True)
class Linked:
    """A link to another span; `path` is None where its ids are none."""

    trace_id: str
    span_id: str
    path: str | None
    entries: Sequence[Entry]


@dataclass(frozen=True, slots=True)
class Shown:
    """Everything of one span that stands beside its contents."""

    known: Sequence[Entry]
    original: Sequence[Group]
    more: int
    """Attributes that are not shown."""
    events: Sequence[Happened]
    more_events: int
    links: Sequence[Linked]
    more_links: int
    resource: Sequence[Entry]
    scope: Sequence[Entry]
    judged: Sequence[Mapping[str, Any]]
    """Evaluations and feedback, flags left out."""
    flags: Sequence[str]


def shown_of(item: Mapping[str, Any]) -> Shown:
    """Return what the page shows of a span, as `Questions.span` gives it."""
    original = _object(item.get("original"))
    events, links = _objects(item.get("events")), _objects(item.get("links"))
    resource = _object(item.get("resource"))
    judged = _objects(item.get("evaluations"))
    from_ = {
        name: url for name in ("schema_url", "scope_schema_url") if (url := resource.get(name))
    }
    scope = {name: item[name] for name in ("scope", "scope_version") if item.get(name)}
    return Shown(
        known=_known(item),
        original=groups(original),
        more=max(0, len(original) - MAX_SHOWN),
        events=[_happened(one, item) for one in events[:MAX_SHOWN]],
        more_events=max(0, len(events) - MAX_SHOWN),
        links=[_linked(one) for one in links[:MAX_SHOWN]],
        more_links=max(0, len(links) - MAX_SHOWN),
        resource=_entries({**_object(resource.get("attributes")), **from_}),
        scope=_entries({**scope, **_object(resource.get("scope_attributes"))}),
        judged=[one for one in judged if one.get("name") != CONTAMINATION][:MAX_SHOWN],
        flags=flagged(item),
    )  # fmt: skip


def _known(item: Mapping[str, Any]) -> list[Entry]:
    """Return what columns say, in words; what says nothing is left out."""
    found: list[Entry] = []
    for name in _OWN:
        value = item.get(name)
        if value is None or value in _SILENT:
            continue
        if name in _TIMES:
            found.append(Entry(_TIMES[name], words.span(value)))
        elif name == "cost_usd":
            found.append(Entry("cost", words.money(value)))
        elif name.endswith("_tokens"):
            found.append(Entry(name.replace("_", " "), words.count(value)))
        else:
            found.append(entry(name.replace("_", " "), value))
    return found


def flagged(span: Mapping[str, Any]) -> list[str]:
    """Return why a span is flagged, each reason once."""
    said = _objects(span.get("evaluations"))
    return sorted({str(one.get("label", "other")) for one in said if one.get("name") == CONTAMINATION})  # fmt: skip


def reasons(content: Mapping[str, Any]) -> list[Flag]:
    """Return what in a content that came from outside speaks to the model, and what stands around it: in a result, and
    in the results that a call's messages tell."""
    text, kind = str(content["text"]), content.get("kind")
    if kind in ("result", "documents"):
        return flags_of(text)
    if kind == "input" and may_tell(text):
        told = "\n".join(each for one in results_in(text) if one.fresh for each in one.texts)
        return flags_of(told)
    return []


def groups(attributes: Mapping[str, Any]) -> list[Group]:
    """Return attributes by the first word of their names, groups and names by the alphabet."""
    by: dict[str, list[str]] = {}
    for name in sorted(attributes)[:MAX_SHOWN]:
        by.setdefault(name.partition(".")[0], []).append(name)
    return [Group(word, _entries({n: attributes[n] for n in names})) for word, names in by.items()]


def entry(name: str, value: object) -> Entry:
    """Return one value as text: text as it is, all else as JSON."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return Entry(name, text[:MAX_VALUE], max(0, len(text) - MAX_VALUE))


def _entries(values: Mapping[str, Any]) -> list[Entry]:
    return [entry(name, value) for name, value in list(values.items())[:MAX_SHOWN]]


def _happened(event: Mapping[str, Any], item: Mapping[str, Any]) -> Happened:
    at_ns = event.get("time_ns")
    since_s = (at_ns - item["start_ns"]) / 1e9 if isinstance(at_ns, int) else 0.0
    return Happened(str(event.get("name", "")), since_s, _entries(_object(event.get("attributes"))))  # fmt: skip


def _linked(link: Mapping[str, Any]) -> Linked:
    trace, span = str(link.get("trace_id", "")), str(link.get("span_id", ""))
    known = _ID.fullmatch(trace) is not None and _ID.fullmatch(span) is not None
    return Linked(trace, span, f"/traces/{trace}/spans/{span}" if known else None, _entries(_object(link.get("attributes"))))  # fmt: skip


def _object(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _objects(value: object) -> list[dict[str, Any]]:
    several = cast("list[object]", value) if isinstance(value, list) else []
    return [cast("dict[str, Any]", one) for one in several if isinstance(one, dict)]
