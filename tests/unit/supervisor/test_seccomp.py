"""The filter of system calls, run by an interpreter of its instructions."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.errors import SetupError
from midwatch.supervisor.machine.seccomp import (
    ALLOW,
    ARCHITECTURES,
    ERRNO,
    KILL,
    NAMESPACES,
    Assembler,
    profile,
)

EPERM, ENOSYS = ERRNO | errno.EPERM, ERRNO | errno.ENOSYS


def run(program: bytes, audit: int, number: int, *arguments: int) -> int:
    """Return what the program answers to a call, as the kernel's interpreter would."""
    padded = (*arguments, *[0] * (6 - len(arguments)))
    data = struct.pack("<iIQ6Q", number if number < 2**31 else number - 2**32, audit, 0, *padded)
    at = accumulator = 0
    while True:
        code, yes, no, value = struct.unpack_from("<HBBI", program, at * 8)
        at += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, value)
            case 0x06:
                return value
            case 0x15:
                at += yes if accumulator == value else no
            case 0x35:
                at += yes if accumulator >= value else no
            case 0x45:
                at += yes if accumulator & value else no
            case _:
                raise AssertionError(f"unknown instruction {code:#x}")


def ask(machine: str, number: int, *arguments: int) -> int:
    program = profile(machine)
    assert program is not None
    return run(program, ARCHITECTURES[machine].audit, number, *arguments)


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_what_is_forbidden_is_refused(machine: str) -> None:
    answers = {name: ask(machine, n) for name, n in ARCHITECTURES[machine].forbidden.items()}
    assert {name for name, answer in answers.items() if answer != EPERM} == set()


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_what_is_left_to_fall_back_is_said_not_to_exist(machine: str) -> None:
    assert [ask(machine, n) for n in (425, 426, 427, 435)] == [ENOSYS] * 4


@given(
    machine=st.sampled_from(sorted(ARCHITECTURES)),
    number=st.integers(0, 500),
    argument=st.integers(0, 2**64 - 1),
)
def test_all_else_is_allowed(machine: str, number: int, argument: int) -> None:
    known = ARCHITECTURES[machine]
    special = {
        *known.forbidden.values(),
        425,
        426,
        427,
        435,
        known.clone,
        known.ioctl,
        known.personality,
    }
    if number not in special:
        assert ask(machine, number, argument, argument) == ALLOW


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_threads_and_processes_may_be_made_but_no_namespaces(machine: str) -> None:
    clone = ARCHITECTURES[machine].clone
    assert ask(machine, clone, 17) == ask(machine, clone, 0x3D0F00) == ALLOW
    for bit in range(32):
        flag = 1 << bit
        assert ask(machine, clone, flag | 17) == (EPERM if flag & NAMESPACES else ALLOW)


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_a_terminal_may_be_asked_but_not_typed_into(machine: str) -> None:
    ioctl = ARCHITECTURES[machine].ioctl
    assert ask(machine, ioctl, 0, 0x5413) == ALLOW
    # the kernel looks at 32 bits, and so must we
    assert {ask(machine, ioctl, 0, high << 32 | 0x5412) for high in (0, 1, 2**32 - 1)} == {EPERM}
    assert ask(machine, ioctl, 0, 0x541C) == EPERM


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_addresses_stay_random(machine: str) -> None:
    personality = ARCHITECTURES[machine].personality
    assert ask(machine, personality, 0xFFFFFFFF) == ask(machine, personality, 0) == ALLOW
    assert ask(machine, personality, 0x0040000) == EPERM


@given(
    machine=st.sampled_from(sorted(ARCHITECTURES)),
    audit=st.integers(0, 2**32 - 1),
    number=st.integers(0, 500),
)
def test_another_architectures_calls_end_the_process(machine: str, audit: int, number: int) -> None:
    program = profile(machine)
    assert program is not None
    if audit != ARCHITECTURES[machine].audit:
        assert run(program, audit, number) == KILL


@given(st.integers(0, 2**30 - 1))
def test_x32_is_said_not_to_exist(number: int) -> None:
    assert ask("x86_64", 0x40000000 | number) == ENOSYS


def test_there_is_no_filter_for_a_machine_that_nobody_wrote_one_for() -> None:
    assert profile("riscv64") is None


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_it_is_short_enough_for_the_kernel(machine: str) -> None:
    program = profile(machine)
    assert program is not None
    assert len(program) // 8 <= 4096


def test_a_jump_that_does_not_fit_is_refused() -> None:
    code = Assembler()
    code.jump(0x15, 1, yes="far")
    for _ in range(256):
        code.load(0)
    code.label("far")
    code.answer(ALLOW)
    with pytest.raises(SetupError, match="'far' spans 256 instructions"):
        code.assemble()


def test_the_lists_agree_on_what_is_forbidden() -> None:
    only_there = {"_sysctl", "create_module", "iopl", "ioperm", "modify_ldt", "uselib"}
    x86, arm = (set(ARCHITECTURES[name].forbidden) for name in ("x86_64", "aarch64"))
    assert x86 - arm == only_there
    assert arm - x86 == set()
