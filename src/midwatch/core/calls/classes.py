"""Classes of failures: why a call failed, whose fault it is, and what follows. The reactions are a table.

A class is found by the typed code first, then by the status, and by the provider's words last, with anchored
patterns: a number within a text says nothing. What cannot be told is `unknown` and treated as the request's
own fault: nothing is cooled down by it, nothing tried again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from midwatch.core.calls import complaint, patience
from midwatch.core.calls.ask import Kind
from midwatch.core.calls.complaint import Complaint


class ErrorClass(StrEnum):
    """Why a call failed."""

    TRANSIENT = (
        "transient"  # of the provider or the way to it: a server's error, a cut, a time limit
    )
    OVERLOADED = "overloaded"  # the provider has too much to do
    RATE_LIMIT = "rate_limit"  # this key asked too much in a short time
    QUOTA = "quota"  # what this key may use is used up: credit, a day's or a month's limit
    CREDENTIALS = "credentials"  # the provider does not accept the key, whatever is asked
    FORBIDDEN = (
        "forbidden"  # the provider does not let this key do this one thing: a file, a model, a size
    )
    NOT_FOUND = "not_found"  # the provider does not serve this model
    CONTEXT_LENGTH = "context_length"  # the request does not fit into the model's window
    CONTENT_POLICY = "content_policy"  # the provider will not answer this
    BAD_REQUEST = "bad_request"  # wrong for every provider
    UNREADABLE = (
        "unreadable"  # something came that is no answer; asking here again would cost as much
    )
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed attempt."""

    kind: ErrorClass
    reason: str
    """The provider's words: one line, bounded, without keys."""
    retry_after_s: float | None = None
    """The pause that the provider asked for."""
    code: str = ""
    """The typed code that decided, or the most telling one."""
    status: int = 0
    """0: no answer came."""
    one_model: bool = False
    """It is a limit of this one model: its key serves the others as before."""


@dataclass(frozen=True, slots=True)
class Reaction:
    """What follows a failure."""

    here: bool
    """The same place may be asked again."""
    another_key: bool
    """The failure is the key's: another key of the same provider is asked at once, and the key cools."""
    wait: bool
    """With the same key, after a pause."""
    next: bool
    """The next place of the chain is asked, where it admits the call."""
    counts: bool
    """It counts for the place's breaker."""
    final: bool
    """It is passed on as it is."""
    page: bool = False
    """A person should know, since it does not mend itself."""


# fmt: off
REACTIONS: Final[Mapping[ErrorClass, Reaction]] = {
    #                                     here  another_key wait   next   counts final  page
    ErrorClass.TRANSIENT:      Reaction(True,  False,      True,  True,  True,  False),
    ErrorClass.OVERLOADED:     Reaction(True,  False,      True,  True,  True,  False),
    ErrorClass.RATE_LIMIT:     Reaction(True,  True,       True,  True,  False, False),
    ErrorClass.QUOTA:          Reaction(True,  True,       False, True,  False, False, True),
    ErrorClass.CREDENTIALS:    Reaction(True,  True,       False, True,  False, False, True),
    ErrorClass.FORBIDDEN:      Reaction(True,  True,       False, True,  False, False),
    ErrorClass.NOT_FOUND:      Reaction(False, False,      False, True,  False, False),
    ErrorClass.CONTEXT_LENGTH: Reaction(False, False,      False, True,  False, False),
    ErrorClass.UNREADABLE:     Reaction(False, False,      False, True,  False, False),
    ErrorClass.CONTENT_POLICY: Reaction(False, False,      False, False, False, True),
    ErrorClass.BAD_REQUEST:    Reaction(False, False,      False, False, False, True),
    ErrorClass.UNKNOWN:        Reaction(False, False,      False, False, False, True),
}
# fmt: on


def reaction(failure: Failure) -> Reaction:
    """Return what follows a failure."""
    return REACTIONS[failure.kind]


