"""Sends one trace of a hundred thousand spans."""

import json
import os

from midwatch.drills.programs import spans, stage

WHOLE, PART = 100_000, 5_000

stage.wait_until_watched()
stage.evidence()
trace, root = os.urandom(16).hex(), f"{1:016x}"
statuses: list[int] = []
for first in range(0, WHOLE, PART):
    part = [
        spans.span(trace, f"{at + 1:016x}", f"step {at % 50}", "" if at == 0 else root)
        for at in range(first, first + PART)
    ]
    statuses.append(spans.post(spans.wrapped(part)).status)
stage.note("trace", json.dumps({"trace": trace, "statuses": statuses}))
stage.note("finished", "yes")
stage.stay()
