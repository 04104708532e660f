"""Asks for two streams that are cut: one has another place to go on, the other has none."""

import json

from midwatch.drills.programs import asking, stage

stage.wait_until_watched()
stage.evidence()
models = ("gpt-4o-mini", "gpt-4o")
said = [asking.ask("hello", model=model, stream=True, max_tokens=200).plain() for model in models]
stage.note("said", json.dumps(said))
stage.stay()
