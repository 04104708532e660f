"""What attributes mean: from a span's keys to its columns and contents, by the dialects, once for each set of keys.

Instrumentations send the same keys over and over. For each list of keys that is met a plan is made: which family
speaks here, which attribute fills which column, what is a content, what stays. A span is then read by its plan in
one pass without looking at a key again. Plans are forgotten when there are too many of them.

Every attribute stays: as itself, as a content under its key, or in a column that gives it back (`restored`).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast

from midwatch.core.contamination import Kind
from midwatch.core.spans import contents, form
from midwatch.core.spans.contents import Said
from midwatch.core.spans.dialect import (
    Attribute,
    Dialect,
    Event,
    attribute,
    events_text,
    load,
)
from midwatch.core.spans.family import Family
from midwatch.core.spans.form import LOGS, Batch, ContentKind, Rank, Row
from midwatch.core.spans.judging import evaluations, flag, judge, read_events
from midwatch.core.spans.limits import MAX_ATTRIBUTE, MAX_CONTENTS, MAX_LABEL
from midwatch.core.spans.looking import Entered, Looker
from midwatch.core.spans.plans import Plan, make
from midwatch.core.spans.reading import PENDING, PENDING_PARENT, ROOM, SCRATCH, label
from midwatch.core.spans.standard import COMMON
from midwatch.core.spans.values import Value, dump, load_all

ORDER: Final = (
    "midwatch",
    "mcp",
    "langfuse",
    "openinference",
    "traceloop",
    "vercel",
    "logfire_agents",
    "logfire",
    "gen_ai",
)
"""Who is asked first. Spans carry keys of several families: the narrower one knows what the wider one cannot."""

MAX_PLANS: Final = 512
"""Lists of keys that are remembered; one more and all are forgotten."""

MAX_PLANNED: Final = 96
"""Keys of a list that is remembered; longer ones seldom come twice."""

MAX_TAGS: Final = 32
"""Tags of one span; what follows stays an attribute."""

UNKNOWN: Final = Family("none", COMMON)
"""For spans that no family claims."""


class Interpreter:
    """The `Understanding` of all dialects. Counts in `lost` what limits took. `entered` is shared by several."""

    def __init__(
        self, dialects: Mapping[str, Dialect] | None = None, entered: Entered | None = None
    ) -> None:
        known = dict(load() if dialects is None else dialects)
        first = [known.pop(name) for name in ORDER if name in known]
        self.families: tuple[Dialect, ...] = (*known.values(), *first)
        self.lost: Counter[str] = Counter()
        self.looker = Looker(entered)
        self._plans: dict[tuple[str, str, tuple[str, ...]], Plan] = {}

    def scope(self, name: str, version: str, resource: Mapping[str, Value]) -> Interpretation:
        """Return the reading for one scope of a request."""
        return Interpretation(self, name, version, resource)

    def plan(self, scope: str, version: str, keys: tuple[str, ...]) -> Plan:
        """Return how spans of this scope with these keys are read."""
        what = (scope, version, keys)
        plan = self._plans.get(what)
        if plan is None:
            plan = make(self._family(scope, version, keys), keys)
            if len(keys) <= MAX_PLANNED:
                if len(self._plans) >= MAX_PLANS:
                    self._plans = {}
                self._plans[what] = plan
        return plan

    def _family(self, scope: str, version: str, keys: Sequence[str]) -> Dialect:
        asked = frozenset(keys)
        for family in self.families:
            if family.claims(scope, version, asked):
                return family
        return UNKNOWN


class Interpretation:
    """Reads what one instrumentation of one resource sent."""

    __slots__ = ("_interpreter", "_run_id", "_scope", "_tags", "_tags_text", "_version")

    def __init__(
        self, interpreter: Interpreter, scope: str, version: str, resource: Mapping[str, Value]
    ) -> None:
        self._interpreter = interpreter
        self._scope, self._version = scope, version
        self._tags = {
            tag: read
            for key, tag in _RESOURCE_TAGS.items()
            if (read := _tag(resource.get(key))) is not None
        }
        self._tags_text = dump(cast("Value", self._tags)) if self._tags else None
        self._run_id = label(resource.get("midwatch.run_id"))

    def span(
        self, row: Row, attributes: Sequence[Attribute], events: Sequence[Event], batch: Batch
    ) -> None:
        """Fill the row: columns, `attributes`, `events`; put its contents into the batch. Never raises.

        A pending span of Logfire's becomes the open span that it stands for: key the row afterwards.
        """
        plan = self._interpreter.plan(
            self._scope, self._version, tuple([one.key for one in attributes])
        )
        row += ROOM
        for column, place, read in plan.single:
            found = read(attributes[place].value)
            if found is not None:
                row[column] = found
        for column, choices in plan.several:
            for place, read in choices:
                found = read(attributes[place].value)
                if found is not None:
                    row[column] = found
                    break
        family = plan.family
        row[form.DIALECT] = family.name
        said = self._hear(row, events) if events else None
        family.finish(row)
        if row[PENDING] == "pending_span":
            _open(row)
        if plan.judged:
            judge(row, evaluations(attributes, plan.judged))
        row[form.ATTRIBUTES] = _kept(row, plan, attributes, self._interpreter.lost)
        if plan.tags:
            self._tag(row, plan, attributes)
        elif self._tags_text is not None:
            row[form.TAGS] = self._tags_text
        if row[form.RUN_ID] is None:
            row[form.RUN_ID] = self._run_id
        flags: Mapping[Kind, None] | None = None
        if plan.held or plan.folds or said:
            flags = self._say(row, plan, attributes, said, batch)
        looker = self._interpreter.looker
        if flags or looker.entered.waits:
            flag(
                row,
                [
                    *(flags or ()),
                    *(kind for kind in looker.waiting(row) if kind not in (flags or ())),
                ],
            )
        if plan.dropped:
            self._interpreter.lost["attribute"] += plan.dropped
        del row[SCRATCH:]

    def _hear(self, row: Row, events: Sequence[Event]) -> list[Said]:
        """Take over the span's events, and return what was said in them."""
        kept, said = contents.parted(events)
        if any(len(one.text) > MAX_ATTRIBUTE for event in kept for one in event.attributes):
            kept = [
                event._replace(attributes=_within(event.attributes, self._interpreter.lost))
                for event in kept
            ]
        row[form.EVENTS] = events_text(kept)
        read_events(row, kept)
        return said

    def log(self, row: Row, attributes: Sequence[Attribute], batch: Batch) -> None:
        """The same of a log record: the contents of one that speaks of a span are that span's.

        The record's id must be set: its contents are known by it.
        """
        of_span = row[_L_TRACE] is not None and row[_L_SPAN] is not None
        kept: list[Attribute] = []
        said: list[Said] = []
        event = label(row[_L_EVENT]) or ""
        mark = row[_L_ID]
        for one in attributes:
            kind = contents.in_event(event, one.key) if of_span else None
            if kind is None or one.value is None or one.value == "":
                kept.append(one)
            else:
                said.append(contents.said(kind, contents.log_key(mark, one.key), one.value, event))
        kind = contents.in_body(event) if of_span else None
        if kind is not None and row[_L_BODY]:
            is_json = bool(row[_L_BODY_IS_JSON])
            key = contents.log_key(mark, "body")
            said.append(Said(kind, key, row[_L_BODY], is_json, event))
            row[_L_BODY] = row[_L_BODY_IS_JSON] = None
        row[_L_ATTRIBUTES] = _object([one.text for one in _within(kept, self._interpreter.lost)])
        if said:
            self._tell(row, said, batch)

    def _tell(self, row: Row, said: Sequence[Said], batch: Batch) -> None:
        """Put what a log record says of a span among that span's contents."""
        owner = form.SPANS.blank()
        owner[form.AGENT], owner[form.START_NS] = row[_L_AGENT], row[_L_TIME]
        owner[form.TRACE_ID], owner[form.SPAN_ID] = row[_L_TRACE], row[_L_SPAN]
        for place, one in enumerate(said[:MAX_CONTENTS]):
            made, clipped = contents.row(owner, place, one.kind.value, one)
            batch.contents.append(made)
            if clipped:
                self._interpreter.lost["clipped_content"] += 1
        self._interpreter.looker.record(owner, [(one.kind.value, one) for one in said])

    def _say(
        self,
        row: Row,
        plan: Plan,
        attributes: Sequence[Attribute],
        said: list[Said] | None,
        batch: Batch,
    ) -> Mapping[Kind, None]:
        """Put the span's contents into the batch, and what they are known by into the row. Return why it is flagged."""
        kinds = contents.kinds_of(row[form.ROLE])
        everything: list[Said] = []
        for place, kind in plan.held:
            _, value, _ = attributes[place]
            if value is not None and value != "":
                everything.append(contents.said(kind, attributes[place].key, value))
        for prefix, kind, shape, parts in plan.folds:
            text = None if shape is None else shape.filled(attributes)
            if text is not None:
                everything.append(Said(kind, prefix + contents.FOLDED, text, True))
            else:
                flat = {end: attributes[place].value for end, place in parts}
                everything.append(Said(kind, prefix + contents.FLAT, dump(flat), True))
        if said:
            everything += said
        if len(everything) > MAX_CONTENTS:
            self._interpreter.lost["contents"] += len(everything) - MAX_CONTENTS
            del everything[MAX_CONTENTS:]
        looks: list[tuple[int, Said]] = []
        for place, one in enumerate(everything):
            number = kinds.get(one.kind, one.kind.value)
            made, clipped = contents.row(row, place, number, one)
            batch.contents.append(made)
            if clipped:
                self._interpreter.lost["clipped_content"] += 1
            into = _HASHED.get(number)
            if into is not None and row[into] is None:
                row[into] = made[-1]
            looks.append((number, one))
        row[form.CONTENT_COUNT] = len(everything) or None
        return self._interpreter.looker.contents(row, looks)

    def _tag(self, row: Row, plan: Plan, attributes: Sequence[Attribute]) -> None:
        tags = dict(self._tags)
        for place, name in plan.tags:
            value = attributes[place].value
            if name:
                read = _tag(value)
                if read is not None:
                    tags.setdefault(name[:MAX_LABEL], read)
                continue
            for each in value if isinstance(value, list) else _listed(value):
                word = label(each)
                if word is not None:
                    tag, _, read = word.partition("=")
                    tags.setdefault(tag, read or "true")
        if len(tags) > MAX_TAGS:
            self._interpreter.lost["tags"] += len(tags) - MAX_TAGS
            tags = dict(list(tags.items())[:MAX_TAGS])
        row[form.TAGS] = dump(cast("Value", tags)) if tags else None


