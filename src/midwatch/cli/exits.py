"""How a command ends when it does not end well. Exit codes are CONTRACT."""

from __future__ import annotations

from typing import Final

from midwatch.core.errors import MidwatchError

DONE: Final = 0
BAD: Final = 1  # the thing asked about is bad
USAGE: Final = 2  # usage or configuration
UNREACHABLE: Final = 3  # cannot reach the hub


class CommandError(MidwatchError):
    """What the command could not do, and what to do about it; ends it with `code`."""

    def __init__(self, message: str, code: int = USAGE) -> None:
        super().__init__(message)
        self.code = code
