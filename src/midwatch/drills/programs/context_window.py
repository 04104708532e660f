"""A question that fills the model's window almost to its end."""

from midwatch.drills.programs import asking, stage

stage.wait_until_watched()
stage.evidence()
asking.ask("word " * 1500, max_tokens=20)
stage.stay()
