"""Sixty-four calls at one time, with money for a few."""

import json
import threading
import time
from typing import Any

from midwatch.drills.programs import asking, stage

CALLS = 64
said: list[dict[str, Any]] = []


def call(number: int) -> None:
    answer = asking.ask(f"question {number}", max_tokens=1000)
    said.append({**answer.plain(), "text": "", "at": time.time()})


stage.wait_until_watched()
threads = [threading.Thread(target=call, args=(number,)) for number in range(CALLS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
stage.note("said", json.dumps(said))
stage.evidence(min((one["at"] for one in said if one["status"] != 200), default=time.time()))
stage.stay()
