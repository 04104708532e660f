"""Misbehaviour to order: which call is to go wrong, and how.

A behaviour says for whom it holds (model, agent, key, task, API, path, stream, a field of the body)
and how often (by count or by probability); `mode` says what goes wrong, by phase:

    before the head   refusals (any status), html, redirect, cut, stall, slow
    the head          shape: content type, declared length, headers, gzip
    the body          slow, cut, stall, error, json, endless, no-end
    what it says      refusal, loop, arguments, shape: usage, model, tier, length of the text

What `shape` can do (`sse`, `usage`, `words`, …) also holds beside any other mode when it is given, and
so do `first_token` and `between`.
"""

from __future__ import annotations

import fnmatch
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from midwatch.core import units
from midwatch.drills.rehearsal.question import Api
from midwatch.drills.rehearsal.refusals import Kind, RetryForm


class Mode(StrEnum):
    OK = "ok"  # answer well, whatever later behaviours say
    SHAPE = "shape"  # answer well, in an odd form
    # refused before the first byte, each in the dialect's own words
    BAD_REQUEST = "bad-request"
    UNKNOWN_PARAMETER = "unknown-parameter"
    CONTEXT_LENGTH = "context-length"
    CONTENT_POLICY = "content-policy"
    REFUSE = "refuse"  # 401: the key is not accepted
    PAYMENT = "payment"  # 402
    PERMISSION = "permission"  # 403
    NOT_FOUND = "not-found"
    TOO_LARGE = "too-large"
    RATE_LIMIT = "rate-limit"  # 429 with Retry-After
    QUOTA = "quota"  # 429 too, but no waiting helps
    ERROR = "error"  # 500, or an error event in mid-stream
    OVERLOADED = "overloaded"  # 529 (Anthropic), 503 (others)
    TIMEOUT = "timeout"  # 504
    STATUS = "status"  # whatever `status` says
    HTML = "html"  # 502 with a page for people
    REDIRECT = "redirect"
    # while it travels
    SLOW = "slow"  # late first token, gaps between chunks
    CUT = "cut"  # the connection breaks
    STALL = "stall"  # silence, for as long as the client waits or `lasts` says
    JSON = "json"  # a body, or an event, that is no JSON
    NO_END = "no-end"  # a stream without its sentinel
    ENDLESS = "endless"  # it never ends
    # what the model says
    LOOP = "loop"  # always another tool call
    ARGUMENTS = "arguments"  # tool arguments that are no JSON
    REFUSAL = "refusal"  # the provider's filter ends the answer in the middle


REFUSALS: Final = {
    Mode.BAD_REQUEST: Kind.BAD_REQUEST,
    Mode.UNKNOWN_PARAMETER: Kind.UNKNOWN_PARAMETER,
    Mode.CONTEXT_LENGTH: Kind.CONTEXT_LENGTH,
    Mode.CONTENT_POLICY: Kind.CONTENT_POLICY,
    Mode.REFUSE: Kind.CREDENTIALS,
    Mode.PAYMENT: Kind.PAYMENT,
    Mode.PERMISSION: Kind.PERMISSION,
    Mode.NOT_FOUND: Kind.NOT_FOUND,
    Mode.TOO_LARGE: Kind.TOO_LARGE,
    Mode.RATE_LIMIT: Kind.RATE_LIMIT,
    Mode.QUOTA: Kind.QUOTA,
    Mode.ERROR: Kind.SERVER,
    Mode.OVERLOADED: Kind.OVERLOADED,
    Mode.TIMEOUT: Kind.TIMEOUT,
}
"""The modes that refuse a call, and why they say they do."""

