"""One gateway of several: reserves and settles as fast as it can, and writes down each step after it is answered.

Arguments: place of the ledger, file for the steps, calls in parallel, calls in all. A line of the file is one step:
`admitted ID WORST`, `settling ID COST`. It prints `ready`, waits for a line, and ends by printing what it refused.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from zoneinfo import ZoneInfo

from midwatch.core.calls.account import Payer
from midwatch.core.calls.budget import Admitted, Limit
from midwatch.core.calls.charge import Charge, Reservation
from midwatch.core.calls.period import Calendar, Window
from midwatch.gateway.ledger.opening import ledger_at
from midwatch.wire.ids import new_id

NOON = 1_774_695_720.0
LIMIT = Limit("agent:inbox", Window.DAY, 300_000)


async def main(place: str, steps: str, parallel: int, calls: int) -> None:
    ledger = ledger_at(place, Calendar(ZoneInfo("Europe/Paris")))
    await ledger.start()
    print("ready", flush=True)
    sys.stdin.readline()
    out = os.open(steps, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    left = [calls]
    refused: dict[str, int] = {}

    async def one(number: int) -> None:
        dice = random.Random(number)
        while left[0] > 0:
            left[0] -= 1
            worst = dice.randrange(500, 1500)
            payer = Payer("inbox", run=f"run-{number}", session=f"s{number}")
            asked = Reservation(new_id(), payer, worst, NOON, NOON + 600, limits=(LIMIT,))
            verdict = await ledger.reserve(asked)
            if not isinstance(verdict, Admitted):
                refused[verdict.reason.value] = refused.get(verdict.reason.value, 0) + 1
                await asyncio.sleep(0.01)
                continue
            os.write(out, f"admitted {asked.call_id} {worst}\n".encode())
            await asyncio.sleep(dice.random() * 0.05)
            cost = dice.randrange(1, worst + 1)
            os.write(out, f"settling {asked.call_id} {cost}\n".encode())
            ledger.settle(asked.call_id, Charge(cost, NOON + 1))

    await asyncio.gather(*(one(n) for n in range(parallel)))
    await ledger.stop()
    print(refused, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
