"""Misbehaviour to order: which call is to go wrong, and how.

A behaviour says for whom it holds (model, agent, key, task, API) and how often (by count or by
probability). Chance is drawn from the seed, the question and the number of times it was asked, so
that a rehearsal repeats exactly and a retry may still succeed. The first behaviour that applies wins.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections import OrderedDict
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from midwatch.core import units


class Mode(StrEnum):
    OK = "ok"  # answer well, whatever later behaviours say
    SLOW = "slow"  # late first token, gaps between chunks
    RATE_LIMIT = "rate-limit"  # 429 with Retry-After
    ERROR = "error"  # 500, or an error event in mid-stream
    OVERLOADED = "overloaded"  # 529 (Anthropic), 503 (OpenAI)
    CUT = "cut"  # the connection breaks
    STALL = "stall"  # silence, for as long as the client waits
    LOOP = "loop"  # always another tool call
    JSON = "json"  # a body that is no JSON
    ARGUMENTS = "arguments"  # tool arguments that are no JSON
    REFUSE = "refuse"  # 401: the key is not accepted


ALIASES: Final = {
    "429": Mode.RATE_LIMIT,
    "500": Mode.ERROR,
    "503": Mode.OVERLOADED,
    "529": Mode.OVERLOADED,
    "401": Mode.REFUSE,
}
"""Status codes stand for their modes, in scripts and behind a model's name."""

MAX_BEHAVIOURS: Final = 1000
"""More are refused: a client in a loop must not fill the server's memory."""
MAX_COUNTED: Final = 10_000
"""Questions whose repetitions are counted; the one unused for longest starts again at 0."""


def _mode(value: object) -> object:
    return ALIASES.get(str(value), value)


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
    api: Literal["chat", "responses", "messages", "embeddings"] | None = None
    # how often
    p: Annotated[float, BeforeValidator(_ratio), Field(ge=0, le=1)] = 1.0
    times: Annotated[int, Field(ge=1)] | None = None
    skip: Annotated[int, Field(ge=0)] = 0
    """Matching calls that still go well before it begins."""
    # how
    first_token: Seconds = 2.0
    between: Seconds = 0.2
    retry_after: Seconds = 1.0
    after_chunks: Annotated[int, Field(ge=0)] | None = None
    """cut, stall, error: how much of a stream still arrives. None: mode's own (2; for error: 0)."""
    same: bool = True
    """loop: with the same arguments each time."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: object) -> object:
        return {"mode": value} if isinstance(value, str | int) else value

    def holds_for(self, asked: Asked) -> bool:
        """Tell whether a call is one of those that it is about."""
        pairs = (
            (self.model, asked.model),
            (self.agent, asked.agent),
            (self.key, asked.key),
            (self.task, asked.task),
            (self.api, asked.api),
        )
        return all(want is None or fnmatch.fnmatchcase(got, want) for want, got in pairs)

    @property
    def chunks(self) -> int:
        """How many chunks of a stream arrive before it goes wrong."""
        if self.after_chunks is not None:
            return self.after_chunks
        return 0 if self.mode is Mode.ERROR else 2


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks what, as behaviours see it."""

    api: str
    model: str
    agent: str
    key: str
    task: str
    fingerprint: str


@dataclass(slots=True)
class _Kept:
    number: int
    behaviour: Behaviour
    matched: int = 0
    applied: int = 0


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


def split_model(name: str) -> tuple[str, Behaviour | None]:
    """Return the model's own name, and the behaviour that follows its last colon, if one does."""
    model, colon, suffix = name.rpartition(":")
    known = {mode.value for mode in Mode} | set(ALIASES)
    if colon and model and suffix in known:
        return model, read(suffix)
    return name, None


@dataclass
class Orders:
    """All behaviours in force, newest first; what a script ordered comes after all of these."""

    seed: int = 0
    _kept: list[_Kept] = field(default_factory=list[_Kept])
    _asked: OrderedDict[str, int] = field(default_factory=OrderedDict[str, int])
    _last: int = 0

    def add(self, behaviour: Behaviour, *, last: bool = False) -> int:
        """Put a behaviour in force and return its number. Raises ValueError when there are too many."""
        if len(self._kept) >= MAX_BEHAVIOURS:
            raise ValueError(f"{MAX_BEHAVIOURS} behaviours are in force; DELETE some first")
        self._last += 1
        self._kept.insert(len(self._kept) if last else 0, _Kept(self._last, behaviour))
        return self._last

    def clear(self, number: int | None = None) -> int:
        """Lift one behaviour, or all. Returns how many were lifted."""
        before = len(self._kept)
        self._kept = [k for k in self._kept if number is not None and k.number != number]
        return before - len(self._kept)

    def listed(self) -> list[dict[str, Any]]:
        """Return what is in force, with how often each matched and applied."""
        return [
            {
                "id": k.number,
                **k.behaviour.model_dump(exclude_unset=True, mode="json"),
                "matched": k.matched,
                "applied": k.applied,
            }
            for k in self._kept
        ]

    def count(self, fingerprint: str) -> int:
        """Return how often this question was asked before, and remember that it was asked."""
        before = self._asked.pop(fingerprint, 0)
        self._asked[fingerprint] = before + 1
        if len(self._asked) > MAX_COUNTED:
            self._asked.popitem(last=False)
        return before

    def choose(self, asked: Asked, repeat: int) -> Behaviour | None:
        """Return the behaviour for this call, or None when it is to go well."""
        for kept in self._kept:
            behaviour = kept.behaviour
            if not behaviour.holds_for(asked):
                continue
            kept.matched += 1
            spent = behaviour.times is not None and kept.applied >= behaviour.times
            if kept.matched <= behaviour.skip or spent or self._spared(kept, asked, repeat):
                continue
            kept.applied += 1
            return None if behaviour.mode is Mode.OK else behaviour
        return None

    def _spared(self, kept: _Kept, asked: Asked, repeat: int) -> bool:
        p = kept.behaviour.p
        return p < 1 and chance(self.seed, kept.number, asked.fingerprint, repeat) >= p


def chance(*parts: object) -> float:
    """Return a number in [0, 1) that depends on nothing but `parts`."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
