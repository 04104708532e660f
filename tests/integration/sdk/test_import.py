"""What `import midwatch` brings into an agent: little, and nothing of ours that is large."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import midwatch

SOURCE = Path(midwatch.__file__).resolve().parents[1]

MOST_MODULES = 60


def alone(program: str) -> str:
    """Run a program with the interpreter's own modules and our source, and nothing else."""
    done = subprocess.run(
        [sys.executable, "-S", "-s", "-I", "-c", textwrap.dedent(program), str(SOURCE)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.strip()


def test_the_import_is_small_and_of_the_standard_library_only() -> None:
    modules = alone(
        """
        import sys
        sys.path.insert(0, sys.argv[1])
        before = set(sys.modules)
        import midwatch
        print(*sorted(set(sys.modules) - before))
        """
    ).split()
    assert "midwatch.sdk.cycle" in modules
    assert len(modules) < MOST_MODULES
    heavy = {"asyncio", "dataclasses", "http.client", "inspect", "json", "logging", "re", "socket"}
    heavy |= {
        "ssl",
        "typing",
        "urllib.parse",
        "uuid",
        "midwatch.sdk.transport",
        "midwatch.wire.items",
    }
    assert not heavy & set(modules)


def test_all_of_the_sdk_works_with_the_standard_library_alone() -> None:
    answer = alone(
        """
        import sys
        sys.path.insert(0, sys.argv[1])
        import midwatch as mw
        mw.init("inbox", url="http://127.0.0.1:9", spool="/dev/null/x", track=("openai",))
        with mw.cycle(): mw.event("e", {"x": 1})
        mw.flush(0.5)
        from midwatch.testing import recording
        print(mw.statistics()["held"])
        """
    )
    assert int(answer) >= 2


def test_without_a_hub_nothing_is_started_opened_or_loaded() -> None:
    answer = alone(
        """
        import sys, threading
        sys.path.insert(0, sys.argv[1])
        import midwatch as mw
        import inspect
        before = set(sys.modules)
        mw.init(track=("openai", "anthropic"))
        with mw.cycle() as cycle, mw.session("s"), mw.turn():
            cycle.usage(tokens=1)
            mw.step("x", 3); mw.beat(); mw.outcome("success"); mw.event("e", {}); mw.draining()
        mw.progress(1, 2)
        mw.flush()
        loaded = {name for name in set(sys.modules) - before if not name.startswith("midwatch")}
        sockets = [name for name in ("socket", "http.client", "logging") if name in sys.modules]
        print(threading.active_count(), sockets, len(sys.meta_path), sorted(loaded))
        """
    )
    assert answer == "1 [] 3 []"


def test_names_do_no_harm_while_the_interpreter_ends() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent(
                """
                import atexit, midwatch as mw
                class Late:
                    def __del__(self):
                        with mw.cycle(): mw.event("late"); mw.beat(); mw.flush(); mw.init("again")
                atexit.register(lambda: mw.event("after the end"))
                mw.init("inbox", url="http://127.0.0.1:9", spool="/dev/null/x")
                late = Late()
                late.itself = late
                print("fine")
                """
            ),
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    assert done.stdout == "fine\n"
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
