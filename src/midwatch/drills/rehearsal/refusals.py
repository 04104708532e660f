"""How each provider says no: status, body and headers, in its own words.

A refusal has a kind; what a client sees of it differs by dialect. OpenAI puts the kind into `code`,
Anthropic into `type`, Google into a canonical status with typed details; some kinds have another
status code at one of them (a used-up quota is 429 at OpenAI and Google, 400 at Anthropic).
Source: platform.openai.com/docs/guides/error-codes; docs.anthropic.com/en/api/errors;
ai.google.dev/gemini-api/docs/troubleshooting; google.aip.dev/193.
"""

from __future__ import annotations

import math
from email.utils import formatdate
from enum import StrEnum
from typing import Final, Literal, NamedTuple

from midwatch.drills.rehearsal.http import Reply, json_reply
from midwatch.drills.rehearsal.question import Api, BadQuestion, Json

RetryForm = Literal["both", "seconds", "date", "ms", "info", "none"]
"""How a client is told when to come back: headers (seconds and milliseconds, one of these, an HTTP
date), Google's RetryInfo in the body, or not at all."""


class Kind(StrEnum):
    """Why a call is refused."""

    BAD_REQUEST = "bad-request"
    UNKNOWN_PARAMETER = "unknown-parameter"
    CONTEXT_LENGTH = "context-length"
    CONTENT_POLICY = "content-policy"
    CREDENTIALS = "credentials"
    NO_KEY = "no-key"
    PAYMENT = "payment"
    PERMISSION = "permission"
    NOT_FOUND = "not-found"
    TOO_LARGE = "too-large"
    RATE_LIMIT = "rate-limit"
    QUOTA = "quota"
    SERVER = "error"
    OVERLOADED = "overloaded"
    TIMEOUT = "timeout"


class Refused(Exception):
    """The call is answered with an error in the dialect's own form.

    `status`, `message` and `param` replace what the dialect says by itself.
    """

    def __init__(
        self,
        kind: Kind,
        message: str | None = None,
        *,
        status: int | None = None,
        param: str | None = None,
        model: str = "",
        retry_after_s: float | None = None,
        retry_form: RetryForm | None = None,
    ) -> None:
        super().__init__(message or kind.value)
        self.kind = kind
        self.message = message
        self.status = status
        self.param = param
        self.model = model
        self.retry_after_s = retry_after_s
        self.retry_form = retry_form

    @classmethod
    def of(cls, bad: BadQuestion) -> Refused:
        """Return the refusal of a body that is no request."""
        return cls(kind_of(bad.status), str(bad), status=bad.status, param=bad.param)


class _Words(NamedTuple):
    status: int
    type: str
    code: str | None
    message: str


_OPENAI: Final[dict[Kind, _Words]] = {
    Kind.BAD_REQUEST: _Words(
        400, "invalid_request_error", "invalid_value", "Invalid value for '{param}'."
    ),
    Kind.UNKNOWN_PARAMETER: _Words(
        400, "invalid_request_error", "unknown_parameter", "Unknown parameter: '{param}'."
    ),
    Kind.CONTEXT_LENGTH: _Words(
        400,
        "invalid_request_error",
        "context_length_exceeded",
        "This model's maximum context length is 128000 tokens. However, your messages resulted in "
        "130042 tokens. Please reduce the length of the messages.",
    ),
    Kind.CONTENT_POLICY: _Words(
        400,
        "invalid_request_error",
        "content_policy_violation",
        "Your request was rejected as a result of our safety system.",
    ),
    Kind.CREDENTIALS: _Words(
        401,
        "invalid_request_error",
        "invalid_api_key",
        "Incorrect API key provided (rehearsed); check the key.",
    ),
    Kind.NO_KEY: _Words(
        401,
        "invalid_request_error",
        None,
        "You didn't provide an API key; any key will do, for example `rehearsal`.",
    ),
    Kind.PAYMENT: _Words(
        402, "insufficient_balance", "insufficient_balance", "Insufficient Balance"
    ),
    Kind.PERMISSION: _Words(
        403,
        "invalid_request_error",
        "model_not_allowed",
        "Project does not have access to model `{model}`.",
    ),
    Kind.NOT_FOUND: _Words(
        404,
        "invalid_request_error",
        "model_not_found",
        "The model `{model}` does not exist or you do not have access to it.",
    ),
    Kind.TOO_LARGE: _Words(
        413, "invalid_request_error", None, "Maximum content size limit exceeded."
    ),
    Kind.RATE_LIMIT: _Words(
        429,
        "requests",
        "rate_limit_exceeded",
        "Rate limit reached for {model} on requests per min (RPM): Limit 500, Used 500, Requested 1. "
        "Please try again in {wait}s.",
    ),
    Kind.QUOTA: _Words(
        429,
        "insufficient_quota",
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details.",
    ),
    Kind.SERVER: _Words(
        500,
        "server_error",
        None,
        "The server had an error while processing your request (rehearsed).",
    ),
    Kind.OVERLOADED: _Words(503, "service_unavailable_error", None, "Overloaded"),
    Kind.TIMEOUT: _Words(504, "server_error", "timeout", "Request timed out."),
}

