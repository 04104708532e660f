"""Waits for something in honest ways: the same tool call whose result changes, and calls that say that they poll."""

import time

from midwatch.drills.programs import asking, stage


def look(number: int) -> None:
    call = {
        "id": f"call_{number}",
        "type": "function",
        "function": {"name": "look", "arguments": "{}"},
    }
    asking.ask(
        "",
        messages=[
            {"role": "user", "content": "tell me when the build is done"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": f"step {number} of 400"},
        ],
    )


stage.wait_until_watched()
stage.evidence()
for number in range(15):
    look(number)
for _ in range(15):
    asking.ask("is it done?", headers={"x-midwatch-tags": "poll"})
time.sleep(2)  # time for a false alarm to show
stage.note("finished", "yes")
stage.stay()
