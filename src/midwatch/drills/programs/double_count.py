"""Calls a model twice and tells of it as frameworks do: the client's spans, and an agent's that repeats them."""

import os
import time
from typing import Any

from midwatch.drills.programs import asking, spans, stage

stage.wait_until_watched()
stage.evidence()
TRACE, ROOT = os.urandom(16).hex(), os.urandom(8).hex()
told: list[dict[str, Any]] = []
tokens = {"in": 0, "out": 0}
for number in range(2):
    mine = os.urandom(8).hex()
    answer = asking.ask(f"question {number}", headers={"traceparent": f"00-{TRACE}-{mine}-01"})
    usage = answer.body["usage"]
    tokens["in"] += usage["prompt_tokens"]
    tokens["out"] += usage["completion_tokens"]
    told.append(
        spans.span(
            TRACE, mine, "chat gpt-4o-mini", ROOT,
            gen_ai__operation__name="chat",
            gen_ai__provider__name="openai",
            gen_ai__request__model="gpt-4o-mini",
            gen_ai__response__id=answer.body["id"],
            gen_ai__usage__input_tokens=usage["prompt_tokens"],
            gen_ai__usage__output_tokens=usage["completion_tokens"],
        )
    )  # fmt: skip
told.append(
    spans.span(
        TRACE, ROOT, "invoke_agent planner",
        gen_ai__operation__name="invoke_agent",
        gen_ai__agent__name="planner",
        gen_ai__request__model="gpt-4o-mini",
        gen_ai__usage__input_tokens=tokens["in"],
        gen_ai__usage__output_tokens=tokens["out"],
    )
)  # fmt: skip
sent = spans.post(spans.wrapped(told))
time.sleep(2)  # time for a false alarm to show
stage.note("trace", TRACE)
stage.note("finished", sent.status)
stage.stay()