CODES: Final[Mapping[str, ErrorClass]] = {
    code: kind
    for kind, codes in {
        ErrorClass.QUOTA: (
            "insufficient_quota billing_hard_limit_reached billing_not_active billing_error"
            " insufficient_balance insufficient_credits organization_spend_limit_exceeded"
            " project_spend_limit_exceeded exceeded_current_quota_error quota_exceeded payment_required"
        ),
        ErrorClass.RATE_LIMIT: "rate_limit_exceeded rate_limit_error rate_limited ratelimitreached"
        " too_many_requests toomanyrequests rate_limit_reached_error rate_limit",
        ErrorClass.CREDENTIALS: (
            "invalid_api_key authentication_error unauthenticated api_key_invalid api_key_expired"
            " api_key_service_blocked api_key_http_referrer_blocked api_key_ip_address_blocked"
            " service_disabled consumer_suspended account_deactivated invalid_authentication_error"
            " invalid_organization ip_not_authorized unauthorized unsupported_country_region_territory"
            " no_auth_error expired_api_key"
        ),
        ErrorClass.FORBIDDEN: "permission_error permission_denied permissiondenied",
        ErrorClass.CONTEXT_LENGTH: "context_length_exceeded context_window_exceeded model_max_context_exceeded"
        " exceed_context_size_error",
        ErrorClass.CONTENT_POLICY: "content_policy_violation content_filter moderation_blocked invalid_prompt"
        " responsibleaipolicyviolation data_inspection_failed cyber_policy_violation sensitive_words_detected",
        ErrorClass.NOT_FOUND: "model_not_found not_found_error deploymentnotfound unknown_model model_not_active"
        " model_decommissioned model_terms_required invalid_model model_not_available no_such_model",
        ErrorClass.OVERLOADED: "overloaded_error overloaded server_overloaded engine_overloaded slow_down"
        " engine_overloaded_error capacity_exceeded model_overloaded service_tier_capacity_exceeded",
        ErrorClass.TRANSIENT: "api_error server_error internal_error internal_server_error timeout_error"
        " service_unavailable service_unavailable_error internalservererror vector_store_timeout internal"
        " deadline_exceeded bad_gateway gateway_timeout request_timeout",
        ErrorClass.BAD_REQUEST: "previous_response_not_found unsupported_parameter unsupported_value"
        " unknown_parameter invalid_value missing_required_parameter json_validate_failed tool_use_failed"
        " invalid_image invalid_image_format invalid_base64_image image_parse_error"
        " string_above_max_length array_above_max_length",
    }.items()
    for code in codes.split()
}
"""Codes that say all, in lower case: `code` and `type` of OpenAI's dialect, `type` of Anthropic's, `reason`
of Google's details."""

_VAGUE: Final[Mapping[str, ErrorClass]] = {
    "invalid_request_error": ErrorClass.BAD_REQUEST,
    "invalid_argument": ErrorClass.BAD_REQUEST,
    "failed_precondition": ErrorClass.BAD_REQUEST,
    "not_found": ErrorClass.NOT_FOUND,
    "resource_exhausted": ErrorClass.RATE_LIMIT,
    "unavailable": ErrorClass.OVERLOADED,
    "cancelled": ErrorClass.TRANSIENT,
    "aborted": ErrorClass.TRANSIENT,
    "unknown": ErrorClass.TRANSIENT,
}
"""Codes that say less than a status: asked only where there is none, as in an event of a stream."""

_BY_STATUS: Final[Mapping[int, ErrorClass]] = {
    400: ErrorClass.BAD_REQUEST,
    401: ErrorClass.CREDENTIALS,
    402: ErrorClass.QUOTA,
    403: ErrorClass.FORBIDDEN,  # one request can ask for what no key may do: that takes no key from the others
    404: ErrorClass.NOT_FOUND,
    405: ErrorClass.BAD_REQUEST,
    406: ErrorClass.BAD_REQUEST,
    408: ErrorClass.TRANSIENT,
    409: ErrorClass.TRANSIENT,  # a lock; the official clients try again, too
    411: ErrorClass.BAD_REQUEST,
    413: ErrorClass.BAD_REQUEST,
    415: ErrorClass.BAD_REQUEST,
    422: ErrorClass.BAD_REQUEST,
    424: ErrorClass.TRANSIENT,  # something behind it failed
    425: ErrorClass.TRANSIENT,
    429: ErrorClass.RATE_LIMIT,
    431: ErrorClass.BAD_REQUEST,
    498: ErrorClass.OVERLOADED,  # Groq: no capacity for the flex tier
    499: ErrorClass.TRANSIENT,
    503: ErrorClass.OVERLOADED,
    529: ErrorClass.OVERLOADED,  # Anthropic
}

_START: Final = "^(?:provider returned error: )?"
"""The beginning of what a provider says, also where a router quotes it."""

_LIMITS: Final = frozenset((402, 403, 429))
"""Statuses of what was asked too often, or is not paid for."""

