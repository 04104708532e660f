"""Somebody found an agent's key: a stream and one call after the other, until they are refused."""

import json
import threading
import time

from midwatch.drills.programs import asking, stage


def stream(key: str) -> None:
    with asking.Call("a long story", stream=True, max_tokens=1000, key=key) as call:
        for _ in call.pieces():
            stage.note("streams", "yes")
    stage.note("stream", json.dumps({**call.answer.plain(), "at": time.time()}))


stage.wait_until_watched()
while not stage.seen("key"):
    time.sleep(0.02)
key = (stage.WORK / "key").read_text()
threading.Thread(target=stream, args=(key,)).start()
number = refused = 0
while True:
    number += 1
    answer = asking.ask(f"question {number}", key=key)
    refused += answer.status != 200
    if refused == 2:  # the first may be a call that was under way, and was cut
        break
    time.sleep(0.05)
stage.note("denied", json.dumps({**answer.plain(), "at": time.time()}))
stage.stay()