_RESOURCE_TAGS: Final = {
    "deployment.environment.name": "environment",
    "deployment.environment": "environment",
    "service.version": "version",
}

_HASHED: Final = {
    ContentKind.INPUT.value: form.INPUT_HASH,
    ContentKind.ARGUMENTS.value: form.INPUT_HASH,
    ContentKind.OUTPUT.value: form.OUTPUT_HASH,
    ContentKind.RESULT.value: form.OUTPUT_HASH,
}

# -- single spans ----------------------------------------------------------------------------------


def _kept(row: Row, plan: Plan, attributes: Sequence[Attribute], lost: Counter[str]) -> str | None:
    """Return the attributes that stay as they are, with those that their column cannot give back after all."""
    texts = [attributes[place].text for place in plan.kept]
    if texts and len(max(texts, key=len)) > MAX_ATTRIBUTE:
        texts = [one.text for one in _within([attributes[place] for place in plan.kept], lost)]
    for column, place in plan.back:
        one = attributes[place]
        if row[column] is not one.value or one.value is None:
            texts.append(one.text)
    if plan.held:
        texts += [
            attributes[place].text
            for place, _ in plan.held
            if attributes[place].value is None or attributes[place].value == ""
        ]
    return _object(texts)


def _object(texts: Sequence[str]) -> str | None:
    return "{" + ",".join(texts) + "}" if texts else None