_OVERRULES: Final = tuple(
    (re.compile(pattern.replace("^", _START), re.IGNORECASE), kind)
    for pattern, kind in (
        # what is too large for a limit never fits, however long one waits
        (r"^request too large for\b", ErrorClass.CONTEXT_LENGTH),
        (r"\bon (?:requests|tokens) per day \((?:RPD|TPD)\)", ErrorClass.QUOTA),
        # a key of few scopes, a small credit: other requests may do
        (r"^you have insufficient permissions for this operation\b", ErrorClass.FORBIDDEN),
        (r"^this request requires more credits\b", ErrorClass.FORBIDDEN),
    )
)
"""Words that say more than the code beside them (OpenAI and Groq put both under rate_limit_exceeded)."""

_WORDS: Final = tuple(
    (re.compile(pattern.replace("^", _START), re.IGNORECASE), kind)
    for pattern, kind in (
        (r"^prompt is too long\b", ErrorClass.CONTEXT_LENGTH),
        (r"\binput length and `?max_tokens`? exceed context limit\b", ErrorClass.CONTEXT_LENGTH),
        (r"\bmaximum context length is [0-9]+ tokens\b", ErrorClass.CONTEXT_LENGTH),
        (r"\bthe input token count \([0-9]+\) exceeds the maximum\b", ErrorClass.CONTEXT_LENGTH),
        (r"\blonger than the (?:maximum model|model's context) length\b", ErrorClass.CONTEXT_LENGTH),
        (r"\btoo large for model with [0-9]+ maximum context length\b", ErrorClass.CONTEXT_LENGTH),
        (r"\bexceeds? the (?:available|model's(?: maximum)?) context (?:size|length|window)\b", ErrorClass.CONTEXT_LENGTH),
        (r"\boutput blocked by content filtering policy\b", ErrorClass.CONTENT_POLICY),
        (r"^your request was rejected as a result of our safety system\b", ErrorClass.CONTENT_POLICY),
        (r"\brequires moderation on\b", ErrorClass.CONTENT_POLICY),
        (r"^the response was filtered due to the prompt triggering\b", ErrorClass.CONTENT_POLICY),
        (r"\bmodel [`'\"]?[\w.:/-]{1,200}[`'\"]? (?:not found|does not exist)\b", ErrorClass.NOT_FOUND),
        (r"^models/[\w.:/-]{1,200} is not found\b", ErrorClass.NOT_FOUND),
        (r"^model not exist\b", ErrorClass.NOT_FOUND),
        (r"\bis not a valid model id\b", ErrorClass.NOT_FOUND),
        (r"^(?:the )?model is overloaded\b", ErrorClass.OVERLOADED),
        (r"^your credit balance is too low\b", ErrorClass.QUOTA),
        (r"^you have reached your specified (?:workspace )?api usage limits\b", ErrorClass.QUOTA),
        (r"^insufficient (?:balance|credits|funds)\b", ErrorClass.QUOTA),
        (r"\bmonthly (?:spend|usage|spending) limit\b", ErrorClass.QUOTA),
        (r"^this organization has been disabled\b", ErrorClass.CREDENTIALS),
        (r"^api key (?:not valid|expired|not found)\b", ErrorClass.CREDENTIALS),
        (r"^your api key was reported as leaked\b", ErrorClass.CREDENTIALS),
        (r"^user location is not supported\b", ErrorClass.CREDENTIALS),
    )
)  # fmt: skip
"""Asked last, and only where code and status say no more than that something is wrong. What takes a key away from
everybody stands behind what does not: a refusal may repeat words of the request that it refuses, so that these must
begin it, or come with a status that no request brings about by its words (`_believed`)."""

_OPEN_TO_WORDS: Final = frozenset(
    (
        ErrorClass.BAD_REQUEST,
        ErrorClass.UNKNOWN,
        ErrorClass.TRANSIENT,
        ErrorClass.CREDENTIALS,
        ErrorClass.FORBIDDEN,
    )
)


