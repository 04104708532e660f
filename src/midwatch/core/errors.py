"""The errors of Midwatch's server side, one tree.

    MidwatchError
      + FleetFileError     the fleet file cannot be used: line, key, what was expected
      + SetupError         host or data directory cannot be used: port, permissions, disk, lock
      + StoreError         the store refused; `permanent` tells whether a retry may help
      + LinkError          a post could not reach another
      + DeliveryError      a notification was not delivered
      + UnknownIncident    no incident has this id

Each message says what, the value, and what to do next.
"""

from __future__ import annotations


class MidwatchError(Exception):
    """Something a person should read. `permanent` is True when a retry cannot help."""

    permanent = True


class FleetFileError(MidwatchError):
    """The fleet file cannot be used."""

    def __init__(self, problems: list[Problem], file: str = "midwatch.yaml") -> None:
        self.problems = problems
        self.file = file
        super().__init__("\n".join(p.render(file) for p in problems))


class Problem:
    """One thing that is wrong in the fleet file: where it is, and what to do."""

    __slots__ = ("column", "key", "line", "message")

    def __init__(self, line: int, column: int, key: str, message: str) -> None:
        self.line = line
        self.column = column
        self.key = key
        self.message = message

    def render(self, file: str) -> str:
        """Return `file:line:column: key: message`, the form that editors can jump to."""
        key = f"{self.key}: " if self.key else ""
        return f"{file}:{self.line}:{self.column}: {key}{self.message}"


class SetupError(MidwatchError):
    """Host or data directory cannot be used as it is."""


class StoreError(MidwatchError):
    """The store could not do what was asked."""

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent


class LinkError(MidwatchError):
    """A post could not reach another one."""

    permanent = False


class DeliveryError(MidwatchError):
    """A notification was not delivered."""

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent


class UnknownIncident(MidwatchError):
    """No incident has this id."""

    def __init__(self, incident_id: str) -> None:
        self.incident_id = incident_id
        super().__init__(f"no incident has the id {incident_id[:80]!r}; see midwatch incidents")
