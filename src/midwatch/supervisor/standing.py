"""Where a process stands: for whoever wants to know why it hangs, or whether it waits for a person."""

from __future__ import annotations

from midwatch.supervisor import procfs
from midwatch.supervisor.procfs import Stat
from midwatch.supervisor.system import Standing


def stand(own: Stat, others: list[Stat], terminal: int) -> Standing:  # noqa: ARG001
    return Standing(own.state, procfs.waits_in(own.pid) or "")
