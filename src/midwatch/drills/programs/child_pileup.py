"""Starts helpers and forgets them: some live on, some end and are never waited for. Then it reaps them."""

import subprocess
import sys
import time

import midwatch as mw
from midwatch.drills.programs import stage

HELPERS = 24
ZOMBIES = 12
EXPECTED = 10

stage.count("lives")
mw.init()
mw.beat()
stage.wait_until_watched()
helpers: list[subprocess.Popen[bytes]] = []
for number in range(HELPERS + ZOMBIES):
    lives_on = number % 3 != 2
    program = "import time; time.sleep(600)" if lives_on else "pass"
    helpers.append(subprocess.Popen([sys.executable, "-S", "-c", program]))
    if number == EXPECTED:
        stage.evidence()
    mw.beat()
stage.note("helpers", " ".join(str(h.pid) for h in helpers))
while not stage.seen("reap"):
    mw.beat()
    time.sleep(0.1)
for helper in helpers:
    helper.wait()
while True:
    mw.beat()
    time.sleep(0.1)
