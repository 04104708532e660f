"""Small prompts for a while; then its system prompt grows to five times as much."""

import itertools
import time

from midwatch.drills.programs import asking, stage

QUIET_S = 8.0
RULE = "Be kind. "

stage.wait_until_watched()
end, rules = time.monotonic() + QUIET_S, 200
for number in itertools.count():
    if rules == 200 and time.monotonic() >= end:
        rules = 1000
        stage.evidence()
    asking.ask(f"question {number}", system=RULE * rules)
    time.sleep(0.1)
