"""Is killed in the middle of a turn, with a tool call under way. Its second life does nothing."""

import time

import midwatch as mw
from midwatch.drills.programs import stage

mw.init()
stage.wait_until_watched()
if stage.count("lives") > 1:
    stage.stay()


@mw.tool
def search(query: str) -> str:
    time.sleep(600)
    return query


with mw.cycle(), mw.session("s-1"), mw.turn():
    stage.note("working", "yes")
    search("what was open")
