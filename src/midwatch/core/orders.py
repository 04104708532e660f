"""Sentences that speak to the model, found in one pass over a text's words. Pure.

A rule is a chain of words, each at most so many characters behind the one before. Of each step only the latest place
is remembered: a later one is nearer to whatever follows, so that nothing is missed and nothing is tried twice. What it
costs grows with the text alone, whatever the text says; patterns with gaps in gaps took a hundred times as long.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple


class Found(NamedTuple):
    """A chain that was there: what it says, and from where to where."""

    kind: str
    begin: int
    end: int


_Near = int | tuple[str, ...]
"""How far behind the step before a word may stand: so many characters of one sentence; of one line, if negative; or
just one of these texts between."""


class _Step(NamedTuple):
    """A word's part in a chain: where its place is remembered, behind which other place it may stand, and what is
    found with it, if it is the last. One without `near` begins the chain."""

    place: int
    before: int
    near: _Near | None
    kind: str | None


_Part = tuple[_Near | None, str]
"""How near, and the words that may stand there, a space between. A `+` ties words of one step together: `do+not`."""

_SPACE: Final = (" ",)
_ANY: Final = (" ", " the ", " any ", " all ")
_A: Final = (" a ", " an ")
_SAID: Final = (
    "instruction instructions prompt prompts rule rules guideline guidelines direction directions command commands "
    "message messages"
)
_MODELS: Final = (
    "ai ais llm llms language+model language+models assistant assistants agent agents bot bots"
)
_SECRETS: Final = (
    "api+key api+keys apikey apikeys api_key api_keys api-key api-keys password passwords credential credentials secret "
    "secrets access+token access+tokens private+key private+keys system+prompt environment+variable environment+variables "
    "conversation chat+history .env"
)

_CHAINS: Final[tuple[tuple[str, tuple[tuple[_Part, ...], ...]], ...]] = (
    ("instruction", (((None, "ignore disregard forget override bypass"),),
                     ((30, "previous prior above earlier preceding former existing original system"),),
                     ((20, _SAID),))),
    ("instruction", (((None, "ignore disregard forget"),), ((_SPACE, "all any everything"),),
                     ((30, f"{_SAID} you+were+told you+have+been+told said+before"),))),
    ("instruction", (((None, "ignoriere vergiss missachte"),), ((40, "anweisungen instruktionen vorgaben regeln"),))),
    ("instruction", (((None, "ignore ignorer ignorez oublie oublier oubliez"),), ((40, "instructions consignes directives"),),
                     ((15, "précédentes ci-dessus antérieures"),))),
    ("instruction", (((None, "ignora olvida ignore"),), ((40, "instrucciones órdenes"),), ((15, "anteriores previas"),))),
    ("instruction", (((None, "attention note message instruction instructions important"),), ((15, "to for"),),
                     ((_ANY, _MODELS),))),
    ("instruction", (((None, "if+you+are as"),), ((_A, "ai llm language+model ai+assistant ai+agent"),),
                     (((" ", ", "), "reading+this you+must you+should you+have+to you+will please"),))),
    ("instruction", (((None, "you+are+now you+must+now+act+as you+will+now+act+as"),),
                     ((_SPACE + _A, "unrestricted jailbroken dan developer+mode in+developer+mode root"),))),
    ("secrecy", (((None, "do+not don't never without"),),
                 ((_SPACE, "tell telling inform informing mention mentioning reveal revealing alert alerting notify notifying show showing"),),
                 ((35, "user operator human person+you"),))),
    ("exfiltration", (((None, "send post upload forward email e-mail exfiltrate transmit append include"),), ((40, _SECRETS),),
                      ((60, "to at into in"),), ((-20, "http https url endpoint server webhook"), (-50, "@")))),
)  # fmt: skip

_TOKEN: Final = re.compile(r"\.env\b|\w+|[.\n@]")
_SIGNS: Final = re.compile(r"[-']")


def _words(written: str) -> list[tuple[str, str]]:
    """Return the words of one alternative, each with what stands before it."""
    found: list[tuple[str, str]] = []
    for word in written.split("+"):
        signs = [" ", *_SIGNS.findall(word)]
        found += zip(signs, _SIGNS.split(word), strict=True)
    return found


def _lexicon() -> tuple[dict[str, tuple[_Step, ...]], int]:
    """Return by word the steps that it may be, the latest of a chain first, and how many places there are."""
    steps: dict[str, list[_Step]] = {}
    places = 0
    for kind, chain in _CHAINS:
        before = -1
        for number, parts in enumerate(chain):
            last = kind if number == len(chain) - 1 else None
            here = places = places + 1
            for near, written in parts:
                for way in map(_words, written.split()):
                    behind, how = before, near
                    for at, (_, word) in enumerate(way, 1):
                        ends = at == len(way)
                        places += not ends
                        step = _Step(here if ends else places, behind, how, last if ends else None)
                        steps.setdefault(word, []).append(step)
                        behind = step.place
                        how = (way[at][0],) if not ends else None
            before = here
    # of one chain a word takes its later step first: it is never two of them at once
    return {
        word: tuple(sorted(found, key=lambda one: -one.place)) for word, found in steps.items()
    }, places + 1


_STEPS, _PLACES = _lexicon()
_LONGEST: Final = 5
_BEFORE_AT: Final = re.compile(r"[\w.+-]")


def orders(small: str) -> Iterator[Found]:
    """Yield the chains in a text in small letters, by their ends."""
    ends, begins = [-1] * _PLACES, [0] * _PLACES
    stop = line = -1
    steps_of = _STEPS.get
    for hit in _TOKEN.finditer(small):
        word = hit.group()
        steps = steps_of(word)
        if steps is None:
            if word == ".":
                stop = hit.start()
            elif word == "\n":
                stop = line = hit.start()
            continue
        start, end = hit.span()
        if word == "@" and (start == 0 or _BEFORE_AT.match(small, start - 1) is None):
            continue
        for place, before, near, kind in steps:
            if near is None:
                begins[place], ends[place] = start, end
                continue
            since = ends[before]
            if since < 0:
                continue
            if not isinstance(near, int):
                if start - since > _LONGEST or small[since:start] not in near:
                    continue
            elif not (
                stop < since and start - since <= near
                if near > 0
                else line < since and start - since <= -near
            ):
                continue
            begins[place], ends[place] = begins[before], end
            if kind is not None:
                yield Found(kind, begins[place], end)
