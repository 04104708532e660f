"""An agent that misbehaves at random, another way in each life, until the file `calm` is there.

Only the standard library, and little of it: a hundred of them start many times a second. Its work
directory is on every command line, so that a test finds what it started, whatever it has done to
its environment.
"""

import os
import random
import signal
import socket
import sys
import time

WORK = os.environ["DRILL_DIR"]
CALM = os.path.join(WORK, "calm")
SLEEPER = "import sys, time; time.sleep(float(sys.argv[2]))"
STRAY_S = 15
"""How long a child lives that gave up its environment: after a kill -9 of the supervisor nobody
can tell it from a stranger."""


def beat():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.connect(os.environ["NOTIFY_SOCKET"])
        out.send(b"WATCHDOG=1")


def work(seconds=1e9):
    """Do what a good agent does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        beat()
        time.sleep(0.5)


def sleeper(seconds, env=None):
    """Become a program that only sleeps."""
    argv = [sys.executable, "-IS", "-c", SLEEPER, WORK, str(seconds)]
    os.execve(sys.executable, argv, os.environ if env is None else env)


def fork(act):
    if os.fork() == 0:
        try:
            act()
        finally:
            os._exit(0)


def in_own_session(act):
    def detached():
        os.setsid()
        fork(act)

    fork(detached)


def exit_somehow():
    time.sleep(random.uniform(0, 3))
    sys.exit(random.choice([0, 1, 2, 7, 255]))


def die_of_signal():
    time.sleep(random.uniform(0, 2))
    os.kill(os.getpid(), random.choice([signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT]))


def hang():
    beat()
    time.sleep(3600)


def leak():
    held = []
    while True:
        beat()
        held.append(bytearray(os.urandom(1 << 20) * 8))
        time.sleep(0.05)


def orphans():
    for _ in range(random.randrange(1, 4)):
        in_own_session(lambda: sleeper(3600))
    work(random.uniform(0, 2))


def strays():
    in_own_session(lambda: sleeper(STRAY_S, {}))
    work(random.uniform(0, 2))


def children():
    for _ in range(random.randrange(1, 6)):
        fork(lambda: sleeper(3600))
    work(random.uniform(0, 5))


def zombies():
    for _ in range(10):
        fork(lambda: None)
    work(random.uniform(0, 5))


def stubborn():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    beat()
    time.sleep(3600)


def flood():
    block = bytes(random.choices(b"abc \x1b[31m\x00\xff\n", k=1 << 16))
    end = time.monotonic() + random.uniform(0.5, 2)
    while time.monotonic() < end:
        os.write(1, block)
        beat()


def mute():
    os.close(1)
    os.close(2)
    work(random.uniform(0, 3))


def another_program():
    beat()
    sleeper(random.uniform(0, 5))


def new_session():
    # the leader of a group cannot begin a session: only its child can
    fork(lambda: (os.setsid(), sleeper(3600)))
    work(random.uniform(0, 3))


WAYS = [
    exit_somehow, die_of_signal, hang, leak, orphans, strays, children, zombies, stubborn, flood,
    mute, another_program, new_session, lambda: work(random.uniform(0, 10)),
]  # fmt: skip


if __name__ == "__main__":
    if os.path.exists(CALM):
        work()
    random.choice(WAYS)()
