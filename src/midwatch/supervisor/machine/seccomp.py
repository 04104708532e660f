"""The filter of system calls that a walled agent runs under, assembled to classic BPF (seccomp(2)).

All is allowed but what no agent needs and what walls have been broken with: mounts, namespaces,
other processes' memory, kernel modules, keyrings, typing into a terminal. Denied calls fail like on
a system that forbids them (EPERM) or does not have them (ENOSYS, where libraries then fall back);
calls in the convention of another architecture, which would be numbered past the list, end the process.

Sources: docker's default profile (moby, profiles/seccomp), flatpak-run.c, the kernel's tables
arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass
from typing import Final

from midwatch.core.errors import SetupError

_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_ANY_BIT: Final = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K

# struct seccomp_data: int nr, u32 arch, u64 instruction_pointer, u64 args[6]; low words come first
_NUMBER: Final = 0
_ARCHITECTURE: Final = 4
_ARGUMENT: Final = (16, 24)

ALLOW: Final = 0x7FFF0000
ERRNO: Final = 0x00050000
KILL: Final = 0x80000000
"""The whole process, with SIGSYS."""

MAX_JUMP: Final = 255
"""A conditional jump's offset is one byte."""

NAMESPACES: Final = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET."""

TYPING: Final = (0x5412, 0x541C)
"""TIOCSTI puts characters into a terminal's input, TIOCLINUX pastes into a console's."""

PERSONALITIES: Final = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
"""What docker allows: plain Linux, 32-bit addresses, uname26, both, and asking. Not: no address randomisation."""

_X32: Final = 0x40000000

_FORBIDDEN_X86_64: Final = {
    "ptrace": 101, "syslog": 103, "uselib": 134, "vhangup": 153, "modify_ldt": 154, "pivot_root": 155,
    "_sysctl": 156, "chroot": 161, "acct": 163, "settimeofday": 164, "mount": 165, "umount2": 166,
    "swapon": 167, "swapoff": 168, "reboot": 169, "iopl": 172, "ioperm": 173, "create_module": 174,
    "init_module": 175, "delete_module": 176, "quotactl": 179, "nfsservctl": 180, "lookup_dcookie": 212,
    "clock_settime": 227, "kexec_load": 246, "add_key": 248, "request_key": 249, "keyctl": 250,
    "unshare": 272, "perf_event_open": 298, "fanotify_init": 300, "open_by_handle_at": 304,
    "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "finit_module": 313,
    "kexec_file_load": 320, "bpf": 321, "userfaultfd": 323,
}  # fmt: skip

_FORBIDDEN_AARCH64: Final = {
    "lookup_dcookie": 18, "umount2": 39, "mount": 40, "pivot_root": 41, "nfsservctl": 42, "chroot": 51,
    "vhangup": 58, "quotactl": 60, "acct": 89, "kexec_load": 104, "init_module": 105, "delete_module": 106,
    "clock_settime": 112, "syslog": 116, "ptrace": 117, "reboot": 142, "settimeofday": 170, "add_key": 217,
    "request_key": 218, "keyctl": 219, "swapon": 224, "swapoff": 225, "unshare": 97,
    "perf_event_open": 241, "fanotify_init": 262, "open_by_handle_at": 265, "setns": 268,
    "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272, "finit_module": 273, "bpf": 280,
    "userfaultfd": 282, "kexec_file_load": 294,
}  # fmt: skip

_FORBIDDEN_EVERYWHERE: Final = {
    "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432, "fspick": 433,
    "pidfd_getfd": 438, "process_madvise": 440, "mount_setattr": 442, "quotactl_fd": 443,
    "open_tree_attr": 467,
}  # fmt: skip
"""From number 424 on all architectures share their numbers."""

_MISSING: Final = {
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "clone3": 435,
}
"""Said not to exist, so that callers fall back. clone3 passes its flags by pointer, where no filter
can look; io_uring performs calls that no filter sees."""  # fmt: skip


@dataclass(frozen=True, slots=True)
class Architecture:
    """What a filter must know of a machine."""

    audit: int
    """AUDIT_ARCH_*, which the kernel gives with each call."""
    clone: int
    ioctl: int
    personality: int
    forbidden: dict[str, int]
    x32: bool = False
    """Whether numbers with bit 30 are the same calls under other names."""


ARCHITECTURES: Final = {
    "x86_64": Architecture(
        0xC000003E, 56, 16, 135, {**_FORBIDDEN_X86_64, **_FORBIDDEN_EVERYWHERE}, x32=True
    ),
    "aarch64": Architecture(
        0xC00000B7, 220, 29, 92, {**_FORBIDDEN_AARCH64, **_FORBIDDEN_EVERYWHERE}
    ),
}
"""By the machine's name (uname -m)."""


