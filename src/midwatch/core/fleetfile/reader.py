"""Fleet file to fleet: text in, a resolved fleet out, or all that is wrong with it at once.

Pure: whoever calls has read the text, and hands in the environment and a way to read `${file:…}`.
Each problem has line, column, key, what was expected, what stands there, and what to do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from posixpath import join
from typing import Any, Final, cast

from pydantic import ValidationError

from midwatch.core.conditions import BadCondition, Condition
from midwatch.core.errors import FleetFileError, Problem
from midwatch.core.fleet import MAX_NAME, NAME, Fleet, GatewayListen, HubListen
from midwatch.core.fleetfile import schema, words
from midwatch.core.fleetfile.document import Document, Path, parse, show_path
from midwatch.core.nearest import did_you_mean, nearest
from midwatch.core.quantities import READING, split_listen
from midwatch.core.telemetry import SAMPLED_BY
from midwatch.core.units import shorten

FIRST_FLEET: Final = """\
agents:
  hello:
    command: [python3, -c, "import time; time.sleep(60)"]
"""
"""The smallest fleet file, for messages."""

RESERVED: Final = frozenset({"midwatch", "supervisor", "hub", "gateway", "rehearsal"})
"""Names under which Midwatch reports about itself, and of what it keeps for its own servers: the spool of an agent
called `gateway` would be the gateway's, and what it wrote there would be sent as the gateway's word."""

MAX_EXPANDED: Final = 4_000_000
"""Characters that all `${…}` together may turn into."""


@dataclass(frozen=True, slots=True)
class FleetFile:
    """A fleet, and where its parts stand in the file that it was read from."""

    fleet: Fleet
    document: Document
    notes: list[Problem]
    """What is well-formed but worth a word: keys that later versions will enforce."""


def load(
    text: str, *, file: str, root: str, env: Mapping[str, str], read_file: Callable[[str], str]
) -> Fleet:
    """Return the resolved fleet. Raises FleetFileError with everything that is wrong.

    `file` is its name in messages, `root` the directory that relative paths start from; `env` and
    `read_file` (raises OSError or UnicodeDecodeError) stand behind `${NAME}` and `${file:PATH}`.
    """
    return read(text, file=file, root=root, env=env, read_file=read_file).fleet


def read(
    text: str, *, file: str, root: str, env: Mapping[str, str], read_file: Callable[[str], str]
) -> FleetFile:
    """Return what `load` returns, with its places in the file and with notes."""
    document = parse(text)
    whole = _whole(document)
    if whole is None:
        raise FleetFileError(document.problems, file)
    _tidy(document, whole, ())
    _Expansion(document, root, env, read_file).apply(whole, ())
    _check(document, whole)
    fleet = _validate(document, whole, root)
    if document.problems or fleet is None:
        raise FleetFileError(sorted(document.problems, key=lambda p: (p.line, p.column)), file)
    return FleetFile(fleet.resolved(), document, _notes(document, fleet))


def _whole(document: Document) -> dict[str, Any] | None:
    value = cast("object", document.value)
    if isinstance(value, dict):
        return cast("dict[str, Any]", value)
    if value is not None:
        got = "a list" if isinstance(value, list) else shorten(value)
        document.complain((), f"expected 'key: value' lines, with a space after the ':', got {got}")
    elif not document.problems:
        document.problems.append(
            Problem(1, 1, "", f"the file is empty; begin with:\n\n{FIRST_FLEET}")
        )
    return None


def _validate(document: Document, whole: dict[str, Any], root: str) -> Fleet | None:
    if "root" in whole:
        document.complain(("root",), words.unknown_key(("root",), None), at_key=True)
    try:
        return Fleet.model_validate({**whole, "root": root}, context=READING)
    except ValidationError as error:
        words.describe(error, document)
        return None


def _inside(value: Any) -> Iterator[tuple[str | int, Any]]:
    """Yield the parts of a dict or list, from a copy, so that they may be replaced or removed."""
    if isinstance(value, dict):
        yield from list(cast("dict[str, Any]", value).items())
    elif isinstance(value, list):
        yield from enumerate(cast("list[Any]", value))


def _tidy(document: Document, value: Any, path: Path) -> None:
    """Undo what YAML does to bare text: words for processes, emptied sections, odd numbers."""
    for key, part in _inside(value):
        inner = (*path, key)
        entry = schema.at(inner)
        place = document.place(inner)
        if part is None and isinstance(key, str) and schema.is_section(entry):
            if len(inner) == 2 and inner[0] in ("agents", "groups"):
                value[key] = {}
            else:
                del value[key]
        elif isinstance(part, bool | int | float):
            written = place.written or ""
            if schema.is_word(entry) and place.bare:
                value[key] = written
            elif not isinstance(part, bool) and re.match(r"[-+]?0[0-9_]+$|.*:", written):
                document.complain(
                    inner,
                    f"YAML reads {written} as the number {part}; write {part}, or put it in "
                    "quotes when you mean the text",
                )
        else:
            _tidy(document, part, inner)


class _Expansion:
    """Replaces `${NAME}` and `${file:PATH}` in values, once: what comes in is not expanded again."""

    _FORM: Final = re.compile(r"\$(\$?)\{([^{}]*)(\}?)")

    def __init__(
        self,
        document: Document,
        root: str,
        env: Mapping[str, str],
        read_file: Callable[[str], str],
    ) -> None:
        self._document = document
        self._root = root
        self._env = env
        self._read_file = read_file
        self._files: dict[str, str] = {}
        self._left = MAX_EXPANDED

    def apply(self, value: Any, path: Path) -> None:
        for key, part in _inside(value):
            if not isinstance(part, str):
                self.apply(part, (*path, key))
            elif "${" in part:
                value[key] = self._expand(part, (*path, key))

    def _expand(self, text: str, path: Path) -> str:
        def replace(match: re.Match[str]) -> str:
            escaped, name, closed = match.groups()
            if escaped:
                return match[0][1:]
            if not closed:
                self._document.complain(path, "'${' is not closed by '}'; '$${' gives a plain '${'")
                return ""
            try:
                found = self._look_up(name)
            except ValueError as error:
                self._document.complain(path, str(error))
                return ""
            self._left -= len(found)
            return found if self._left >= 0 else ""

        expanded = self._FORM.sub(replace, text)
        if self._left < 0:
            self._left = MAX_EXPANDED
            self._document.complain(
                path, f"all ${{…}} together are longer than {MAX_EXPANDED} characters"
            )
        return expanded

    def _look_up(self, name: str) -> str:
        """Return what `${name}` stands for. Raises ValueError that says what to do."""
        if name.startswith("file:"):
            found = self._content(name.removeprefix("file:").strip())
        elif re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            if name not in self._env:
                near = did_you_mean(name, self._env)
                raise ValueError(
                    f"${{{name}}} is not set in the environment{near or '; set it, or export it'}"
                )
            found = self._env[name]
        else:
            raise ValueError(
                f"{shorten('${' + name + '}')} names nothing; write ${{NAME}} or ${{file:PATH}}, "
                "and $${ for a plain ${"
            )
        if re.search("[\x00\ud800-\udfff]", found):
            raise ValueError(f"${{{name}}} holds characters that are not text")
        return found

    def _content(self, path: str) -> str:
        if not path:
            raise ValueError("${file:} names no file; write ${file:PATH}")
        if path not in self._files:
            try:
                self._files[path] = self._read_file(join(self._root, path)).rstrip("\r\n")
            except UnicodeDecodeError:
                raise ValueError(f"${{file:{path}}} cannot be read: it is not UTF-8 text") from None
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                raise ValueError(f"${{file:{path}}} cannot be read: {reason}") from None
        return self._files[path]


def _check(document: Document, whole: dict[str, Any]) -> None:
    """Add what is wrong across keys. Looks at raw values, so that all is found in one go."""
    _check_agents(document, whole)
    _check_names(document, whole)
    _check_budgets(document, whole)
    _check_keep(document, whole)
    _check_routes(document, whole)
    _check_ports(document, whole)


def _mapping(whole: dict[str, Any], *path: str) -> dict[str, Any]:
    value: Any = whole
    for key in path:
        value = cast("dict[str, Any]", value).get(key) if isinstance(value, dict) else None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _check_agents(document: Document, whole: dict[str, Any]) -> None:
    if not whole.get("agents"):
        whole["agents"] = {}
        place = document.place(("agents",))
        document.problems.append(
            Problem(
                place.line,
                place.column,
                "agents",
                f"there is no agent; begin with:\n\n{FIRST_FLEET}",
            )
        )
    for name, agent in _mapping(whole, "agents").items():
        if not isinstance(agent, dict):
            continue
        entry = cast("dict[str, Any]", agent)
        misspelt = any(nearest(key, schema.keys(("agents", name))) == "command" for key in entry)
        if not misspelt and entry.get("external") is not True:
            document.complain(
                ("agents", name),
                "command is missing: write command: [program, argument…]",
                at_key=True,
            )


def _check_names(document: Document, whole: dict[str, Any]) -> None:
    paths: list[tuple[Path, str]] = [
        *((("agents", name), name) for name in _mapping(whole, "agents")),
        *((("groups", name), name) for name in _mapping(whole, "groups")),
    ]
    for path, name in paths:
        if NAME.fullmatch(name) is None:
            document.complain(path, _NOT_A_NAME.format(shorten(name)), at_key=True)
        elif path[0] == "agents" and name.casefold() in RESERVED:
            document.complain(
                path, f"the name {name!r} is Midwatch's own; choose another", at_key=True
            )
    _check_instances(document, whole)
    others: list[Path] = [("fleet",), *(("agents", n, "group") for n in _mapping(whole, "agents"))]
    for path in others:
        value = _mapping(whole, *map(str, path[:-1])).get(str(path[-1]))
        if isinstance(value, str) and NAME.fullmatch(value) is None:
            document.complain(path, _NOT_A_NAME.format(shorten(value)))


def _check_budgets(document: Document, whole: dict[str, Any]) -> None:
    """A budget of a sub-agent that no agent can have would hold for nobody, and nobody would notice."""
    agents = _mapping(whole, "agents")
    for index, entry in _inside(whole.get("budgets")):
        name = cast("dict[str, Any]", entry).get("agent") if isinstance(entry, dict) else None
        if isinstance(name, str) and name.partition(":")[0] not in agents:
            near = did_you_mean(name.partition(":")[0], agents)
            message = f"there is no agent {name.partition(':')[0]!r}{near}"
            document.complain(("budgets", index, "agent"), message)


def _check_keep(document: Document, whole: dict[str, Any]) -> None:
    """Telemetry of an agent that is misspelt here would be kept as that of all others, and nobody would notice."""
    agents = _mapping(whole, "agents")
    for name in _mapping(whole, "hub", "keep", "agents"):
        if name not in agents:
            message = f"there is no agent {name!r}{did_you_mean(name, agents)}"
            document.complain(("hub", "keep", "agents", name), message, at_key=True)


def _check_instances(document: Document, whole: dict[str, Any]) -> None:
    """Several instances are called NAME.1, NAME.2 and so on: no other agent may have such a name."""
    agents = _mapping(whole, "agents")
    for name in agents:
        count = _mapping(whole, "agents", name).get("instances")
        if not isinstance(count, int) or isinstance(count, bool) or not 1 < count <= 500:
            continue
        taken = next((f"{name}.{n}" for n in range(1, count + 1) if f"{name}.{n}" in agents), None)
        if taken is not None:
            message = (
                f"one of the {count} instances would be called {taken!r}, and so is another agent"
            )
            document.complain(("agents", name, "instances"), f"{message}; rename that one")
        if len(f"{name}.{count}") > MAX_NAME:
            document.complain(
                ("agents", name),
                f"instances are called NAME.1 and so on, which would be longer than {MAX_NAME} characters",
                at_key=True,
            )


_NOT_A_NAME: Final = (
    "expected a name of up to 63 letters, digits, dots, dashes and underscores, "
    "a letter or digit first, got {}"
)


def _check_routes(document: Document, whole: dict[str, Any]) -> None:
    targets = _mapping(whole, "notify")
    for index, route in _inside(whole.get("routes")):
        to = cast("dict[str, Any]", route).get("to") if isinstance(route, dict) else None
        if isinstance(to, str) and to not in targets and to != "console":
            known = did_you_mean(to, targets)
            if not known:
                known = f"; known: {', '.join(targets)}" if targets else "; add it there"
            document.complain(("routes", index, "to"), f"there is no {to!r} under 'notify:'{known}")


def _check_ports(document: Document, whole: dict[str, Any]) -> None:
    defaults = {
        ("hub", "listen"): HubListen().listen,
        ("gateway", "listen"): GatewayListen().listen,
    }
    taken: list[tuple[Path, str, int]] = []
    for path in (*defaults, ("hub", "otlp_http"), ("hub", "otlp_grpc")):
        value = _mapping(whole, path[0]).get(path[1], defaults.get(path))
        try:
            host, port = split_listen(value) if isinstance(value, str) else ("", 0)
        except ValueError:
            continue  # the model says so
        if port:
            taken.append((path, host, port))
    for (path, host, port), (other, its_host, its_port) in combinations(reversed(taken), 2):
        anywhere = {"0.0.0.0", "::"} & {host, its_host}  # noqa: S104  compared, not bound
        if port == its_port and (host == its_host or anywhere):
            here, there = (path, other) if path in document.places else (other, path)
            document.complain(
                here, f"port {port} is also that of {show_path(there)}; choose another"
            )


LATER: Final = {
    "verify": "is read, but what it asks for is not checked by this version",
    "tools": "is read, but tool calls are not judged by this version",
    "alerts": "is read, but conditions of your own are not evaluated by this version",
    "loop.tool_calls_per_cycle": "is read, but not judged by this version",
}
"""What the file may say already, and what this version makes of it."""


def check_conditions(source: FleetFile) -> list[Problem]:
    """Return what is wrong with the conditions of routes and of sampling.

    Apart from `load`, because it needs the engine for CEL: 30 MiB that a supervisor need not carry.
    The hub decides a route that cannot be decided in favour of telling.
    """
    words = dict.fromkeys(("fleet", "agent", "group", "kind", "severity", "sentence"), "")
    conditions: list[tuple[Path, str, Mapping[str, Any]]] = [
        *(
            (("routes", index, "match"), route.match, {**words, "count": 1})
            for index, route in enumerate(source.fleet.routes)
        ),
        *(
            (("hub", "sample", index, "when"), rule.when, SAMPLED_BY)
            for index, rule in enumerate(source.fleet.hub.sample)
        ),
    ]
    problems: list[Problem] = []
    for path, condition, names in conditions:
        try:
            Condition(condition).holds(names)
        except BadCondition as error:
            place = source.document.place(path)
            problems.append(Problem(place.line, place.column, show_path(path), str(error)))
    return problems


def _notes(document: Document, fleet: Fleet) -> list[Problem]:
    notes: list[Problem] = []
    for key, note in LATER.items():
        parts = tuple(key.split("."))
        used = [path for path in document.places if path[-len(parts) :] == parts and _is_key(path)]
        if used:
            place = document.places[min(used, key=lambda path: document.places[path].key_line)]
            notes.append(Problem(place.key_line, place.key_column, key, note))
    for name, agent in fleet.agents.items():
        if agent.group and fleet.groups and agent.group not in fleet.groups:
            near = did_you_mean(agent.group, fleet.groups)
            place = document.place(("agents", name, "group"))
            key = show_path(("agents", name, "group"))
            message = f"{agent.group!r} has no entry under 'groups:'{near}"
            notes.append(Problem(place.line, place.column, key, message))
    return sorted(notes, key=lambda note: note.line)


def _is_key(path: Path) -> bool:
    """Tell whether the last part is a key of ours, not a name that a person gave."""
    return path[-1] in schema.keys(path[:-1])
