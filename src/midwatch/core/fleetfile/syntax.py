"""What is wrong with text that is not YAML, in the words of someone who never read its specification."""

from __future__ import annotations

import re
from typing import Any

import yaml

from midwatch.core.errors import Problem
from midwatch.core.units import shorten


def explain(error: yaml.YAMLError, text: str) -> Problem:
    """Return where reading stopped, and the likeliest reason."""
    position = getattr(error, "position", None)
    if isinstance(position, int):  # a ReaderError
        before = text[:position]
        return Problem(
            before.count("\n") + 1,
            position - (before.rfind("\n") + 1) + 1,
            "",
            f"the character {shorten(text[position : position + 1])} may not stand in YAML; remove it",
        )
    mark: Any = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = str(getattr(error, "problem", "") or error)
    context = str(getattr(error, "context", "") or "")
    if mark is None:
        return Problem(1, 1, "", f"not valid YAML: {problem}")
    line = "".join(text.splitlines()[mark.line : mark.line + 1])
    start = getattr(getattr(error, "context_mark", None), "line", None)
    return Problem(mark.line + 1, mark.column + 1, "", _reason(problem, context, line, start))


def _reason(problem: str, context: str, line: str, start: int | None) -> str:
    first = re.search(r"found character '(.+)' that cannot start any token", problem)
    indent = line[: len(line) - len(line.lstrip())]
    if "\t" in indent or (first and first[1] == "\\t"):
        return "a tab stands where YAML expects spaces; indent with spaces"
    if first:
        return f'text that begins with {first[1]} needs quotes, such as "{first[1]}…"'
    if "alias" in context:
        return 'text that begins with * needs quotes, such as "*/5 * * * *"'
    if "anchor" in context:
        return "text that begins with & needs quotes"
    if "${" in line and "flow" in context:
        return 'put "${…}" in quotes when it stands between { } or [ ]'
    if "mapping values are not allowed" in problem:
        return (
            "a ':' stands where none may be: check that this line is indented like its neighbours, "
            "that no ':' is missing above it, and put text that contains ': ' in quotes"
        )
    since = f" (begun on line {start + 1})" if start is not None else ""
    if "flow mapping" in context:
        return f"expected , or }} in the braces{since}"
    if "flow sequence" in context:
        return f"expected , or ] in the brackets{since}"
    if "quoted scalar" in context and "escape" in problem:
        return "in \"…\" a \\ begins an escape, and this one is unknown; write \\\\, or use '…'"
    if "quoted scalar" in context:
        return f"the quotes{since} are not closed"
    if "document start" in problem:
        return "expected 'key: value'; text that begins with % needs quotes"
    if "block mapping" in context or "block collection" in context or "block sequence" in context:
        return f"this line is not indented like its neighbours{since}, or a ':' is missing"
    if "simple key" in context:
        return "expected 'key: value'; is the ':' missing?"
    detail = f"{context}: {problem}" if context else problem
    return f"not valid YAML here ({detail})"