PRESETS: Final[dict[str, dict[str, Any]]] = {
    "400": {"mode": "bad-request"},
    "401": {"mode": "refuse"},
    "402": {"mode": "payment"},
    "403": {"mode": "permission"},
    "404": {"mode": "not-found"},
    "413": {"mode": "too-large"},
    "429": {"mode": "rate-limit"},
    "500": {"mode": "error"},
    "502": {"mode": "html"},
    "503": {"mode": "overloaded"},
    "504": {"mode": "timeout"},
    "529": {"mode": "overloaded"},
    "no-usage": {"mode": "shape", "usage": "none"},
    "part-usage": {"mode": "shape", "usage": "part"},
    "other-model": {"mode": "shape", "served": "another-model"},
    "gzip": {"mode": "shape", "gzip": True},
    "reset": {"mode": "cut", "how": "reset"},
    "hang": {"mode": "no-end", "then": "hang"},
}
"""Short names that stand for a behaviour, in scripts, headers and behind a model's name."""

Sse = Literal[
    "crlf",
    "cr",
    "comments",
    "split",
    "packed",
    "bytes",
    "lines",
    "no-space",
    "bom",
    "ids",
    "long-line",
    "unterminated",
    "bad-utf8",
    "garbage",
]
"""Odd forms of a stream. All but the last three are good server-sent events that carry the same."""


def _mode(value: object) -> object:
    preset = PRESETS.get(str(value))
    return preset["mode"] if preset is not None and len(preset) == 1 else value


