"""Seven seconds of quiet calls, then one question of 40,000 tokens after the other."""

import json
import time

import midwatch as mw
from midwatch.drills.programs import asking, stage

WORD = "mail "
QUIET_S = 8.0

mw.init()
stage.wait_until_watched()
end = time.monotonic() + QUIET_S
number = 0
while time.monotonic() < end:
    number += 1
    with mw.cycle() as cycle:
        answer = asking.ask(f"{number} " + WORD * 110)
        cycle.usage(tokens=answer.body["usage"]["total_tokens"])
    time.sleep(0.2)
stage.evidence()
while True:
    number += 1
    with mw.cycle() as cycle:
        answer = asking.ask(f"{number} " + WORD * 32_000)
        if answer.status != 200:
            stage.note("refused", json.dumps(answer.plain()))
            break
        cycle.usage(tokens=answer.body["usage"]["total_tokens"])
stage.stay()
