"""Prints a gigabyte without a line end as fast as it can, then works on, and says whether it was held up."""

import os
import time

TOTAL_BYTES = 1 << 30
CHUNK = b"x" * (1 << 16)


def main() -> None:
    import midwatch as mw
    from midwatch.drills.programs import stage

    mw.init()
    stage.wait_until_watched()
    if not stage.seen("evidence"):
        # a chatty but normal minute first, in short: no word about it is allowed
        for _ in range(20):
            print("y" * 5_000, flush=True)
            time.sleep(0.05)
        stage.evidence()
        began = time.monotonic()
        for _ in range(TOTAL_BYTES // len(CHUNK)):
            os.write(1, CHUNK)
        print(flush=True)
        stage.note("printed", f"{time.monotonic() - began:.3f}")
    while True:
        with mw.cycle():
            time.sleep(0.2)


if __name__ == "__main__":
    main()
