"""Asks a model of which no price list has heard."""

import json

from midwatch.drills.programs import asking, stage

stage.wait_until_watched()
stage.evidence()
stage.note("refused", json.dumps(asking.ask("hello", model="mystery-9").plain()))
stage.stay()
