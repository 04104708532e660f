"""Runs inside walls and tries to get out of them; prints what came of each attempt, as JSON.

python burglar.py '{"outside": …, "data": …, "host_pid": …, "port": …, "abstract": …, "suid": …}'
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import platform
import pty
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

SPEC: dict[str, Any] = json.loads(sys.argv[1])
FOUND: dict[str, Any] = {}
OUTSIDE, DATA, HOME = Path(SPEC["outside"]), Path(SPEC["data"]), Path(os.environ["HOME"])
LIBC = ctypes.CDLL(None, use_errno=True)
X86 = platform.machine() == "x86_64"

CALLS = {  # name → (x86_64, aarch64)
    "ptrace": (101, 117), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "unshare": (272, 97), "setns": (308, 268), "keyctl": (250, 219), "bpf": (321, 280),
    "userfaultfd": (323, 282), "perf_event_open": (298, 241), "process_vm_readv": (310, 270),
    "init_module": (175, 105), "kexec_load": (246, 104), "reboot": (169, 142), "swapon": (167, 224),
    "personality": (135, 92), "clone": (56, 220), "clone3": (435, 435), "io_uring_setup": (425, 425),
    "open_tree": (428, 428), "chroot": (161, 51), "pidfd_getfd": (438, 438),
}  # fmt: skip


def attempt(name: str) -> Callable[[Callable[[], Any]], None]:
    def run(act: Callable[[], Any]) -> None:
        try:
            FOUND[name] = act()
        except OSError as error:
            FOUND[name] = errno.errorcode.get(error.errno or 0, str(error))

    return run


def call(name: str, *arguments: Any) -> Any:
    ctypes.set_errno(0)
    got = LIBC.syscall(CALLS[name][0 if X86 else 1], *arguments)
    if name == "clone" and got == 0:
        os._exit(0)  # it was not refused, and this is the child
    return got if got >= 0 else errno.errorcode[ctypes.get_errno()]


def write(path: Path | str) -> str:
    Path(path).write_text("the burglar was here")
    return "written"


def fill(folder: str) -> int:
    """Write until there is no room; return how much there was, and take it away again."""
    count = 0
    with tempfile.NamedTemporaryFile(dir=folder) as file, contextlib.suppress(OSError):
        while count < 64 << 20:
            count += os.write(file.fileno(), bytes(65536))
    return count


# -- files
attempt("write /etc")(lambda: write("/etc/midwatch-burglar"))
attempt("write /")(lambda: write("/midwatch-burglar"))
attempt("write home")(lambda: write(HOME / "burglar"))
attempt("write outside")(lambda: write(OUTSIDE / "burglar"))
attempt("write through a link")(lambda: write("way-out/burglar"))
attempt("write through /proc/1/root")(lambda: write(f"/proc/1/root{OUTSIDE}/burglar"))
attempt("write through /proc/self/root")(lambda: write(f"/proc/self/root{OUTSIDE}/burglar"))
attempt("write inside")(lambda: write("inside.txt"))
attempt("write what is made")(lambda: write("made/for/it/file"))
attempt("write what is read-only")(lambda: write("protected/file"))
attempt("replace the fleet file")(lambda: os.replace("inside.txt", "midwatch.yaml"))
attempt("write the fleet file")(lambda: write("midwatch.yaml"))
attempt("write the env file")(lambda: write(".env"))
attempt("rename what holds the hidden")(lambda: os.rename("conf", "conf2"))
attempt("remove the hidden")(lambda: os.unlink("conf/key"))
attempt("read a provider's key")(lambda: Path("keys/openai").read_text())
attempt("write a provider's key")(lambda: write("keys/openai"))
attempt("put another in its place")(
    lambda: os.replace("keys/other", "keys/openai") if write("keys/other") else None
)
attempt("move what holds it")(lambda: os.rename("keys", "keys2"))
attempt("read the hidden")(lambda: Path("conf/key").read_text())
attempt("hard link to the outside")(lambda: os.link(OUTSIDE / "treasure", "treasure"))
attempt("read outside")(lambda: (OUTSIDE / "treasure").read_text())
attempt("read what is opened")(lambda: (HOME / ".aws" / "config").read_text())
attempt("list .ssh")(lambda: os.listdir(HOME / ".ssh"))
attempt("read .netrc")(lambda: (HOME / ".netrc").read_text())
attempt("chmod .netrc")(lambda: os.chmod(HOME / ".netrc", 0o777))
attempt("list data")(lambda: sorted(p.name for p in DATA.iterdir()))
attempt("read token")(lambda: (DATA / "token").read_text())
attempt("read token through /proc/1/root")(lambda: Path(f"/proc/1/root{DATA}/token").read_text())
attempt("read another's spool")(lambda: os.listdir(DATA / "spool" / "neighbour"))
attempt("fill the hidden")(lambda: write(DATA / "file"))
attempt("write spool")(lambda: write(DATA / "spool" / "subject" / "item"))
attempt("list /run")(lambda: sorted(os.listdir("/run")))
attempt("write /dev")(lambda: write("/dev/burglar"))
attempt("write core_pattern")(lambda: write("/proc/sys/kernel/core_pattern"))
attempt("chmod /dev/null")(lambda: os.chmod("/dev/null", 0o600))
attempt("write /dev/null")(lambda: write("/dev/null"))
attempt("list /dev")(lambda: sorted(os.listdir("/dev")))
for room in ("/tmp", "/var/tmp", "/dev/shm"):
    attempt(f"list {room}")(lambda room=room: sorted(os.listdir(room)))
    attempt(f"fill {room}")(lambda room=room: fill(room))

# -- processes
attempt("pids")(lambda: sorted(int(n) for n in os.listdir("/proc") if n.isdigit()))
attempt("own pid")(os.getpid)
attempt("kill a host's process")(lambda: os.kill(SPEC["host_pid"], 9))
attempt("fds")(lambda: sorted(int(n) for n in os.listdir("/proc/self/fd")))
attempt("environment of pid 1")(lambda: Path("/proc/1/environ").read_text())
attempt("own session")(lambda: os.getsid(0))

# -- system calls
attempt("ptrace")(lambda: call("ptrace", 16, 0, 0, 0))
attempt("mount")(lambda: call("mount", b"none", b"/mnt", b"tmpfs", 0, None))
attempt("umount2")(lambda: call("umount2", os.fsencode(DATA), 2))
attempt("pivot_root")(lambda: call("pivot_root", b".", b"."))
attempt("chroot")(lambda: call("chroot", b"."))
attempt("unshare user")(lambda: call("unshare", 0x10000000))
attempt("unshare mounts")(lambda: call("unshare", 0x20000))
attempt("setns")(lambda: call("setns", os.open("/proc/1/ns/mnt", os.O_RDONLY), 0))
attempt("clone user")(lambda: call("clone", 0x10000000 | 17, 0, 0, 0, 0))
attempt("clone3")(lambda: call("clone3", None, 0))
attempt("io_uring_setup")(lambda: call("io_uring_setup", 1, None))
attempt("personality")(lambda: call("personality", 0x0040000))
attempt("personality asked")(lambda: call("personality", 0xFFFFFFFF))
for name in (
    "keyctl", "bpf", "userfaultfd", "perf_event_open", "process_vm_readv", "init_module", "kexec_load",
    "reboot", "swapon", "open_tree", "pidfd_getfd",
):  # fmt: skip
    attempt(name)(lambda name=name: call(name, 0, 0, 0, 0, 0))
if X86:
    attempt("x32")(
        lambda: (
            LIBC.syscall(0x40000000 | 39)
            if LIBC.syscall(0x40000000 | 39) > 0
            else errno.errorcode[ctypes.get_errno()]
        )
    )
_, slave = pty.openpty()
attempt("type into a terminal")(lambda: fcntl.ioctl(slave, 0x5412, b"x"))
attempt("paste into a console")(lambda: fcntl.ioctl(slave, 0x541C, b"\x03"))


def call_ioctl(fd: int, request: int) -> Any:
    buffer = ctypes.create_string_buffer(b"x")
    got = LIBC.syscall(
        ctypes.c_long(16 if X86 else 29), ctypes.c_long(fd), ctypes.c_ulong(request), buffer
    )
    return got if got >= 0 else errno.errorcode[ctypes.get_errno()]


attempt("type with a wider number")(lambda: call_ioctl(slave, 0x1_0000_5412))
attempt("terminal")(lambda: os.open("/dev/tty", os.O_RDWR))

# -- rights
status = dict(
    line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line
)  # fmt: skip
FOUND |= {
    name: status[name] for name in ("CapEff", "CapPrm", "CapInh", "CapAmb", "NoNewPrivs", "Seccomp")
}
attempt("setuid root")(lambda: os.setuid(0) if os.getuid() else "is root")
if SPEC.get("suid"):
    attempt("setuid program")(
        lambda: subprocess.run([SPEC["suid"], "-u"], capture_output=True, text=True).stdout.strip()
    )

# -- network


def connect(family: int, address: Any, kind: int = socket.SOCK_STREAM) -> str:
    with socket.socket(family, kind) as sock:
        sock.settimeout(2)
        sock.connect(address)
        if kind == socket.SOCK_DGRAM:
            sock.send(b"WATCHDOG=1\nX_PID=%d" % os.getpid())
    return "connected"


attempt("connect to the host")(lambda: connect(socket.AF_INET, ("127.0.0.1", SPEC["port"])))
attempt("connect to an abstract socket")(lambda: connect(socket.AF_UNIX, "\0" + SPEC["abstract"]))
attempt("notify")(lambda: connect(socket.AF_UNIX, os.environ["NOTIFY_SOCKET"], socket.SOCK_DGRAM))
attempt("chmod socket")(lambda: os.chmod(os.environ["NOTIFY_SOCKET"], 0o777))
attempt("interfaces")(lambda: sorted(name for _, name in socket.if_nameindex()))

# -- what must still work
thread = threading.Thread(target=FOUND.__setitem__, args=("thread", "ran"))
thread.start()
thread.join()
attempt("child")(lambda: subprocess.run(["true"], check=True).returncode)
FOUND["environment"] = dict(os.environ)
FOUND["cwd"] = os.getcwd()
print(json.dumps(FOUND))
