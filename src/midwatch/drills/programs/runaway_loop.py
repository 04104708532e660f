"""Twelve quiet cycles, then one that eats 40,000 tokens, and another."""

import time

import midwatch as mw
from midwatch.drills.programs import stage

mw.init()
stage.wait_until_watched()
for _ in range(12):
    with mw.cycle() as cycle:
        time.sleep(0.05)
        cycle.usage(tokens=200, cost_usd=0.0001)
stage.evidence()
while True:
    with mw.cycle() as cycle:
        time.sleep(0.3)
        cycle.usage(tokens=40_000, cost_usd=0.02)