def classify(
    kind: Kind,
    status: int,
    headers: Iterable[tuple[str, str]],
    body: bytes | object,
    *,
    now: float,
    stream_event: bool = False,
) -> Failure:
    """Return the failure that an error of a provider is.

    `body`: its first 64 KiB as bytes, or decoded; with `stream_event` the data of an error event, which came
    after a status of success. `now` in Unix seconds. Nothing raises.
    """
    said = complaint.read(body) if isinstance(body, bytes) else complaint.of(body)
    names = {name.lower(): value for name, value in headers}
    effective = (said.status or 0) if stream_event or status < 300 else status
    found, code = _find(kind, effective, said)
    daily = any("perday" in quota.lower() for quota in said.quotas)
    pause = patience.asked(
        names,
        now,
        # Google repeats a delay of seconds also when a day's quota is gone
        delay=None if daily else said.delay,
        message=said.message,
    )
    reason = said.message or code or (f"status {status}" if status else "an error without a word")
    told = status if not stream_event else effective
    return Failure(found, reason, pause, code, told, _of_one_model(kind, found, said))


def broken(reason: str, *, code: str = "connection") -> Failure:
    """Return the failure of a call that got no answer, or not the whole: connection, time limit, cut."""
    return Failure(ErrorClass.TRANSIENT, reason, None, code, 0)


def _find(kind: Kind, status: int, said: Complaint) -> tuple[ErrorClass, str]:
    """Return class and deciding code.

    1. a quota that Google names; 2. a typed code that says all; 3. the status; 4. a vague code where there is
    no status; 5. words, where all that says no more than that something is wrong.
    """
    first = said.codes[0] if said.codes else ""
    quota = _by_quota(said) if kind is Kind.GEMINI or said.quotas else None
    if quota is not None:
        return quota, said.quotas[0] if said.quotas else first
    for pattern, found in _OVERRULES:
        if pattern.search(said.message) and _believed(pattern, found, status):
            return found, first
    for code in said.codes:
        found = CODES.get(code)
        # OpenAI's 429 and 5xx carry general types, too: a code must not make a server's error the request's
        if found is not None and not (found is ErrorClass.BAD_REQUEST and status >= 500):
            return _by_words(said, found, status), code
    found = _by_status(status, said)
    if found is ErrorClass.UNKNOWN:
        code = next((c for c in said.codes if c in _VAGUE), first)
        return _by_words(said, _VAGUE.get(code, found), status), code
    return _by_words(said, found, status), first


_LIMITED: Final = frozenset((ErrorClass.RATE_LIMIT, ErrorClass.QUOTA))

_FOR_MODEL: Final = re.compile(
    r"\brate limit reached for (?:model )?[`'\"]?[\w.:/-]{1,200}[`'\"]? (?:in|on)\b", re.IGNORECASE
)
"""OpenAI and Groq: `Rate limit reached for gpt-4o in organization …`."""


def _of_one_model(kind: Kind, found: ErrorClass, said: Complaint) -> bool:
    """Tell whether a limit is one model's: a single request for a model of which a key has none, or more at once
    than it has, must not take the key from everybody else."""
    if found not in _LIMITED:
        return False
    if (
        kind is Kind.ANTHROPIC
    ):  # docs.anthropic.com/en/api/rate-limits: "applied separately for each model"
        return found is ErrorClass.RATE_LIMIT
    if said.quotas:
        return all("permodel" in quota.lower() for quota in said.quotas)
    return _FOR_MODEL.search(said.message) is not None


def _by_status(status: int, said: Complaint) -> ErrorClass:
    if said.html and status not in (401, 404, 407):
        return ErrorClass.TRANSIENT  # something between us and the provider speaks
    if 300 <= status < 400:
        return ErrorClass.TRANSIENT  # a redirect: not followed, since it would carry the key away
    found = _BY_STATUS.get(status)
    if found is not None:
        return found
    return ErrorClass.TRANSIENT if status >= 500 else ErrorClass.UNKNOWN


def _by_words(said: Complaint, found: ErrorClass, status: int) -> ErrorClass:
    if found not in _OPEN_TO_WORDS:
        return found
    for pattern, kind in _WORDS:
        if pattern.search(said.message) and _believed(pattern, kind, status):
            return kind
    return found


def _believed(pattern: re.Pattern[str], kind: ErrorClass, status: int) -> bool:
    """Tell whether words are the provider's own, and not repeated from the request."""
    return kind is not ErrorClass.QUOTA or status in _LIMITS or pattern.pattern.startswith("^")


def _by_quota(said: Complaint) -> ErrorClass | None:
    """Return what Google's `quotaId` says: GenerateRequestsPerDayPerProjectPerModel-FreeTier and the like."""
    if not said.quotas:
        return None
    ids = [quota.lower() for quota in said.quotas]
    return ErrorClass.QUOTA if any("perday" in i for i in ids) else ErrorClass.RATE_LIMIT
