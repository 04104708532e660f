"""Each provider refuses in its own words, status and headers."""

from __future__ import annotations

import json
from email.utils import parsedate_to_datetime
from typing import Any, get_args

import pytest

from midwatch.drills.rehearsal import refusals
from midwatch.drills.rehearsal.question import Api
from midwatch.drills.rehearsal.refusals import Kind, Refused, RetryForm


def said(api: Api, refused: Refused) -> tuple[int, Any, dict[str, str]]:
    reply = refusals.reply(refused, api, "req_1", 1_000_000_000.5)
    assert isinstance(reply.body, bytes)
    return reply.status, json.loads(reply.body), reply.headers


@pytest.mark.parametrize("api", get_args(Api))
@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_has_its_body_in_every_dialect(api: Api, kind: Kind) -> None:
    status, body, _ = said(api, Refused(kind, model="m-1"))
    assert status >= 400
    inner = body["error"]
    assert inner["message"]
    assert "{" not in inner["message"]
    if api == "messages":
        assert set(body) == {"type", "error", "request_id"}
        assert (body["type"], body["request_id"], set(inner)) == ("error", "req_1", {"type", "message"})  # fmt: skip
    elif api == "generate":
        assert (inner["code"], inner["status"]) == (status, inner["status"].upper())
    else:
        assert set(inner) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("api", "kind", "status", "sign"),
    [
        ("chat", Kind.CONTEXT_LENGTH, 400, "context_length_exceeded"),
        ("messages", Kind.CONTEXT_LENGTH, 400, "prompt is too long"),
        ("generate", Kind.CONTEXT_LENGTH, 400, "input token count"),
        ("chat", Kind.QUOTA, 429, "insufficient_quota"),
        ("messages", Kind.QUOTA, 400, "credit balance is too low"),
        ("generate", Kind.QUOTA, 429, "PerDay"),
        ("chat", Kind.RATE_LIMIT, 429, "rate_limit_exceeded"),
        ("generate", Kind.CREDENTIALS, 400, "API_KEY_INVALID"),
        ("messages", Kind.OVERLOADED, 529, "overloaded_error"),
        ("chat", Kind.OVERLOADED, 503, "service_unavailable"),
        ("responses", Kind.CONTENT_POLICY, 400, "invalid_prompt"),
        ("chat", Kind.UNKNOWN_PARAMETER, 400, "unknown_parameter"),
        ("messages", Kind.UNKNOWN_PARAMETER, 400, "Extra inputs are not permitted"),
        ("generate", Kind.UNKNOWN_PARAMETER, 400, "Cannot find field"),
    ],
)
def test_a_kind_is_recognised_by_its_words(api: Api, kind: Kind, status: int, sign: str) -> None:
    got, body, _ = said(api, Refused(kind))
    assert got == status
    assert sign in json.dumps(body)


@pytest.mark.parametrize(
    ("form", "headers"),
    [
        ("both", {"retry-after": "3", "retry-after-ms": "2500"}),
        ("seconds", {"retry-after": "3"}),
        ("ms", {"retry-after-ms": "2500"}),
        ("none", {}),
        ("info", {}),
    ],
)
def test_when_to_come_back_is_told_in_the_form_that_is_ordered(
    form: RetryForm, headers: dict[str, str]
) -> None:
    refused = Refused(Kind.RATE_LIMIT, retry_after_s=2.5, retry_form=form)
    got = said("chat", refused)[2]
    assert {k: v for k, v in got.items() if k.startswith("retry")} == headers


def test_a_date_to_come_back_is_never_too_early() -> None:
    refused = Refused(Kind.RATE_LIMIT, retry_after_s=2.5, retry_form="date")
    date = parsedate_to_datetime(said("chat", refused)[2]["retry-after"])
    assert date.timestamp() == 1_000_000_003


def test_google_tells_in_the_body_when_to_come_back() -> None:
    _, body, headers = said("generate", Refused(Kind.RATE_LIMIT, retry_after_s=2.5))
    assert body["error"]["details"][-1] == {
        "@type": "type.googleapis.com/google.rpc.RetryInfo",
        "retryDelay": "2.5s",
    }
    assert "retry-after" not in headers


def test_an_order_may_say_other_things() -> None:
    refused = Refused(Kind.BAD_REQUEST, "no", status=418, param="tea")
    status, body, _ = said("chat", refused)
    assert (status, body["error"]["message"], body["error"]["param"]) == (418, "no", "tea")


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, Kind.BAD_REQUEST), (418, Kind.BAD_REQUEST), (429, Kind.RATE_LIMIT), (507, Kind.SERVER)],
)
def test_a_bare_status_stands_for_a_kind(status: int, kind: Kind) -> None:
    assert refusals.kind_of(status) is kind