def _within(attributes: Sequence[Attribute], lost: Counter[str]) -> list[Attribute]:
    """Return attributes none of which is longer than MAX_ATTRIBUTE: text is clipped, what is no text is dropped."""
    kept: list[Attribute] = []
    for one in attributes:
        if len(one.text) <= MAX_ATTRIBUTE:
            kept.append(one)
        elif isinstance(one.value, str):
            kept.append(attribute(one.key, one.value[: MAX_ATTRIBUTE - len(one.key)]))
            lost["clipped_attribute"] += 1
        else:
            lost["attribute"] += 1
    return kept


def _open(row: Row) -> None:
    """Turn Logfire's pending span into the span that it stands for, open.

    It is a child of that span with an id of its own, and says whose child that span is: sixteen zeros for nobody's.
    """
    if row[form.PARENT_ID] is None:
        return
    row[form.SPAN_ID] = row[form.PARENT_ID]
    try:
        parent = bytes.fromhex(row[PENDING_PARENT] or "")
    except ValueError:
        parent = b""
    row[form.PARENT_ID] = parent if len(parent) == 8 and any(parent) else None
    row[form.RANK], row[form.DURATION_NS] = Rank.OPEN.value, None


def _tag(value: Value) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)[:MAX_LABEL]
    return label(value)


