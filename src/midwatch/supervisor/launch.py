"""What a run of an agent is started with: command, environment, directory, limits, walls."""

from __future__ import annotations

from collections.abc import Callable

from midwatch.core.bounds import tasks_of
from midwatch.supervisor.change.worktree import moved
from midwatch.supervisor.duty import Helm
from midwatch.supervisor.machine.system import Caps, Exit, Launch
from midwatch.supervisor.surroundings import Surroundings


def launch_of(
    helm: Helm,
    around: Surroundings,
    run_id: str,
    on_output: Callable[[bytes], None],
    on_exit: Callable[[Exit], None],
) -> Launch:
    """Return how the next run of an agent begins. Raises SetupError and StartError."""
    agent = helm.agent
    assert agent.command is not None
    limits = agent.limits
    placed = around.versions.placed.get(helm.name) if around.versions is not None else None
    launch = Launch(
        command=agent.command if placed is None else moved(agent.command, placed),
        env=around.environment(helm.name, agent, run_id),
        cwd=around.directory(agent) if placed is None else placed.directory,
        run_id=run_id,
        on_output=on_output,
        on_exit=on_exit,
        caps=Caps(
            open_files=limits.open_files,
            file_bytes=limits.disk,
            memory_bytes=limits.memory,
            processes=tasks_of(limits.processes),
            cpu_weight=limits.cpu_weight,
        ),
        agent=helm.name,
        tty=agent.tty,
    )
    walls = around.walls
    return walls.put_around(helm, launch) if walls else launch
