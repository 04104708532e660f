"""Print the version."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed

import typer

from midwatch.cli import show


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command("version")(version)


def version() -> None:
    """Print the version of Midwatch and of the Python that runs it."""
    try:
        number = installed("midwatch")
    except PackageNotFoundError:
        number = "from a checkout"
    show.out(f"midwatch {number} (Python {platform.python_version()})")
