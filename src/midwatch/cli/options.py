"""Options that several commands share, said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        envvar="MIDWATCH_DATA",
        metavar="DIR",
        help="Data directory of the instance. Default: ~/.local/share/midwatch.",
        show_default=False,
    ),
]
Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="Address of a hub elsewhere; its token is read from MIDWATCH_TOKEN.",
        show_default=False,
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else.")
]
File = Annotated[
    Path,
    typer.Option("--file", "-f", metavar="FILE", help="The fleet file."),
]
FILE = Path("midwatch.yaml")
