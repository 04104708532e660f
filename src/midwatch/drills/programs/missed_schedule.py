"""A short job of a schedule: writes down that it ran, and ends. What misses it is the machine, not the program."""

EVERY_S = 6
WINDOW_S = 1


def main() -> None:
    from midwatch.drills.programs import stage

    stage.count("lives")


if __name__ == "__main__":
    main()