def _listed(value: Value) -> list[Any]:
    """Return the words of a list that was written as JSON."""
    read = _json(value) if isinstance(value, str) and len(value) <= 8_192 else None
    return cast("list[Any]", read) if isinstance(read, list) else []


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


_L = LOGS.at
_L_AGENT, _L_TRACE, _L_SPAN, _L_TIME = (_L["agent"], _L["trace_id"], _L["span_id"], _L["time_ns"])
_L_ID, _L_EVENT, _L_BODY, _L_BODY_IS_JSON = (
    _L["log_id"],
    _L["event"],
    _L["body"],
    _L["body_is_json"],
)
_L_ATTRIBUTES = _L["attributes"]


# -- and back --------------------------------------------------------------------------------------


def restored_log(row: Row, said: Iterable[Row]) -> tuple[dict[str, Value], str | None, bool]:
    """Return a log record's attributes, its body, and whether that is JSON, as they came.

    `said` are the contents of the span that it speaks of.
    """
    found = load_all(row[_L_ATTRIBUTES])
    body, is_json = row[_L_BODY], bool(row[_L_BODY_IS_JSON])
    start = contents.log_key(row[_L_ID], "")
    for content in said:
        key = cast("str", content[contents.KEY])
        if key == f"{start}body":
            body, is_json = content[contents.TEXT], content[contents.IS_JSON]
        elif key.startswith(start):
            found[key[len(start) :]] = contents.value(content)
    return found, body, is_json


def restored(row: Row, said: Sequence[Row], families: Mapping[str, Dialect]) -> dict[str, Value]:
    """Return the attributes that a span came with: those that stayed, its contents, and what columns give back.

    `said` are its contents, `families` the dialects by name. What has expired is not there.
    """
    found = load_all(row[form.ATTRIBUTES])
    family = families.get(row[form.DIALECT] or "", UNKNOWN)
    named: set[int | None] = set()
    for key in found:
        slot = family.slots.get(key)
        if slot is not None:
            named.add(slot.column)
    for key, slot in family.slots.items():
        column = slot.column
        if (
            slot.gives_back
            and column is not None
            and column not in named
            and row[column] is not None
        ):
            found[key] = row[column]
    found.update(contents.attributes(said))
    return found
