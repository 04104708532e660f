"""Sends a span and a beat twice a second, and notes what each was answered. It asks the model, too."""

import json
import os
import time
from typing import Any

from midwatch.drills.programs import asking, spans, stage

stage.wait_until_watched()
stage.evidence()
said: list[dict[str, Any]] = []
while not stage.seen("enough"):
    one = spans.span(os.urandom(16).hex(), os.urandom(8).hex(), "step")
    sent = spans.post(spans.wrapped([one]))
    beat = spans.post(json.dumps({"tokens": 1}).encode(), path="/api/beats")
    asked = asking.ask(f"how much room is there at {len(said)}?")
    said.append({
        "at": time.time(),
        "spans": sent.status,
        "retry_after": sent.headers.get("retry-after"),
        "said": sent.body.decode("utf-8", "replace")[:500],
        "beat": beat.status,
        "call": asked.status,
    })  # fmt: skip
    stage.note("said", json.dumps(said[-200:]))
    time.sleep(0.5)
stage.note("finished", "yes")
stage.stay()
