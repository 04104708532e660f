"""`midwatch`, and `python -m midwatch.cli`."""

from __future__ import annotations

import sys

_MISSING = """\
midwatch: the command line needs the package {name!r}, which comes with the extra 'server'.
Install it:  pip install "midwatch[server]"
(The SDK, `import midwatch`, works without it.)"""


def main() -> None:
    """Run the command line and exit: 0 done, 1 bad, 2 usage or configuration, 3 no hub."""
    if next((word for word in sys.argv[1:] if not word.startswith("-")), "") == "run":
        from midwatch.cli import early

        early.listen()
    try:
        from midwatch.cli.app import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # while modules are still being loaded
        code = 130
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.partition(".")[0] == "midwatch":
            raise
        print(_MISSING.format(name=missing.name), file=sys.stderr)
        code = 2
    sys.exit(code)


if __name__ == "__main__":
    main()
