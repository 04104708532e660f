"""Writes the tables of docs/reference that come from the code's own tables.

    python tools/reference.py            # rewrites what stands between the markers
    python tools/reference.py --check    # exit 1 when a page is not what the code says

A page keeps its hand-written text; a generated table stands between
`<!-- generated: NAME -->` and `<!-- end -->`. Run by `make docs`; the architecture tests check.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable
from pathlib import Path

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
        if not re.fullmatch(r"[A-Z][A-Z0-9_]+", name):
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
    for path in sorted(SRC.rglob("limits.py"), key=lambda p: (p.parent.name != "wire", str(p))):
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


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").strip()


TABLES: dict[str, Callable[[], str]] = {"limits": limits, "items": items}


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
