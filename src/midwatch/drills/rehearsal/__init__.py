"""The rehearsal model: a local server that stands in for OpenAI, Anthropic and Gemini.

It answers the official clients deterministically, from scripts or from built-in behaviour, and can be
told to misbehave. `midwatch up --rehearsal` runs any fleet against it without spending; drills and
tests use it to see what an agent does when its provider fails.

    python -m midwatch.drills.rehearsal --listen 127.0.0.1:8790 [--script FILE] [--seed N]

Inside a program: `async with Rehearsal() as model: model.url`, or `with running() as model:` for
one in a thread of its own.
"""

from midwatch.drills.rehearsal.model import Rehearsal
from midwatch.drills.rehearsal.script import ScriptError, load
from midwatch.drills.rehearsal.thread import running

__all__ = ["Rehearsal", "ScriptError", "load", "running"]
