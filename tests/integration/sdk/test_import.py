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
        midwatch.init
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


def test_nothing_of_the_sdk_is_loaded_before_it_is_used_and_then_all_of_it_but_spawn() -> None:
    answer = alone(
        """
        import sys
        sys.path.insert(0, sys.argv[1])
        import midwatch
        first = sorted(name for name in sys.modules if name.startswith("midwatch"))
        midwatch.beat
        loaded = [name for name in midwatch.__all__ if name not in vars(midwatch)]
        from midwatch import spawn
        print(first, loaded, "subprocess" in sys.modules)
        """
    )
    assert answer == "['midwatch'] ['spawn'] True"


def test_every_public_name_is_there_however_it_is_asked_for() -> None:
    answer = alone(
        """
        import sys
        sys.path.insert(0, sys.argv[1])
        import midwatch
        print(set(midwatch.__all__) <= set(dir(midwatch)), end=" ")
        print(hasattr(midwatch, "nonsense"), end=" ")
        try:
            from midwatch import nonsense
        except ImportError as error:
            print("nonsense" in str(error), end=" ")
        from midwatch import *
        print(all(globals()[name] is getattr(midwatch, name) for name in midwatch.__all__))
        """
    )
    assert answer == "True False True True"


def test_what_a_test_puts_in_a_names_place_stays_until_it_is_taken_away() -> None:
    answer = alone(
        """
        import sys
        sys.path.insert(0, sys.argv[1])
        import midwatch
        midwatch.beat = "mine"
        midwatch.cycle
        print(midwatch.beat, end=" ")
        del midwatch.beat
        print(midwatch.beat.__name__)
        """
    )
    assert answer == "mine beat"


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
        mw.init  # from here on all of the SDK is there
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
