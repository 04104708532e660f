"""`gateway.ledger`: where budgets are kept, and no password in the open."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from midwatch.core.fleet import GatewayListen


@pytest.mark.parametrize(
    "ledger", ["postgresql://db.example/midwatch", "postgres://ada@db/midwatch", "env:LEDGER", None]
)
def test_an_address_or_the_name_of_a_variable(ledger: str | None) -> None:
    assert GatewayListen(ledger=ledger).ledger == ledger


@pytest.mark.parametrize("ledger", ["sqlite:///x", "db.example", "env:", "env: ", ""])
def test_anything_else_is_refused(ledger: str) -> None:
    with pytest.raises(ValidationError, match=r"postgresql://… or env:NAME"):
        GatewayListen(ledger=ledger)


def test_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(ValidationError, match="put the address of ada into a variable") as refused:
        GatewayListen(ledger="postgresql://ada:hunter2@db/midwatch")
    first = refused.value.errors(include_input=False)[0]
    assert "hunter2" not in str(first["msg"])
