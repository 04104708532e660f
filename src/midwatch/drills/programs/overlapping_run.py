"""A job of a schedule that takes longer than the time to the next one: the first time, and never again."""

import time

EVERY_S = 3


def main() -> None:
    from midwatch.drills.programs import stage

    stage.wait_until_watched()
    if stage.count("lives") > 1:
        return
    now = time.time()
    due = (
        now // EVERY_S + 1
    ) * EVERY_S  # the schedule is counted from a midnight: multiples of 3 s
    stage.note("evidence", due)
    time.sleep(due - now + 1.5)
    stage.note("ended", time.time())


if __name__ == "__main__":
    main()
