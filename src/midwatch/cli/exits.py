"""How a command ends when it does not end well. Exit codes are CONTRACT."""

from __future__ import annotations

from midwatch.core.errors import MidwatchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

DONE: Final = 0
BAD: Final = 1  # the thing asked about is bad
USAGE: Final = 2  # usage or configuration
UNREACHABLE: Final = 3  # cannot reach the hub


class CommandError(MidwatchError):
    """What the command could not do, and what to do about it; ends it with `code`."""

    def __init__(self, message: str, code: int = USAGE) -> None:
        super().__init__(message)
        self.code = code


class ReaderGone(Exception):
    """Whoever read the output had enough of it (`| head`): the command is over, and went well."""
