"""Which mapped regions may go back to the system: those that are as they are in a library's file."""

from __future__ import annotations

import pytest

from midwatch.hub.memory import Region, code_regions

CODE = "7f0000100000-7f0000300000 r-xp 00100000 fe:01 1234                       /lib/a folder/lib_x.cpython-311.so\n"


def _map(head: str, anonymous_kb: int = 0) -> list[str]:
    return [
        head,
        "Size:               2048 kB\n",
        "Rss:                1024 kB\n",
        f"Anonymous:      {anonymous_kb:8d} kB\n",
        "AnonHugePages:         0 kB\n",
        "VmFlags: rd ex mr mw me sd\n",
    ]


def test_the_code_of_a_library_is_found() -> None:
    assert code_regions(_map(CODE)) == [Region(0x7F0000100000, 0x200000)]


def test_constants_and_a_library_with_a_version_in_its_name_are_found() -> None:
    head = "7f0000100000-7f0000101000 r--p 00000000 fe:01 77 /usr/lib/libcrypto.so.3.0.1\n"
    assert code_regions(_map(head)) == [Region(0x7F0000100000, 0x1000)]


def test_a_region_in_which_something_was_written_is_left_alone() -> None:
    assert code_regions(_map(CODE, anonymous_kb=4)) == []


@pytest.mark.parametrize(
    "head",
    [
        CODE.replace("r-xp", "rw-p"),
        CODE.replace("r-xp", "r-xs"),
        CODE.replace("r-xp", "rwxp"),
        CODE.replace("lib_x.cpython-311.so", "g00000001.duckdb"),
        CODE.replace("lib_x.cpython-311.so", "spans.so.parquet"),
        CODE.replace(".so\n", ".so (deleted)\n"),
        CODE.replace("fe:01 1234 ", "00:00 0 "),
        "7f0000100000-7f0000300000 rw-p 00000000 00:00 0 \n",
        "55d000000000-55d000100000 rw-p 00000000 00:00 0                          [heap]\n",
        "7ffc00000000-7ffc00002000 r-xp 00000000 00:00 0                          [vdso]\n",
    ],
)
def test_what_is_not_a_librarys_file_alone_is_left_alone(head: str) -> None:
    assert code_regions(_map(head)) == []


def test_each_region_is_judged_by_its_own_lines() -> None:
    other = CODE.replace("7f0000100000-7f0000300000", "7f0000400000-7f0000401000")
    lines = [*_map(CODE, anonymous_kb=8), *_map(other), CODE]
    assert code_regions(lines) == [Region(0x7F0000400000, 0x1000)]
