"""The gateway's own routes: a table of methods and paths, JSON in and out, errors that say what to do.

    Table(("POST", "/control/keys/{name}/revoke", revoke), …).answer(incoming, out)

A route is given what was asked and returns a status and a value. `Wrong` is its no.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast
from urllib.parse import parse_qsl, unquote

from midwatch.gateway.http.port import Incoming, Outgoing
from midwatch.gateway.ledger.engine import LedgerDown

MAX_BYTES: Final = 1024 * 1024
"""One request to the gateway itself."""

MAX_FIELDS: Final = 50

JSON: Final = (("content-type", "application/json"), ("cache-control", "no-store"))

Json = dict[str, Any]


class Wrong(Exception):
    """What is asked cannot be answered so."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Asked:
    """What came with a request: names in its path, its query, its body."""

    names: Mapping[str, str]
    query: Mapping[str, str]
    body: Json

    def text(self, field: str, default: str | None = None, limit: int = 500) -> str:
        """Return a text of the body. Raises Wrong."""
        value = self.body.get(field, default)
        if not isinstance(value, str) or len(value) > limit or (default is None and not value):
            raise Wrong(
                422, f"{field}: expected a text of up to {limit} characters, got {_show(value)}"
            )
        return value

    def number(self, field: str, default: float) -> float:
        """Return a number of the body. Raises Wrong."""
        value = self.body.get(field, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
            raise Wrong(422, f"{field}: expected a number, got {_show(value)}")
        return float(value)


Do = Callable[[Asked], Awaitable[tuple[int, Json]]]


class Table:
    """Routes below one prefix."""

    def __init__(self, *routes: tuple[str, str, Do]) -> None:
        self._routes = [
            (method, re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path)), do)
            for method, path, do in routes
        ]

    async def answer(self, incoming: Incoming, out: Outgoing) -> None:
        """Answer a request. Raises ClientGone and BodyRefused of its body."""
        try:
            status, value = await self._do(incoming)
        except Wrong as wrong:
            status, value = wrong.status, problem(str(wrong))
        except LedgerDown as down:
            status, value = 503, problem(f"the ledger does not answer: {down}")
        send(out, status, value)

    async def _do(self, incoming: Incoming) -> tuple[int, Json]:
        methods: list[str] = []
        for method, path, do in self._routes:
            match = path.fullmatch(incoming.path)
            if match is None:
                continue
            if method == incoming.method:
                names = {name: unquote(value) for name, value in match.groupdict().items()}
                return await do(Asked(names, _query(incoming.query), await _body(incoming)))
            methods.append(method)
        if methods:
            raise Wrong(405, f"expected {' or '.join(methods)} here, got {incoming.method[:10]}")
        raise Wrong(
            404, "nothing here; see docs/design.md, how the supervisor and the gateway talk"
        )


def send(out: Outgoing, status: int, value: Json) -> None:
    """Answer with JSON."""
    out.answer(status, JSON, json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))


def problem(message: str) -> Json:
    """Return the body of an error."""
    return {"error": {"message": message, "type": "midwatch_bad_request"}}


def _query(query: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError:
        raise Wrong(400, f"expected at most {MAX_FIELDS} fields in the query") from None


async def _body(incoming: Incoming) -> Json:
    if incoming.method not in ("POST", "PUT", "PATCH"):
        return {}
    data = await incoming.body(MAX_BYTES)
    if not data.strip():
        return {}
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Wrong(400, f"the body is not JSON: {str(error)[:120]}") from None
    if not isinstance(value, dict):
        raise Wrong(400, f"the body: expected an object, got {type(value).__name__}")
    return cast("Json", value)


def choice(value: str, known: Sequence[str], field: str) -> str:
    """Return a word of a closed set. Raises Wrong."""
    if value not in known:
        raise Wrong(422, f"{field}: expected one of {', '.join(known)}, got {_show(value)}")
    return value


def _show(value: object) -> str:
    return repr(value)[:100]
