"""Which agents a person means: names, `group:support`, and patterns such as `'web.*'`. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final

from midwatch.core.nearest import did_you_mean

GROUP: Final = "group:"
_WILD: Final = frozenset("*?[")


class NoneSelected(ValueError):
    """A word that selects no agent; says which one is near."""


def is_pattern(word: str) -> bool:
    """Tell whether a word may mean several agents by more than their name."""
    return word.startswith(GROUP) or bool(_WILD & set(word))


def select(word: str, agents: Mapping[str, str | None]) -> list[str]:
    """Return the agents that a word means, in the order of `agents` (name → group).

    A name is that agent, or all instances of it (`web`: web.1, web.2). Raises NoneSelected.
    """
    if word.startswith(GROUP):
        return of_group(word.removeprefix(GROUP), agents)
    if word in agents:
        return [word]
    if _WILD & set(word):
        found = [name for name in agents if fnmatchcase(name, word)]
        if not found:
            raise NoneSelected(f"no agent's name fits {word!r}{_known(agents)}")
        return found
    instances = [name for name in agents if _is_instance(name, word)]
    if instances:
        return instances
    near = did_you_mean(word, agents)
    raise NoneSelected(f"there is no agent {word!r}{near or _known(agents)}")


def of_group(group: str, agents: Mapping[str, str | None]) -> list[str]:
    """Return the agents of a group. Raises NoneSelected that names the nearest one."""
    found = [name for name, own in agents.items() if own == group]
    if found:
        return found
    groups = sorted({own for own in agents.values() if own})
    near = did_you_mean(group, groups)
    if not near:
        near = f"; known: {', '.join(groups[:20])}" if groups else "; no agent has a group"
    raise NoneSelected(f"there is no group {group!r}{near}")


def _is_instance(name: str, base: str) -> bool:
    head, dot, number = name.rpartition(".")
    return bool(dot) and head == base and number.isdigit()


def _known(agents: Mapping[str, str | None]) -> str:
    names: Sequence[str] = list(agents)[:20]
    return f"; known: {', '.join(names)}" if names else ""