def _duration(value: object) -> object:
    if isinstance(value, str):
        return units.parse_duration(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected a duration such as 2s or 100ms, or seconds, got {value!r}")
    return value


def _ratio(value: object) -> object:
    return units.parse_ratio(value) if isinstance(value, str) else value


Seconds = Annotated[float, BeforeValidator(_duration), Field(ge=0, le=86_400, allow_inf_nan=False)]


class Behaviour(BaseModel):
    """One order. What is None holds for all."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Annotated[Mode, BeforeValidator(_mode)]
    # for whom: names may use * and ?
    model: str | None = None
    agent: str | None = None
    key: str | None = None
    task: str | None = None
    path: str | None = None
    api: Api | None = None
    stream: bool | None = None
    prefill: bool | None = None
    """Calls whose answer the client began itself, or those where it did not."""
    has: str | None = None
    """Calls whose body has a field of this name at its top."""
    # how often
    p: Annotated[float, BeforeValidator(_ratio), Field(ge=0, le=1)] = 1.0
    times: Annotated[int, Field(ge=1)] | None = None
    skip: Annotated[int, Field(ge=0)] = 0
    """Matching calls that still go well before it begins."""
    # when
    first_token: Seconds = 2.0
    between: Seconds = 0.2
    head_first: bool = False
    """slow, cut, stall: the head is sent at once, and it goes wrong behind it."""
    after_chunks: Annotated[int, Field(ge=0)] | None = None
    """cut, stall, error, json, endless: how much of a stream still arrives. None: mode's own (2; for
    error: 0)."""
    lasts: Seconds | None = None
    """stall: it goes on after this. None: it stays silent for as long as the client waits."""
    # refusals
    status: Annotated[int, Field(ge=100, le=599)] | None = None
    """Another status code than the dialect's; for `status` it decides the kind, too."""
    message: Annotated[str, Field(max_length=10_000)] | None = None
    param: Annotated[str, Field(max_length=200)] | None = None
    retry_after: Seconds = 1.0
    """Rate limits tell it always, other refusals when it is given."""
    retry_form: RetryForm | None = None
    location: Annotated[str, Field(max_length=1000, pattern=r"^[!-~]*$")] = (
        "https://example.invalid/"
    )
    """redirect: where to."""
    # how it breaks off
    how: Literal["close", "reset"] = "close"
    """cut: with a FIN after what was sent, or with a RST that may take it along."""
    drop: Annotated[int, Field(ge=1)] = 1
    """no-end: how many of the last events are left out; 1 is the sentinel alone."""
    then: Literal["end", "close", "hang"] = "end"
    """no-end, and a declared length that is too long: end in good order, close, or stay open."""
    # what it says, and in which form; these hold beside any mode
    same: bool = True
    """loop: with the same arguments each time."""
    words: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """The answer is a text of so many words."""
    served: Annotated[str, Field(max_length=200)] | None = None
    """The model that the answer names."""
    tier: Annotated[str, Field(max_length=100)] | None = None
    """The service tier that the answer names."""
    usage: Literal["none", "part", "zero", "text"] | None = None
    """Usage is missing, has only the input, is all zero, or no number. It is charged all the same."""
    sse: Sse | None = None
    gzip: bool = False
    """The body is compressed, asked or not."""
    padding: Annotated[int, Field(ge=0, le=1 << 30)] = 1_000_000
    """long-line: bytes that are added."""
    length_off: Annotated[int, Field(ge=-(1 << 20), le=1 << 20)] = 0
    """Bytes by which the declared length of a whole body is too long (or, below 0, too short)."""
    type: Annotated[str, Field(max_length=200, pattern=r"^[ -~]*$")] | None = None
    """The content type that is declared."""
    headers: dict[
        Annotated[str, Field(max_length=100, pattern=r"^[A-Za-z0-9-]+$")],
        Annotated[str, Field(max_length=1000, pattern=r"^[ -~]*$")],
    ] = {}
    """Headers that are added to the answer."""
    bill: Literal["nothing", "generated", "whole"] | None = None
    """What is billed. None: what had been generated, and nothing for a call that was refused."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: object) -> object:
        if isinstance(value, str | int):
            return PRESETS.get(str(value), {"mode": value})
        return value

    @model_validator(mode="after")
    def _complete(self) -> Behaviour:
        if self.mode is Mode.STATUS and self.status is None:
            raise ValueError("mode status needs status: a code such as 418")
        return self

    def holds_for(self, asked: Asked) -> bool:
        """Tell whether a call is one of those that it is about."""
        pairs = (
            (self.model, asked.model),
            (self.agent, asked.agent),
            (self.key, asked.key),
            (self.task, asked.task),
            (self.api, asked.api),
            (self.path, asked.path),
        )
        return (
            all(want is None or fnmatch.fnmatchcase(got, want) for want, got in pairs)
            and self.stream in (None, asked.stream)
            and self.prefill in (None, asked.prefill)
            and (self.has is None or self.has in asked.fields)
        )

    @property
    def chunks(self) -> int:
        """How many chunks of a stream arrive before it goes wrong."""
        if self.after_chunks is not None:
            return self.after_chunks
        return 0 if self.mode is Mode.ERROR else 2

    def sets(self, name: str) -> bool:
        """Tell whether the order names this field; `slow` names its times by itself."""
        own = self.mode is Mode.SLOW and name in {"first_token", "between"}
        return own or name in self.model_fields_set


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks what, as behaviours see it."""

    api: str
    model: str
    agent: str
    key: str
    task: str
    fingerprint: str
    path: str = ""
    stream: bool = False
    prefill: bool = False
    fields: frozenset[str] = frozenset()


def read(value: Any) -> Behaviour:
    """Return a behaviour from JSON or a mode's name. Raises ValueError that says what is wrong."""
    try:
        return Behaviour.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "behaviour"
        raise ValueError(f"{where}: {first['msg']}") from None


def read_header(text: str) -> Behaviour:
    """Return the behaviour that a header names: a mode, or a JSON object."""
    try:
        return read(json.loads(text) if text.lstrip().startswith("{") else text.strip())
    except json.JSONDecodeError as error:
        raise ValueError(f"expected a mode or a JSON object, got {text[:80]!r} ({error})") from None


_SUFFIXES: Final = frozenset({mode.value for mode in Mode} | set(PRESETS)) - {"status"}


def split_model(name: str) -> tuple[str, Behaviour | None]:
    """Return the model's own name, and the behaviour that follows its last colon, if one does."""
    model, colon, suffix = name.rpartition(":")
    if colon and model and suffix in _SUFFIXES:
        return model, read(suffix)
    return name, None
