"""Goes away in the middle of an answer."""

from midwatch.drills.programs import asking, stage

stage.wait_until_watched()
with asking.Call("tell me a long story", stream=True, max_tokens=1000) as call:
    pieces = call.pieces()
    for _ in range(3):
        next(pieces)
    stage.note("call", call.answer.headers["x-midwatch-call"])
stage.evidence()
stage.stay()
