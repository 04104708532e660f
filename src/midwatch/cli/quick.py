"""Orders that are written plainly are given before the command line of all the other commands is loaded.

`midwatch kill AGENT` is the kill switch: a fifth of a second of loading is most of the time that it would take.
What is not plain is none of this file's business: help, groups, a typing mistake. Nothing on the way to the order
loads more than sockets and JSON; what prints its receipt is loaded after it (tests/integration/cli/test_quick.py).
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

VERBS: Final = frozenset(("suspend", "resume", "kill"))
_VALUED: Final = ("--data", "--url")


def order(arguments: list[str]) -> int | None:
    """Give the order and return the exit code; None: the whole command line is to read it.

    Raises CommandError.
    """
    if not arguments or arguments[0] not in VERBS:
        return None
    if any(name.endswith("_COMPLETE") for name in os.environ):
        return None
    agents: list[str] = []
    given: dict[str, str] = {}
    as_json = False
    words = iter(arguments[1:])
    for word in words:
        name, equals, value = word.partition("=")
        if word == "--json":
            as_json = True
        elif name in _VALUED:
            value = value if equals else next(words, "-")
            if not value or value.startswith("-"):
                return None
            given[name] = value
        elif word.startswith("-") or not word:
            return None
        else:
            agents.append(word)
    if not agents:
        return None
    from midwatch.cli.client import Hub
    from midwatch.cli.instance import find
    from midwatch.cli.orders import act

    data = given.get("--data") or os.environ.get("MIDWATCH_DATA")
    found = find(data or None, given.get("--url"))
    return act(arguments[0], agents, Hub(found), as_json)
