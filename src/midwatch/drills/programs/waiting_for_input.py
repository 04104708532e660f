"""Asks whether the folder is trusted, on its terminal, and does nothing until somebody answers."""

import sys
import time

from midwatch.drills.programs import stage

QUESTION = "Do you trust the files in this folder? (y/N) "


def main() -> None:
    import midwatch as mw

    mw.init()
    stage.wait_until_watched()
    print("Welcome. Reading the folder…", flush=True)
    with mw.cycle():
        pass
    print(QUESTION, end="", flush=True)
    stage.evidence()
    answer = sys.stdin.readline().strip()
    stage.note("answer", answer)
    while True:
        with mw.cycle():
            time.sleep(0.2)


if __name__ == "__main__":
    main()
