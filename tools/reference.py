"""Writes the tables of docs/reference that come from the code's own tables.

    python tools/reference.py            # rewrites what stands between the markers
    python tools/reference.py --check    # exit 1 when a page is not what the code says

A page keeps its hand-written text; a generated table stands between
`<!-- generated: NAME -->` and `<!-- end -->`. Run by `make docs`; the architecture tests check.
"""

from __future__ import annotations

import ast
import itertools
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src" / "midwatch"
PAGES = ROOT / "docs" / "reference"
BLOCK = re.compile(r"(<!-- generated: ([a-z -]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def _constants(path: Path) -> list[tuple[str, str, str]]:
    """Return (name, value, sentence) of the named limits in a file: a constant, then its docstring."""
    rows: list[tuple[str, str, str]] = []
    body = ast.parse(path.read_text(encoding="utf-8")).body
    for node, after in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name, value = node.targets[0].id, node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            name, value = node.target.id, node.value
        else:
            continue
        if not re.fullmatch(r"[A-Z][A-Z0-9_]+", name) or isinstance(value, ast.Dict):
            continue
        said = ""
        if (
            isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            said = " ".join(after.value.value.split())
        rows.append((name, ast.unparse(value), said))
    return rows


def limits() -> str:
    """Return one table per file named limits.py, in the order of the rooms."""
    parts: list[str] = []
    for path in sorted(
        (p for p in SRC.rglob("limits.py") if p.parent.name != "duties"),
        key=lambda p: (p.parent.name != "wire", str(p)),
    ):
        room = path.parent.relative_to(SRC).as_posix()
        parts.append(f"\n## {room}\n\n| limit | value | meaning |\n| --- | --- | --- |")
        parts += [f"| `{n}` | `{v}` | {_cell(s)} |" for n, v, s in _constants(path)]
    return "\n".join(parts) + "\n\n"


def items() -> str:
    """Return one table per kind of item, from `wire.items.FIELDS`."""
    from midwatch.wire.items import FIELDS, PATHS

    parts: list[str] = []
    for kind, fields in FIELDS.items():
        parts.append(
            f"\n## {kind.value}: `POST {PATHS[kind]}`\n\n| field | meaning |\n| --- | --- |"
        )
        for name, spec in fields.items():
            must = " (required)" if spec.required else ""
            parts.append(f"| `{name}`{must} | {_cell(spec.about)} |")
    return "\n".join(parts) + "\n\n"


def counters() -> str:
    """Return the hub's counters, losses marked, from `core.counts`."""
    from midwatch.core.counts import COUNTERS

    parts = ["\n| metric | label | counts | a loss |\n| --- | --- | --- | --- |"]
    for name, counter in COUNTERS.items():
        label = f"`{counter.label}`" if counter.label else ""
        loss = "yes" if counter.loss else ""
        parts.append(f"| `midwatch_{name}_total` | {label} | {_cell(counter.about)} | {loss} |")
    return "\n".join(parts) + "\n\n"


def gateway_metrics() -> str:
    """Return the gateway's metrics, losses marked, from `gateway.metrics`."""
    from midwatch.gateway.metrics import table

    parts = ["\n| metric | labels | means | a loss |\n| --- | --- | --- | --- |"]
    for name, label, about, loss in table():
        labels = ", ".join(f"`{one.strip()}`" for one in label.split(",") if one.strip())
        parts.append(f"| `{name}` | {labels} | {_cell(about)} | {'yes' if loss else ''} |")
    return "\n".join(parts) + "\n\n"


def sdk_environment() -> str:
    """Return the variables that the SDK reads, from its own table."""
    from midwatch.sdk.settings import TABLE

    rows = "\n".join(f"| `{name}` | {_cell(about)} |" for name, about in TABLE)
    return f"\n| variable | meaning |\n| --- | --- |\n{rows}\n\n"


_SECTIONS = {
    "": "Fleet",
    "agents.NAME": "Agent",
    "agents.NAME.heartbeat": "Heartbeat",
    "agents.NAME.restart": "Restart",
    "agents.NAME.limits": "Limits",
    "agents.NAME.children": "Children",
    "agents.NAME.sandbox": "Sandbox",
    "agents.NAME.budget": "Budget",
    "agents.NAME.calls": "Calls",
    "agents.NAME.loop": "Loop",
    "agents.NAME.schedule": "Schedule",
    "agents.NAME.verify[]": "Verify",
    "budgets[]": "SharedBudget",
    "groups.NAME": "Group",
    "models": "Models",
    "models.providers.NAME": "Provider",
    "models.providers.NAME.keys[]": "ProviderKey",
    "models.chains.NAME[]": "Link",
    "models.timeouts": "Timeouts",
    "models.retries": "Retries",
    "models.breaker": "Breaker",
    "models.about.NAME": "About",
    "models.policy[]": "PolicyRule",
    "models.limits": "CallLimits",
    "routes[]": "Route",
    "hub": "HubListen",
    "hub.keep": "Keep",
    "hub.keep.agents.NAME": "AgentKeep",
    "hub.sample[]": "SampleRule",
    "hub.forward.NAME": "ForwardTarget",
    "hub.stores": "Stores",
    "gateway": "GatewayListen",
}
"""Where each model of `core.fleet` stands in the file; `defaults` takes the keys of an agent."""

_NOT_IN_THE_FILE = {"root"}


def fleet_file() -> str:
    """Return one table per part of the fleet file, from the published JSON schema."""
    from midwatch.core.fleet import Fleet

    schema = Fleet.model_json_schema()
    models = {**schema["$defs"], "Fleet": schema}
    missing = set(models) - set(_SECTIONS.values()) - {"Defaults"}
    if missing:
        raise SystemExit(f"tools/reference.py: name the place of {sorted(missing)} in _SECTIONS")
    parts: list[str] = []
    for place, model in _SECTIONS.items():
        shape = models[model]
        title = f"`{place}`" if place else "Top level"
        about = " ".join(shape.get("description", "").split()) + _later(place, section=True)
        parts.append(f"\n## {title}\n\n{about}\n")
        parts.append("| key | takes | default | meaning |\n| --- | --- | --- | --- |")
        required = shape.get("required", [])
        for key, spec in shape["properties"].items():
            if key in _NOT_IN_THE_FILE:
                continue
            takes, quantity = _takes(spec)
            default = "required" if key in required else _default(spec.get("default"), quantity)
            about = spec.get("description") or _about(spec, models)
            about += _later(f"{place}.{key}".lstrip("."))
            parts.append(f"| `{key}` | {_cell(takes)} | {default} | {_cell(about)} |")
    return "\n".join(parts) + "\n\n"


def _later(name: str, *, section: bool = False) -> str:
    """Return what this version makes of a key, or a whole section, that a later one will enforce."""
    from midwatch.core.fleetfile.reader import LATER

    for key, note in LATER.items():
        inside = section and re.match(rf"{re.escape(key)}[.\[]", name)
        if name == key or name.endswith(f".{key}") or inside:
            return f" **It {note}.**"
    return ""


def _about(spec: dict[str, Any], models: dict[str, Any]) -> str:
    """Return the sentence of the part that a key opens."""
    name = _refers(spec)
    return " ".join(models[name].get("description", "").split()) if name else ""


def _refers(spec: dict[str, Any]) -> str | None:
    for choice in (spec, *spec.get("anyOf", [])):
        if "$ref" in choice:
            return str(choice["$ref"]).rpartition("/")[2]
    return None


def _takes(spec: dict[str, Any]) -> tuple[str, str]:
    """Return what a key takes, in words, and the name of its quantity."""
    if _refers(spec):
        return "a part of its own, below", ""
    choices = [c for c in spec.get("anyOf", [spec]) if c.get("type") != "null"]
    choice = {**choices[0], "title": choices[0].get("title", "")}
    if "enum" in choice:
        return " · ".join(f"`{v}`" for v in choice["enum"]), ""
    if "const" in choice:
        return f"`{choice['const']}`", ""
    if choice.get("examples"):
        # our own quantities carry a lower-case title: a duration, a size
        example = ", ".join(f"`{e}`" for e in choice["examples"][:2])
        return f"{choice['title']}: {example}", choice["title"]
    words = {"string": "text", "integer": "a whole number", "boolean": "true or false"}
    words |= {"number": "a number", "array": "a list", "object": "names and values"}
    return words.get(choice.get("type", ""), "anything"), ""


def _default(value: Any, quantity: str) -> str:
    if value is None or value in ({}, []):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if quantity == "a range":
        return f"`{_duration(value[0])}..{_duration(value[1])}`"
    if quantity == "a duration":
        return f"`{_duration(value)}`"
    if quantity == "money":
        return f"`${value / 1e9:.2f}`"
    if quantity == "a ratio":
        return f"`{value:.0%}`" if value <= 1 else f"`{value:g}x`"
    if quantity == "a size":
        return f"`{_size(value)}`"
    if isinstance(value, list):
        return f"`[{', '.join(map(str, value))}]`"
    return "see below" if isinstance(value, dict) else f"`{value}`"


def _size(value: int) -> str:
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if value % 1024**power == 0:
            return f"{value // 1024**power}{unit}"
    return f"{value}B"


def _duration(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"


def commands() -> str:
    """Return one section per command, from the objects that parse the command line."""
    from typer.main import get_command

    from midwatch.cli.app import COMMANDS, build

    root = get_command(build())
    order = {name: place for place, name in enumerate(COMMANDS)}
    parts: list[str] = []
    known: dict[str, Any] = getattr(root, "commands", {})
    for name in sorted(known, key=lambda n: order.get(n, len(order))):
        command = known[name]
        inner: dict[str, Any] = getattr(command, "commands", {})
        for word, one in {name: command, **{f"{name} {n}": c for n, c in inner.items()}}.items():
            alone = getattr(one, "invoke_without_command", False)
            if one.hidden or (word == name and inner and not alone):
                continue
            parts.append(_command(f"midwatch {word}", one))
    return "\n".join(parts) + "\n\n"


def _command(word: str, command: Any) -> str:
    """Return a command's section: usage, what it does, its options."""
    context = command.context_class(command, info_name=word)
    usage = " ".join([word, *command.collect_usage_pieces(context)])
    about = (command.help or "").partition("\f")[0].strip()
    lines = [f"\n## `{word}`\n", f"    {usage}\n", about]
    rows = [record for p in command.params if (record := p.get_help_record(context)) is not None]
    if rows:
        lines.append("\n| argument | meaning |\n| --- | --- |")
        lines += [
            f"| `{_cell(' '.join(n.split()))}` | {_cell(' '.join(h.split()))} |" for n, h in rows
        ]
    return "\n".join(lines)


def ends() -> str:
    """Return the classes of ends with their sentences, from `core.ends`."""
    from midwatch.core.ends import EXPECTED, End

    tree = ast.parse((SRC / "core" / "ends.py").read_text(encoding="utf-8"))
    body = next(n for n in tree.body if isinstance(n, ast.ClassDef)).body
    said: dict[str, str] = {}
    for node, after in itertools.pairwise(body):
        if isinstance(node, ast.Assign) and isinstance(after, ast.Expr):
            said[ast.unparse(node.targets[0])] = ast.literal_eval(after.value)
    rows = [
        f"| `{end.value}` | {_cell(said[end.name])} | {'no' if end in EXPECTED else 'yes'} |"
        for end in End
    ]
    return "\n| `end` | the run | a failure |\n| --- | --- | --- |\n" + "\n".join(rows) + "\n\n"


def end_texts() -> str:
    """Return what is recognised in the last output, from `core.endrows`."""
    from midwatch.core.endrows import ROWS

    rows = [f"| `{row.end.value}` | {_cell(row.about)} | `{row.name}` |" for row in ROWS]
    return (
        "\n| `end` | what is recognised | row |\n| --- | --- | --- |\n" + "\n".join(rows) + "\n\n"
    )


def understood() -> str:
    """Return one table per dialect: columns of a span and the keys that fill them, first come first."""
    from midwatch.core.spans.columns import SPAN_COLUMNS
    from midwatch.core.spans.family import Family
    from midwatch.core.spans.understanding import Interpreter

    parts: list[str] = []
    shared = dict[str, object]()
    for family in reversed(Interpreter().families):
        assert isinstance(family, Family)
        keys: dict[str, list[str]] = {}
        for key, slot in family.slots.items():
            # every family understands the standard's names, too: they stand there alone
            if key in shared and slot.read is shared[key]:
                continue
            if slot.content is not None:
                keys.setdefault(f"content: {slot.content.name.lower()}", []).append(key)
            elif slot.column is not None and slot.column < len(SPAN_COLUMNS):
                keys.setdefault(SPAN_COLUMNS[slot.column].name, []).append(key)
        for prefix, kind in family.folds.items():
            keys.setdefault(f"content: {kind.name.lower()}", []).append(f"{prefix}.*")
        keys.setdefault("tags", []).extend(f"{prefix}*" for prefix in family.tags)
        if family.name == "gen_ai":
            shared = {key: slot.read for key, slot in family.slots.items()}
        parts.append(f"\n## {family.name}\n\n| column | keys |\n| --- | --- |")
        parts += [
            f"| {name} | {', '.join(f'`{key}`' for key in found)} |"
            for name, found in keys.items()
            if found
        ]
    return "\n".join(parts) + "\n\n"


def emitters() -> str:
    """Return what has been recorded, in which versions, from the recordings' own words."""
    lines = ["\n| recording | made by | on |\n| --- | --- | --- |"]
    for path in sorted((ROOT / "tests" / "emitters" / "recordings").glob("*.json")):
        about = json.loads(path.read_text(encoding="utf-8"))
        # our own version is that of this page
        made = ", ".join(f"{n} {v}" for n, v in about["versions"].items() if n != "midwatch")
        lines.append(f"| {about['emitter']} | {made} | {about['recorded']} |")
    return "\n".join(lines) + "\n\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").strip()


TABLES: dict[str, Callable[[], str]] = {
    "limits": limits,
    "items": items,
    "fleet-file": fleet_file,
    "commands": commands,
    "sdk-environment": sdk_environment,
    "counters": counters,
    "gateway-metrics": gateway_metrics,
    "ends": ends,
    "end-texts": end_texts,
    "understood": understood,
    "emitters": emitters,
}


def render(text: str) -> str:
    """Return the page with each generated block as the code says it now."""
    return BLOCK.sub(lambda m: m[1] + TABLES[m[2]]() + m[3], text)


def main(arguments: list[str]) -> int:
    stale: list[str] = []
    for page in sorted(PAGES.glob("*.md")):
        old = page.read_text(encoding="utf-8")
        new = render(old)
        if new != old:
            stale.append(page.relative_to(ROOT).as_posix())
            if "--check" not in arguments:
                page.write_text(new, encoding="utf-8")
    if stale and "--check" in arguments:
        print(f"not what the code says: {', '.join(stale)}; run make docs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
