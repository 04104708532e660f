"""Run the rehearsal model: `python -m midwatch.drills.rehearsal --listen HOST:PORT`.

Prints one line on stdout when it listens. Ends with 0 on SIGTERM or SIGINT, with 2 when the address
or the script cannot be used.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from midwatch.drills.rehearsal.answering import CALL_HEADER
from midwatch.drills.rehearsal.model import Rehearsal
from midwatch.drills.rehearsal.script import ScriptError, load


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    host = host.strip("[]")
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise argparse.ArgumentTypeError(f"expected HOST:PORT such as 127.0.0.1:8790, got {text!r}")
    return host, int(port)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m midwatch.drills.rehearsal",
        description="A local model that answers OpenAI, Anthropic and Gemini clients from scripts.",
    )
    parser.add_argument("--listen", type=_address, default=("127.0.0.1", 8790), metavar="HOST:PORT")
    parser.add_argument("--port", type=int, metavar="N", help="short for --listen 127.0.0.1:N")
    parser.add_argument("--script", type=Path, metavar="FILE", help="rules in YAML or JSON")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="other seed, other answers"
    )
    parser.add_argument(
        "--call-header",
        default=CALL_HEADER,
        metavar="NAME",
        help="the request header by which a client names its call on the bill",
    )
    parser.add_argument(
        "--check", action="store_true", help="read the script, say what is wrong, end"
    )
    return parser


async def _serve(model: Rehearsal, host: str, port: int) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        url = await model.start(host, port)
    except (OSError, OverflowError) as error:
        sys.stderr.write(
            f"cannot listen on {host}:{port}: {error}; choose another with --listen HOST:PORT\n"
        )
        return 2
    sys.stdout.write(f"rehearsal model listening on {url}\n")
    sys.stdout.flush()
    await stop.wait()
    await model.close()
    return 0


def main(argv: list[str] | None = None) -> int:
    """Return the exit code."""
    options = _parser().parse_args(argv)
    host, port = options.listen if options.port is None else ("127.0.0.1", options.port)
    try:
        script = None if options.script is None else load(options.script)
    except ScriptError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if options.check:
        return 0
    model = Rehearsal(script, seed=options.seed, call_header=options.call_header)
    return asyncio.run(_serve(model, host, port))


if __name__ == "__main__":
    sys.exit(main())
