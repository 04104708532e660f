"""Asks on while its provider is down, until that one answers again."""

import json
import time
from typing import Any

from midwatch.drills.programs import asking, stage

stage.wait_until_watched()
said: list[dict[str, Any]] = []
while len(said) < 15:
    if len(said) == 4:
        stage.evidence()
    answer = asking.ask(f"question {len(said)}").plain()
    said.append(answer)
    if len(said) > 5:
        time.sleep(0.3)
    if answer.get("model") == "openai/gpt-4o-mini":
        break
stage.note("said", json.dumps(said))
stage.stay()