_ANTHROPIC: Final[dict[Kind, _Words]] = {
    Kind.BAD_REQUEST: _Words(400, "invalid_request_error", None, "{param}: Input should be valid"),
    Kind.UNKNOWN_PARAMETER: _Words(
        400, "invalid_request_error", None, "{param}: Extra inputs are not permitted"
    ),
    Kind.CONTEXT_LENGTH: _Words(
        400,
        "invalid_request_error",
        None,
        "prompt is too long: 210042 tokens > 200000 maximum",
    ),
    Kind.CONTENT_POLICY: _Words(
        400, "invalid_request_error", None, "Output blocked by content filtering policy"
    ),
    Kind.CREDENTIALS: _Words(401, "authentication_error", None, "invalid x-api-key"),
    Kind.NO_KEY: _Words(
        401,
        "authentication_error",
        None,
        "x-api-key header is required; any key will do, for example `rehearsal`.",
    ),
    Kind.PAYMENT: _Words(
        402, "billing_error", None, "Your account has a problem with its billing."
    ),
    Kind.PERMISSION: _Words(
        403,
        "permission_error",
        None,
        "Your API key does not have permission to use the specified resource.",
    ),
    Kind.NOT_FOUND: _Words(404, "not_found_error", None, "model: {model}"),
    Kind.TOO_LARGE: _Words(413, "request_too_large", None, "Request exceeds the maximum size"),
    Kind.RATE_LIMIT: _Words(
        429,
        "rate_limit_error",
        None,
        "This request would exceed your organization's rate limit of 50 requests per minute.",
    ),
    Kind.QUOTA: _Words(
        400,
        "invalid_request_error",
        None,
        "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to "
        "upgrade or purchase credits.",
    ),
    Kind.SERVER: _Words(500, "api_error", None, "Internal server error"),
    Kind.OVERLOADED: _Words(529, "overloaded_error", None, "Overloaded"),
    Kind.TIMEOUT: _Words(504, "timeout_error", None, "Request timed out"),
}

_GEMINI: Final[dict[Kind, _Words]] = {
    Kind.BAD_REQUEST: _Words(
        400, "INVALID_ARGUMENT", None, "Request contains an invalid argument."
    ),
    Kind.UNKNOWN_PARAMETER: _Words(
        400,
        "INVALID_ARGUMENT",
        None,
        'Invalid JSON payload received. Unknown name "{param}": Cannot find field.',
    ),
    Kind.CONTEXT_LENGTH: _Words(
        400,
        "INVALID_ARGUMENT",
        None,
        "The input token count (1048642) exceeds the maximum number of tokens allowed (1048576).",
    ),
    Kind.CONTENT_POLICY: _Words(400, "INVALID_ARGUMENT", None, "The request was blocked: SAFETY."),
    Kind.CREDENTIALS: _Words(
        400,
        "INVALID_ARGUMENT",
        "API_KEY_INVALID",
        "API key not valid. Please pass a valid API key.",
    ),
    Kind.NO_KEY: _Words(
        403,
        "PERMISSION_DENIED",
        None,
        "Method doesn't allow unregistered callers (callers without established identity). Please use "
        "API Key or other form of API consumer identity to call this API.",
    ),
    Kind.PAYMENT: _Words(402, "FAILED_PRECONDITION", None, "Billing is not enabled."),
    Kind.PERMISSION: _Words(403, "PERMISSION_DENIED", None, "The caller does not have permission."),
    Kind.NOT_FOUND: _Words(
        404,
        "NOT_FOUND",
        None,
        "models/{model} is not found for API version v1beta, or is not supported for generateContent.",
    ),
    Kind.TOO_LARGE: _Words(
        413, "INVALID_ARGUMENT", None, "Request payload size exceeds the limit: 20971520 bytes."
    ),
    Kind.RATE_LIMIT: _Words(
        429,
        "RESOURCE_EXHAUSTED",
        "GenerateRequestsPerMinutePerProjectPerModel",
        "You exceeded your current quota, please check your plan and billing details. "
        "Please retry in {wait}s.",
    ),
    Kind.QUOTA: _Words(
        429,
        "RESOURCE_EXHAUSTED",
        "GenerateRequestsPerDayPerProjectPerModel",
        "You exceeded your current quota, please check your plan and billing details.",
    ),
    Kind.SERVER: _Words(500, "INTERNAL", None, "An internal error has occurred. Please retry."),
    Kind.OVERLOADED: _Words(
        503, "UNAVAILABLE", None, "The model is overloaded. Please try again later."
    ),
    Kind.TIMEOUT: _Words(
        504, "DEADLINE_EXCEEDED", None, "Deadline expired before operation ended."
    ),
}

