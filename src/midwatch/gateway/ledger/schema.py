"""The ledger's tables, and how an older one is brought forward. Forward only.

- `ledger`: one row; the version of the tables, and a number that every transaction raises.
- `calls`: one row per call: what was asked, what it may cost, what it came to and from what that was computed.
- `balances`: per account and period what is spent and what is reserved. It is `calls` summed up: each transaction
  changes both or neither, and `audit` compares them.
- `told`: which warnings have been given.
- `daily`: what remains of calls that are older than the retention.
- `corrections`: costs that were put right by exact figures: when, by whom, from what to what.
"""

from __future__ import annotations

from typing import Final

from midwatch.gateway.ledger.engine import Engine, LedgerUnusable, say

VERSION: Final = 2

_V1: Final = (
    "CREATE TABLE balances (account {text} NOT NULL, period {text} NOT NULL, spent_nusd BIGINT NOT NULL,"
    " reserved_nusd BIGINT NOT NULL, touched {text} NOT NULL, PRIMARY KEY (account, period)){keyed}",
    "CREATE TABLE calls (id {text} PRIMARY KEY, state {text} NOT NULL, gateway {text} NOT NULL,"
    " agent {text} NOT NULL, in_group {text}, run {text}, session {text}, key_name {text}, task {text},"
    " tags {text} NOT NULL, accounts {text} NOT NULL, model_asked {text} NOT NULL, day {text} NOT NULL,"
    " slot {text} NOT NULL, reserved_at DOUBLE PRECISION NOT NULL,"
    " deadline_at DOUBLE PRECISION NOT NULL, reserved_nusd BIGINT NOT NULL,"
    " settled_at DOUBLE PRECISION, cost_nusd BIGINT NOT NULL DEFAULT 0,"
    " saved_nusd BIGINT NOT NULL DEFAULT 0, model {text} NOT NULL DEFAULT '',"
    " provider {text} NOT NULL DEFAULT '', usage {text} NOT NULL DEFAULT '{}',"
    " input_tokens BIGINT NOT NULL DEFAULT 0, output_tokens BIGINT NOT NULL DEFAULT 0,"
    " price_version {text} NOT NULL DEFAULT '', costs {text} NOT NULL DEFAULT '{}',"
    " disputed INTEGER NOT NULL DEFAULT 0, estimated INTEGER NOT NULL DEFAULT 0,"
    " attempts {text} NOT NULL DEFAULT '[]', outcome {text} NOT NULL DEFAULT '')",
    "CREATE INDEX calls_open ON calls (deadline_at) WHERE state = 'open'",
    "CREATE INDEX calls_day ON calls (day, agent)",
    "CREATE TABLE told (account {text} NOT NULL, period {text} NOT NULL, kind {text} NOT NULL,"
    " limit_nusd BIGINT NOT NULL, at DOUBLE PRECISION NOT NULL,"
    " PRIMARY KEY (account, period, kind, limit_nusd)){keyed}",
    "CREATE TABLE daily (day {text} NOT NULL, agent {text} NOT NULL, in_group {text} NOT NULL,"
    " key_name {text} NOT NULL, model {text} NOT NULL, provider {text} NOT NULL, calls BIGINT NOT NULL,"
    " cost_nusd BIGINT NOT NULL, saved_nusd BIGINT NOT NULL, input_tokens BIGINT NOT NULL,"
    " output_tokens BIGINT NOT NULL, disputed BIGINT NOT NULL, estimated BIGINT NOT NULL,"
    " PRIMARY KEY (day, agent, in_group, key_name, model, provider)){keyed}",
)

_V2: Final = (
    "ALTER TABLE calls ADD COLUMN sent_key {text} NOT NULL DEFAULT ''",
    "ALTER TABLE calls ADD COLUMN response {text} NOT NULL DEFAULT ''",
    "CREATE INDEX calls_doubtful ON calls (reserved_at) WHERE state = 'open' OR estimated = 1",
    "CREATE INDEX calls_response ON calls (response) WHERE response <> ''",
    "CREATE TABLE corrections (call {text} NOT NULL, at DOUBLE PRECISION NOT NULL, by_whom {text} NOT NULL,"
    " was_nusd BIGINT NOT NULL, cost_nusd BIGINT NOT NULL, PRIMARY KEY (call, at, was_nusd, cost_nusd)){keyed}",
)

MIGRATIONS: Final[dict[int, tuple[str, ...]]] = {1: _V1, 2: _V2}
"""Version → the statements that lead to it from the one before."""


def bring_forward(engine: Engine, where: str) -> None:
    """Make the tables, or change older ones, inside the engine's running transaction.

    Raises LedgerUnusable when they are newer than this program.
    """
    engine.run(
        "CREATE TABLE IF NOT EXISTS ledger (one INTEGER PRIMARY KEY, tables INTEGER NOT NULL,"
        " version BIGINT NOT NULL)"
    )
    engine.run("INSERT INTO ledger VALUES (1, 0, 0) ON CONFLICT (one) DO NOTHING")
    found = int(engine.rows("SELECT tables FROM ledger WHERE one = 1")[0][0])
    if found > VERSION:
        raise LedgerUnusable(
            f"the ledger {where} has tables of version {found}, and this Midwatch knows {VERSION};"
            " start the newer Midwatch again, or give this one another data directory"
        )
    for version in range(found + 1, VERSION + 1):
        for statement in MIGRATIONS[version]:
            engine.run(say(statement, engine.words))
        engine.run("UPDATE ledger SET tables = ? WHERE one = 1", (version,))
