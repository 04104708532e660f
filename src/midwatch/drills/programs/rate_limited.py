"""A batch; in the middle of it the provider says: too many."""

import json
from typing import Any

from midwatch.drills.programs import asking, stage

stage.wait_until_watched()
said: list[dict[str, Any]] = []
for number in range(5):
    if number == 2:
        stage.evidence()
    said.append(asking.ask(f"question {number}").plain())
stage.note("said", json.dumps(said))
stage.stay()