_BY_STATUS: Final = {
    400: Kind.BAD_REQUEST,
    401: Kind.CREDENTIALS,
    402: Kind.PAYMENT,
    403: Kind.PERMISSION,
    404: Kind.NOT_FOUND,
    413: Kind.TOO_LARGE,
    429: Kind.RATE_LIMIT,
    503: Kind.OVERLOADED,
    504: Kind.TIMEOUT,
    529: Kind.OVERLOADED,
}
_CANONICAL: Final = {
    401: "UNAUTHENTICATED",
    409: "ABORTED",
    499: "CANCELLED",
    501: "UNIMPLEMENTED",
}
"""Google's names of statuses that stand for no kind of their own."""


def kind_of(status: int) -> Kind:
    """Return the kind that a bare status code stands for."""
    return _BY_STATUS.get(status, Kind.SERVER if status >= 500 else Kind.BAD_REQUEST)


def _table(api: Api) -> dict[Kind, _Words]:
    return {"messages": _ANTHROPIC, "generate": _GEMINI}.get(api, _OPENAI)


def status_of(refused: Refused, api: Api) -> int:
    """Return the status code that a refusal has in a dialect."""
    return refused.status or _table(api)[refused.kind].status


def body(refused: Refused, api: Api, request_id: str | None = None) -> Json:
    """Return the body of a refusal in a dialect; also what an error event in a stream carries."""
    words = _table(api)[refused.kind]
    wait = f"{refused.retry_after_s or 0:g}"
    param = refused.param or "temperature"
    said = words.message.format(model=refused.model, param=param, wait=wait)
    message = refused.message or said
    if api == "messages":
        inner: Json = {"type": words.type, "message": message}
        return {"type": "error", "error": inner, "request_id": request_id}
    if api == "generate":
        return {"error": _google(refused, words, message)}
    named = refused.kind in {Kind.BAD_REQUEST, Kind.UNKNOWN_PARAMETER}
    if refused.kind is Kind.CONTEXT_LENGTH:
        shown = "input" if api == "responses" else "messages"
    else:
        shown = refused.param or (param if named and refused.message is None else None)
    code = words.code
    if refused.kind is Kind.BAD_REQUEST and refused.message is not None:
        code = None
    if refused.kind is Kind.CONTENT_POLICY and api == "responses":
        code = "invalid_prompt"
    return {"error": {"message": message, "type": words.type, "param": shown, "code": code}}


def _google(refused: Refused, words: _Words, message: str) -> Json:
    status = refused.status or words.status
    name = words.type if status == words.status else _CANONICAL.get(status, words.type)
    inner: Json = {"code": status, "message": message, "status": name}
    details: list[Json] = []
    match refused.kind:
        case Kind.CREDENTIALS:
            details.append(
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": words.code,
                    "domain": "googleapis.com",
                    "metadata": {"service": "generativelanguage.googleapis.com"},
                }
            )
        case Kind.RATE_LIMIT | Kind.QUOTA:
            failed = {"quotaId": words.code, "quotaDimensions": {"model": refused.model}}
            details.append(
                {
                    "@type": "type.googleapis.com/google.rpc.QuotaFailure",
                    "violations": [failed],
                }
            )
        case Kind.UNKNOWN_PARAMETER:
            details.append(
                {
                    "@type": "type.googleapis.com/google.rpc.BadRequest",
                    "fieldViolations": [{"description": message}],
                }
            )
        case _:
            pass
    if refused.retry_after_s is not None and refused.retry_form in {None, "info"}:
        details.append(
            {
                "@type": "type.googleapis.com/google.rpc.RetryInfo",
                "retryDelay": f"{refused.retry_after_s:g}s",
            }
        )
    if details:
        inner["details"] = details
    return inner


def reply(refused: Refused, api: Api, request_id: str, now: float) -> Reply:
    """Return the whole answer to a call that is refused. `now` is for a date to come back at."""
    answer = json_reply(body(refused, api, request_id), status_of(refused, api))
    wait = refused.retry_after_s
    form = refused.retry_form or ("info" if api == "generate" else "both")
    if wait is not None:  # the header is whole seconds by its definition; clients read both
        if form in {"both", "seconds"}:
            answer.headers["retry-after"] = str(math.ceil(wait))
        if form in {"both", "ms"}:
            answer.headers["retry-after-ms"] = str(round(wait * 1000))
        if form == "date":
            answer.headers["retry-after"] = formatdate(math.ceil(now + wait), usegmt=True)
    if api == "messages":
        answer.headers["x-should-retry"] = "true" if answer.status in _RETRIED else "false"
    return answer


_RETRIED: Final = frozenset({408, 409, 429, 500, 502, 503, 504, 529})
