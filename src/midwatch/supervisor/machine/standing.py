"""Where a process stands: for whoever wants to know why it hangs, or whether it waits for a person.

All of it is read from /proc, which tells it of our descendants; what it does not tell is left empty.

A person is waited for when a thread of the tree waits for input on the run's own terminal: in a read,
or in select, poll or epoll with the terminal among what it waits for and no network socket. A pipe
does not count, because a server that talks through pipes waits in a read for ever; nor does a
terminal that the agent made itself, behind which a shell sits idle.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from midwatch.supervisor.machine import procfs
from midwatch.supervisor.machine.procfs import Stat
from midwatch.supervisor.machine.system import Standing

MAX_THREADS: Final = 64
MAX_SOCKETS: Final = 50
MAX_TABLE: Final = 4 << 20
"""How much of a table of sockets is read: about 25,000 of them."""
MAX_WAITED: Final = 1024
"""Descriptors that one wait is looked at for."""

INET: Final = ("tcp", "tcp6", "udp", "udp6")

TTY: Final = os.makedev(5, 0)
"""/dev/tty: whatever terminal the process has."""

_X86: Final = {
    0: "read", 1: "write", 7: "poll", 17: "pread64", 19: "readv", 20: "writev", 23: "select",
    34: "pause", 35: "nanosleep", 42: "connect", 43: "accept", 44: "sendto", 45: "recvfrom",
    46: "sendmsg", 47: "recvmsg", 61: "wait4", 62: "kill", 72: "fcntl", 73: "flock", 74: "fsync",
    75: "fdatasync", 130: "rt_sigsuspend", 128: "rt_sigtimedwait", 202: "futex", 219: "restart_syscall",
    230: "clock_nanosleep", 232: "epoll_wait", 247: "waitid", 257: "openat", 270: "pselect6",
    271: "ppoll", 281: "epoll_pwait", 288: "accept4", 426: "io_uring_enter", 441: "epoll_pwait2",
}  # fmt: skip

_ARM64: Final = {
    63: "read", 64: "write", 65: "readv", 66: "writev", 67: "pread64", 72: "pselect6", 73: "ppoll",
    22: "epoll_pwait", 25: "fcntl", 32: "flock", 56: "openat", 82: "fsync", 83: "fdatasync",
    95: "waitid", 98: "futex", 101: "nanosleep", 115: "clock_nanosleep", 128: "restart_syscall",
    129: "kill", 133: "rt_sigsuspend", 137: "rt_sigtimedwait", 202: "accept", 203: "connect",
    206: "sendto", 207: "recvfrom", 211: "sendmsg", 212: "recvmsg", 242: "accept4", 260: "wait4",
    426: "io_uring_enter", 441: "epoll_pwait2",
}  # fmt: skip

SYSCALLS: Final = {"x86_64": _X86, "aarch64": _ARM64}.get(platform.machine(), {})
"""Names of the system calls in which processes wait."""

_TCP_STATES: Final = (
    "", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE",
    "CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING", "NEW_SYN_RECV",
)  # fmt: skip

_SOCKET: Final = re.compile(r"socket:\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class Call:
    """The system call that a thread is in."""

    number: int
    name: str
    arguments: tuple[int, ...]


def stand(own: Stat) -> Standing:
    """Return where a process stands."""
    names = [line for tid in _tasks(own.pid)[:MAX_THREADS] if (line := _thread(own.pid, tid))]
    return Standing(
        state=own.state,
        waits_in=procfs.waits_in(own.pid) or "",
        threads=tuple(names),
        sockets=tuple(sockets(own.pid)),
    )


def _tasks(pid: int) -> list[int]:
    try:
        return sorted(int(name) for name in os.listdir(f"/proc/{pid}/task"))  # noqa: PTH208
    except OSError:
        return []


def _thread(pid: int, tid: int) -> str:
    line = procfs.read(f"/proc/{pid}/task/{tid}/stat", 1024)
    if not line:
        return ""
    entry = procfs.parse(tid, line)
    wchan = (procfs.read(f"/proc/{pid}/task/{tid}/wchan") or b"").decode("ascii", "replace")
    call = call_of(pid, tid)
    parts = [entry.name.decode("utf-8", "replace"), entry.state, wchan if wchan != "0" else ""]
    return " ".join(part for part in (*parts, call.name if call else "") if part)


def call_of(pid: int, tid: int) -> Call | None:
    """Return the system call that a thread waits in; None while it runs, or when it is not told."""
    text = procfs.read(f"/proc/{pid}/task/{tid}/syscall")
    fields = (text or b"").split()
    if len(fields) < 7:
        return None  # `running`
    number = int(fields[0])
    if number < 0:
        return None  # stopped outside a call
    name = SYSCALLS.get(number, f"syscall {number}")
    return Call(number, name, tuple(int(f, 16) for f in fields[1:7]))


# -- waiting for a person ------------------------------------------------------------------------


def waits_for_person(entry: Stat, device: int) -> bool:
    """Tell whether a thread of the process waits for input on this terminal.

    The system calls are looked at first: there are a few dozen threads, but thousands of descriptors."""
    known = False
    for tid in _tasks(entry.pid)[:MAX_THREADS]:
        call = call_of(entry.pid, tid)
        known = known or call is not None
        if call is not None and _waits(entry, call, device):
            return True
    if known or procfs.waits_in(entry.pid) not in ("n_tty_read", "wait_woken"):
        return False
    # nobody tells system calls here: then the kernel function of a terminal's read must do
    return any(_is_terminal(entry, fd, device) for fd in _descriptors(entry.pid))


def _waits(entry: Stat, call: Call, device: int) -> bool:
    first = call.arguments[0]
    if call.name in ("read", "readv"):
        return _is_terminal(entry, first, device)
    waited = list(_waited(entry.pid, call))
    if not any(_is_terminal(entry, fd, device) for fd in waited):
        return False
    # whoever waits for the network too has work to come back to
    found = {inode for fd in waited if (inode := _inode(entry.pid, fd)) is not None}
    tables = INET if found else ()
    return not any(row[9] in found for name in tables for row in _rows(entry.pid, name))


def _waited(pid: int, call: Call) -> Iterator[int]:
    """Yield the descriptors whose input a select, poll or epoll waits for."""
    first, second = call.arguments[:2]
    if call.name in ("select", "pselect6"):
        count = min(first, MAX_WAITED)
        bits = int.from_bytes(_memory(pid, second, (count + 7) // 8 + 7 & ~7), "little")
        yield from (fd for fd in range(count) if bits >> fd & 1)
    elif call.name in ("poll", "ppoll"):
        data = _memory(pid, first, 8 * min(second, MAX_WAITED))
        for fd, events, _ in struct.iter_unpack("=ihh", data[: len(data) // 8 * 8]):
            if fd >= 0 and events & 1:
                yield fd
    elif call.name.startswith("epoll_"):
        text = procfs.read(f"/proc/{pid}/fdinfo/{first}", 1 << 16) or b""
        for line in text.split(b"\n"):
            fields = line.split()
            if len(fields) > 3 and fields[0] == b"tfd:" and int(fields[3], 16) & 1:
                yield int(fields[1])


def _memory(pid: int, address: int, count: int) -> bytes:
    """Return memory of the process; empty when it may not be read."""
    if not address or not count:
        return b""
    try:
        fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.pread(fd, count, address)
    except (OSError, OverflowError):
        return b""
    finally:
        os.close(fd)


def _descriptors(pid: int) -> list[int]:
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/fd")]  # noqa: PTH208
    except OSError:
        return []


def _is_terminal(entry: Stat, fd: int, device: int) -> bool:
    try:
        found = os.stat(f"/proc/{entry.pid}/fd/{fd}").st_rdev  # noqa: PTH116 - called for each descriptor
    except OSError:
        return False
    return found == device or (found == TTY and _device(entry.terminal) == device)


def _device(terminal: int) -> int:
    """Return a device number as stat(2) has it from that of /proc/PID/stat (kernel's new_encode_dev)."""
    unsigned = terminal & 0xFFFFFFFF
    return os.makedev(unsigned >> 8 & 0xFFF, (unsigned & 0xFF) | (unsigned >> 12 & 0xFFF00))


def _inode(pid: int, fd: int) -> str | None:
    with contextlib.suppress(OSError):
        if match := _SOCKET.fullmatch(os.readlink(f"/proc/{pid}/fd/{fd}")):  # noqa: PTH115
            return match[1]
    return None


# -- sockets -------------------------------------------------------------------------------------


def sockets(pid: int) -> list[str]:
    """Return the open sockets of a process, one line each."""
    inodes = {i for fd in _descriptors(pid)[:4096] if (i := _inode(pid, fd)) is not None}
    found: dict[str, str] = {}
    if inodes:
        for name in INET:
            found |= {row[9]: _inet(name, row) for row in _rows(pid, name) if row[9] in inodes}
        for row in _rows(pid, "unix"):
            if row[6] in inodes:
                found[row[6]] = " ".join(("unix", *row[7:8])).replace("\0", "@")
    lines = [found.get(inode, "socket of another kind") for inode in sorted(inodes, key=int)]
    return sorted(lines)[:MAX_SOCKETS]


def _rows(pid: int, name: str) -> Iterator[list[str]]:
    """Yield the lines of a table of sockets, as seen in the process's own network."""
    try:
        with open(f"/proc/{pid}/net/{name}", "rb") as file:  # noqa: PTH123
            text = file.read(MAX_TABLE)
    except OSError:
        return
    least = 7 if name == "unix" else 10
    for line in text.decode("utf-8", "replace").split("\n")[1:]:
        row = line.split()
        if len(row) >= least:
            yield row


def _inet(name: str, row: list[str]) -> str:
    near, far = _address(row[1]), _address(row[2])
    if name.startswith("udp"):
        return f"{name} {near}" + ("" if far.endswith(":0") else f" → {far}")
    state = int(row[3], 16)
    shown = _TCP_STATES[state] if state < len(_TCP_STATES) else f"state {state}"
    return f"{name} {near} LISTEN" if shown == "LISTEN" else f"{name} {near} → {far} {shown}"


def _address(text: str) -> str:
    """Read `0100007F:1F90`: words of four bytes in the machine's order."""
    host, _, port = text.partition(":")
    words = struct.unpack(f">{len(host) // 8}I", bytes.fromhex(host))
    data = struct.pack(f"={len(words)}I", *words)
    if len(data) == 4:
        return f"{socket.inet_ntop(socket.AF_INET, data)}:{int(port, 16)}"
    return f"[{socket.inet_ntop(socket.AF_INET6, data)}]:{int(port, 16)}"
