"""The rehearsal model's page names all that it can be told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from midwatch.drills.rehearsal.behave import PRESETS, Behaviour, Mode, Sse
from midwatch.drills.rehearsal.refusals import RetryForm

PAGE = Path(__file__).parents[2] / "docs/reference/rehearsal.md"


def test_every_mode_short_name_and_field_is_documented() -> None:
    words = set(re.findall(r"[\w-]+", PAGE.read_text()))
    told = {*(mode.value for mode in Mode), *PRESETS, *Behaviour.model_fields}
    assert told | {*get_args(Sse), *get_args(RetryForm)} <= words
