"""From words to a command: imports only the file of the command that was asked for.

`midwatch status` is typed many times a day and must not wait for what `midwatch up` needs.
"""

from __future__ import annotations

import os
import sys

from midwatch.cli import quick
from midwatch.cli.exits import CommandError, ReaderGone
from midwatch.core.errors import MidwatchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    import typer

COMMANDS: Final = {
    "up": "up",
    "run": "run",
    "status": "status",
    "start": "act",
    "stop": "act",
    "restart": "act",
    "suspend": "act",
    "resume": "act",
    "kill": "act",
    "reload": "reload",
    "logs": "logs",
    "attach": "attach",
    "incidents": "incidents",
    "ack": "ack",
    "check": "check",
    "drill": "drill",
    "install-service": "install_service",
    "doctor": "doctor",
    "cost": "cost",
    "traces": "traces",
    "trace": "trace",
    "sessions": "sessions",
    "sql": "sql",
    "export": "export",
    "forget": "forget",
    "trust-clock": "trust_clock",
    "migrate": "migrate",
    "prices": "prices",
    "key": "key",
    "policy": "policy",
    "token": "token",
    "link": "link",
    "version": "version",
}
"""Command to file, in the order of `--help`. Each file has `add(app)`."""


def build(names: list[str] | None = None) -> typer.Typer:
    """Return the application with some commands, or with all."""
    from importlib import import_module

    import typer

    def root(
        version: bool = typer.Option(False, "--version", help="Print the version.", is_eager=True),
    ) -> None:
        if version:
            from midwatch.cli.version import version as show_version

            show_version()
            raise typer.Exit

    app = typer.Typer(
        name="midwatch",
        help="Runs AI agents unattended and keeps the night watch over them.",
        epilog="Exit codes: 0 done, 1 the thing asked about is bad, 2 usage or configuration, 3 cannot reach the hub.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback()(root)
    for file in dict.fromkeys(COMMANDS[name] for name in names or COMMANDS):
        try:
            module = import_module(f"midwatch.cli.{file}")
        except ModuleNotFoundError as missing:
            if missing.name != f"midwatch.cli.{file}":
                raise
            continue
        module.add(app)
    return app


def run(arguments: list[str]) -> int:
    """Run the command line; return its exit code."""
    _open_streams()
    code = _run(arguments)
    from midwatch.cli import show  # when all is done but the saying: see `quick`

    try:
        with show.writing():
            sys.stdout.flush()
    except ReaderGone:
        _drop_output()
    except CommandError as error:
        show.complain(str(error))
        code = code or error.code
        _drop_output()
    return code


def _run(arguments: list[str]) -> int:
    word = next((a for a in arguments if not a.startswith("-")), "")
    completing = any(name.endswith("_COMPLETE") for name in os.environ)
    wanted = [word] if word in COMMANDS and not completing else None
    try:
        code = quick.order(arguments)
        if code is not None:
            return code
        build(wanted)(arguments, prog_name="midwatch")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 0
    except ReaderGone:
        return 0
    except MidwatchError as error:
        from midwatch.cli import show

        show.complain(str(error))
        return error.code if isinstance(error, CommandError) else 2
    return 0


def _open_streams() -> None:
    """A stream that was closed by whoever started us (`>&-`) takes what is written and keeps nothing.

    Its number must not be free either: the loop's own descriptor would get it, and a command that
    inherits our stdin would hold that."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
            os.set_inheritable(fd, True)
    if sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison]  # typeshed does not know
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123
    if sys.stderr is None:  # pyright: ignore[reportUnnecessaryComparison]
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123


def _drop_output() -> None:
    """What is still buffered goes nowhere, instead of failing once more at the interpreter's end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
