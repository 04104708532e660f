"""The outermost frame of the command line."""

from __future__ import annotations

import pytest

from midwatch.cli import __main__ as program
from midwatch.cli import app


def test_ctrl_c_before_a_command_listens_ends_without_a_trace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(_: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "run", interrupted)
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == 130
