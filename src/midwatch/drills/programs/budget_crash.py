"""Four long streams at one time; the gateway dies under them."""

import http.client
import threading

from midwatch.drills.programs import asking, stage


def stream(number: int) -> None:
    with asking.Call(f"question {number}", stream=True, max_tokens=1000) as call:
        try:
            for _ in call.pieces():
                stage.count("pieces")
        except (OSError, http.client.HTTPException):
            pass
        if not call.answer.ended:
            stage.count("broken")


stage.wait_until_watched()
for number in range(4):
    threading.Thread(target=stream, args=(number,)).start()
stage.stay()