class Assembler:
    """Instructions with named targets; every jump leads forward."""

    def __init__(self) -> None:
        self._code: list[tuple[int, int, str, str]] = []
        self._labels: dict[str, int] = {}

    def load(self, offset: int) -> None:
        self._code.append((_LOAD, offset, "", ""))

    def jump(self, test: int, value: int, yes: str = "", no: str = "") -> None:
        """Go to a label, or on to the next instruction where none is named."""
        self._code.append((test, value, yes, no))

    def answer(self, action: int) -> None:
        self._code.append((_RETURN, action, "", ""))

    def label(self, name: str) -> None:
        self._labels[name] = len(self._code)

    def assemble(self) -> bytes:
        """Return the program as `struct sock_filter[]`. Raises SetupError for a jump too far."""
        return b"".join(
            struct.pack("<HBBI", code, self._offset(at, yes), self._offset(at, no), value)
            for at, (code, value, yes, no) in enumerate(self._code)
        )

    def _offset(self, at: int, label: str) -> int:
        distance = self._labels[label] - at - 1 if label else 0
        if not 0 <= distance <= MAX_JUMP:
            raise SetupError(
                f"the filter's jump to {label!r} spans {distance} instructions; put it nearer"
            )
        return distance  # fmt: skip


def profile(machine: str) -> bytes | None:
    """Return the filter for a machine, or None when none is written for it."""
    architecture = ARCHITECTURES.get(machine)
    return None if architecture is None else _assemble(architecture)


def _assemble(machine: Architecture) -> bytes:
    code = Assembler()
    code.load(_ARCHITECTURE)
    code.jump(_EQUAL, machine.audit, no="kill")
    code.load(_NUMBER)
    if machine.x32:
        code.jump(_AT_LEAST, _X32, yes="missing")
    code.jump(_EQUAL, machine.clone, yes="clone")
    code.jump(_EQUAL, machine.ioctl, yes="ioctl")
    code.jump(_EQUAL, machine.personality, yes="personality")
    for number in sorted(_MISSING.values()):
        code.jump(_EQUAL, number, yes="missing")
    for number in sorted(machine.forbidden.values()):
        code.jump(_EQUAL, number, yes="forbidden")
    code.answer(ALLOW)
    # the flags are the first argument of clone on both; the kernel itself looks at the low word only
    code.label("clone")
    code.load(_ARGUMENT[0])
    code.jump(_ANY_BIT, NAMESPACES, yes="forbidden")
    code.answer(ALLOW)
    # the kernel takes a request as 32 bits: whatever is in the upper half does not count (CVE-2019-10063)
    code.label("ioctl")
    code.load(_ARGUMENT[1])
    for request in TYPING:
        code.jump(_EQUAL, request, yes="forbidden")
    code.answer(ALLOW)
    code.label("personality")
    code.load(_ARGUMENT[0])
    for value in PERSONALITIES:
        code.jump(_EQUAL, value, yes="usual")
    code.label("forbidden")
    code.answer(ERRNO | errno.EPERM)
    code.label("usual")
    code.answer(ALLOW)
    code.label("missing")
    code.answer(ERRNO | errno.ENOSYS)
    code.label("kill")
    code.answer(KILL)
    return code.assemble()
