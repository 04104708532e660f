"""What in a tool's result should not be believed, and what was made of it.

Two things go wrong with results. A result may speak to the model: instructions, markers of a chat, text that people
cannot see. And a result may be mistaken: a table's header, a button, an empty place of a template becomes a fact.
The first is found in the text alone (`flags_of`), the second where the agent reports its state (`believed`).
`spread` then names the spans into which the text of a flagged result went.

A flag is a reason to look, not a verdict: pages about such attacks hold their words as well. Nothing is matched
that ordinary documents, mails and program output say often; the tests have both lists.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from html import unescape
from typing import Any, Final, NamedTuple, cast

from midwatch.core.difference import Saying, State, around, leaves
from midwatch.core.orders import orders
from midwatch.core.plain import clean

MAX_LOOKED: Final = 200_000
"""Characters of one result that are looked at: the first ones."""

MAX_FLAGS: Final = 20
"""Flags of one result."""

MAX_LABELS: Final = 500
"""Labels (headers, buttons) of one result."""

MAX_SPREAD: Final = 500
"""Spans that are named as touched."""

MAX_SPREAD_LOOKED: Final = 400_000
"""Characters of all contents together that are looked at for what came from flagged results: a tenth of a second."""

MAX_VALUES: Final = 500
"""Texts that were flagged themselves and are looked for in what came later."""

SHINGLE: Final = 8
"""Words in a row that, said again, came from where they were said before."""

MAX_SHINGLES: Final = 200_000
"""Such rows of words of all flagged results together."""


class Kind(StrEnum):
    """Why a result is flagged."""

    INSTRUCTION = "instruction"
    """It tells the model what to do, or to forget what it was told."""
    ROLE = "role"
    """It holds the markers by which a model tells speakers apart."""
    SECRECY = "secrecy"
    """It wants something kept from the user."""
    EXFILTRATION = "exfiltration"
    """It wants secrets or the conversation sent somewhere."""
    HIDDEN = "hidden"
    """It holds text that people do not see."""
    HEADER = "header"
    """A header or a button in it became a value of the state."""
    PLACEHOLDER = "placeholder"
    """An empty place of a template in it became a value of the state."""


NAME: Final = "contamination"
"""What an evaluation of a span is called that says so: its label is a `Kind`."""


class Flag(NamedTuple):
    """One reason, with what stands around it. `value` is what matched, for `spread`."""

    kind: Kind
    excerpt: str
    value: str

    def to_json(self) -> dict[str, str]:
        return {"kind": self.kind.value, "excerpt": self.excerpt}


# -- text that speaks to the model -----------------------------------------------------------------

_PATTERNS: Final = tuple(
    (kind, re.compile(rule, re.IGNORECASE), tuple(tuple(group.split(";")) for group in needed))
    for kind, rule, needed in (
        (Kind.INSTRUCTION, r"\bnew (?:system )?(?:(?:instructions?|task|objective) (?:is|are|:)|instructions?\s{0,40}:)",
         ("new ", "new instruction;new task;new objective;new system ")),
        (Kind.ROLE, r"<\|(?:im_start|im_end|system|user|assistant|endoftext|start_header_id|eot_id)\|>|\[/?INST\]|<</?SYS>>",
         ("<;inst]", "<|;inst];sys>>")),
        (Kind.ROLE, r"</?(?:system|system-reminder|system_prompt|assistant_response|tool_result|function_results)>",
         ("<", "system>;system-reminder>;system_prompt>;assistant_response>;tool_result>;function_results>")),
        (Kind.ROLE, r"(?:^|\n)[^\S\n]{0,40}#{2,4} ?(?:system|instruction|assistant)s?\s{0,40}:",
         ("##", "system;instruction;assistant")),
    )
)  # fmt: skip
"""Marks, and what a text must hold for one of them to be there. Nothing in them is without a bound, and no gap holds
another: an agent must not be able to write what is looked at for long."""

_ORDERS: Final = tuple(
    tuple(tuple(group.split(";")) for group in needed)
    for needed in (
        ("ignor;forget;disregard;override;bypass", "instruction;prompt;rule;guideline;direction;command;message"),
        ("ignor;forget;disregard", "all;any;everything"),
        ("ignor;vergiss;missachte", "anweisungen;instruktionen;vorgaben;regeln"),
        ("ignor;oublie", "instructions;consignes;directives", "précédentes;ci-dessus;antérieures"),
        ("ignor;olvida", "instrucciones;órdenes", "anteriores;previas"),
        (" ai; llm; language model; assistant; agent; bot", "to ;for ", "attention;note;message;instruction;important"),
        (" ai; llm; language model", "if you are a;as a", "reading this;you ;please"),
        ("you are now ;now act as ", "unrestricted;jailbroken;dan;developer mode;root"),
        ("user;operator;human;person you", "do not;don't;never;without", "tell;inform;mention;reveal;alert;notif;show"),
        ("http;@;url;endpoint;server;webhook", "send;post;upload;forward;mail;exfiltrate;transmit;append;include",
         "key;password;credential;secret;token;prompt;environment;conversation;history;.env"),
    )
)  # fmt: skip
"""What a text must hold, in small letters, for `orders` to find anything: of each group one word, the rarest group
first. To look for them takes a tenth of what it takes to go from word to word, and texts are looked at while they
arrive."""

_TAGS: Final = re.compile("[\U000e0020-\U000e007e]{4,}")
"""Letters that nobody sees and models read. Flags of regions use up to six behind a black flag."""
_ZERO: Final = re.compile("[\u200b\u2060\ufeff\u200c\u200d]{4,}|(?:[\u200b\u2060\ufeff]\\w){6,}")
_TURNED: Final = re.compile("[\u202d\u202e]")
_UNSEEN: Final = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\u00ad\U000e0000-\U000e007f]")  # fmt: skip


def flags_of(text: str) -> list[Flag]:
    """Return what in a tool's result speaks to the model or hides. At most MAX_FLAGS, one for each reason and place."""
    text = text[:MAX_LOOKED]
    found = list(_hidden(text))
    plain = _as_read(text)
    places: list[tuple[Kind, int, int]] = []
    for kind, begin, end in _spoken(plain):
        if any(k is kind and begin < e and b < end for k, b, e in places[-MAX_FLAGS:]):
            continue
        places.append((kind, begin, end))
        found.append(Flag(kind, around(plain, begin, end), plain[begin:end]))
        if len(found) >= MAX_FLAGS:
            break
    return found


def kinds_of(text: str) -> list[Kind]:
    """Return why a result would be flagged, each reason once: what `flags_of` gives, without where."""
    text = text[:MAX_LOOKED]
    found = dict.fromkeys(flag.kind for flag in _hidden(text))
    found.update(dict.fromkeys(kind for kind, _, _ in _spoken(_as_read(text))))
    return list(found)


def is_suspect(text: str) -> bool:
    """Tell whether a closer look is worth while: False only where `kinds_of` finds nothing. Takes a tenth of it."""
    if not text.isascii() and next(_hidden(text), None) is not None:
        return True
    small = _in_small(_as_read(text))
    return any(_holds(small, needed) for needed in _ORDERS) or any(
        _holds(small, needed) for _, _, needed in _PATTERNS
    )


def _as_read(text: str) -> str:
    """Return a text as the model reads it, whether written in look-alikes, as entities, or with unseen letters in
    between. Never longer than MAX_LOOKED: one letter may stand for several."""
    plain = unescape(text) if "&" in text else text
    if not plain.isascii():
        # piece by piece: to sort the accents of one letter takes the square of their number
        plain = plain.translate(_MANY)
        pieces = (plain[at : at + _PIECE] for at in range(0, len(plain), _PIECE))
        plain = _UNSEEN.sub("", "".join(unicodedata.normalize("NFKC", piece) for piece in pieces))
    return plain[:MAX_LOOKED]


_PIECE: Final = 512
_MANY: Final[dict[int, str]] = dict.fromkeys((0xFDFA, 0xFDFB), " ")
"""One letter that stands for whole words of Arabic, and no other text uses."""


def _spoken(plain: str) -> Iterator[tuple[Kind, int, int]]:
    """Yield what speaks to the model, and from where to where."""
    small = _in_small(plain)
    if any(_holds(small, needed) for needed in _ORDERS):
        for kind, begin, end in orders(small):
            yield Kind(kind), begin, end
    for kind, pattern, needed in _PATTERNS:
        if _holds(small, needed):
            for hit in pattern.finditer(plain):
                yield kind, *hit.span()


def _in_small(plain: str) -> str:
    """Return a text in small letters, each where it was."""
    small = plain.lower()
    # and the letters that `re` takes for others, whatever their case
    return small if small.isascii() else plain.translate(_ALSO).lower()


def _holds(small: str, needed: tuple[tuple[str, ...], ...]) -> bool:
    for words in needed:
        for word in words:
            if word in small:
                break
        else:
            return False
    return True


_ALSO: Final = {0x130: "i", 0x131: "i", 0x17F: "s", 0x212A: "k"}


def _hidden(text: str) -> Iterator[Flag]:
    if text.isascii():
        return
    hit = _TAGS.search(text)
    if hit is not None and not text[: hit.start()].endswith("\U0001f3f4"):
        said = "".join(chr(ord(sign) - 0xE0000) for sign in hit.group())
        yield Flag(Kind.HIDDEN, clean(f"unseen letters say: {said}"), said)
    hit = _ZERO.search(text)
    if hit is not None:
        yield Flag(
            Kind.HIDDEN, clean(f"signs without width in: {around(text, *hit.span())}"), hit.group()
        )
    hit = _TURNED.search(text)
    if hit is not None:
        said = clean(f"text written backwards: {around(text, *hit.span())}")
        yield Flag(Kind.HIDDEN, said, hit.group())


# -- labels and empty places that become facts -----------------------------------------------------

COMMON_LABELS: Final = frozenset(
    """export csv|export|export to csv|download|download csv|sign in|sign up|log in|login|log out|submit|cancel|save
    |edit|delete|search|filter|next|previous|back|close|loading|loading…|loading...|click here|read more|learn more
    |show more|view all|select all|accept all|accept cookies|actions|untitled|choose file""".replace(
        "\n    ", ""
    ).split("|")
)
"""Words of pages that are nobody's name."""

_PLACEHOLDER: Final = re.compile(
    r"\{\{?\s*[\w.]+\s*\}?\}|\$\{[\w.]+\}|<[a-z]+[_ -]?(?:name|id|value|here)>|\[(?:your|insert|enter)[ \w]{0,40}\]"
    r"|\[object Object\]|undefined|NaN|lorem ipsum.{0,80}|#(?:N/A|REF!|VALUE!|NAME\?|DIV/0!)|%[sd]|xxx+|todo|tbd",
    re.IGNORECASE,
)
_CELL: Final = re.compile(r"[^\d\s][^\n]{0,39}")
_HTML_LABEL: Final = re.compile(
    r"<(th|button|label|option|legend|caption)\b[^>]{0,300}>([^<>]{1,80})(?=<)|\b(?:aria-label|placeholder|alt)=\"([^\"<>]{1,80})\"",
    re.IGNORECASE,
)
_BUTTON: Final = re.compile(r"\[([^\[\]{}\"\n]{2,40})\](?:\([^()\n]{0,300}\))?")


def labels(text: str) -> frozenset[str]:
    """Return the headers and buttons of a result, as `fold` writes them: of CSV and other tables, Markdown, HTML, JSON."""
    text = text[:MAX_LOOKED]
    found: set[str] = set()
    for label in _labels(text):
        found.add(fold(label))
        if len(found) >= MAX_LABELS:
            break
    found.discard("")
    return frozenset(found)


def _labels(text: str) -> Iterator[str]:
    for hit in _HTML_LABEL.finditer(text):
        yield unescape(hit[2] or hit[3])
    yield from _table_headers(text)
    for hit in _BUTTON.finditer(text):
        yield hit[1]
    head = text.lstrip()[:1]
    if head and head in "[{":
        yield from _json_keys(text)
    for line in text.splitlines():
        if fold(line) in COMMON_LABELS:
            yield line


def _table_headers(text: str) -> Iterator[str]:
    """Yield the first cells of what goes on in lines of as many cells."""
    lines = [line for line in text.splitlines() if line.strip()][:2_000]
    for number, line in enumerate(lines[:-1]):
        for sign in "\t|;,":
            cells = _cells(line, sign)
            before = _cells(lines[number - 1], sign) if number else []
            if (
                len(cells) >= 2
                and len(cells) != len(before)
                and len(_cells(lines[number + 1], sign)) == len(cells)
                and all(_CELL.fullmatch(cell) for cell in cells)
            ):
                yield from cells
                break


def _cells(line: str, sign: str) -> list[str]:
    return [cell.strip().strip('"') for cell in line.strip().strip("|").split(sign)]


def _json_keys(text: str) -> Iterator[str]:
    try:
        read: Any = json.loads(text)
    except (ValueError, RecursionError):
        return
    if isinstance(read, list) and read:
        read = cast("list[Any]", read)[0]
    if isinstance(read, dict):
        yield from (str(name) for name in cast("dict[Any, Any]", read))


def fold(text: str) -> str:
    """Return a text as labels are compared: whatever its case, its spaces, and the signs around it."""
    return " ".join(text.casefold().split()).strip(" .:*_#|\"'`…")


class Belief(NamedTuple):
    """A value of the state that is a label or an empty place, and the result where it stood, if one is known."""

    path: str
    span: str | None
    flag: Flag


class Heard:
    """Tools' results and retrieved documents, heard one after the other, and what of them became a fact."""

    def __init__(self) -> None:
        self._by_label: dict[str, Saying] = {}
        self._results: list[Saying] = []

    def hear(self, result: Saying) -> None:
        """Take in the next result."""
        self._by_label.update(dict.fromkeys(labels(result.text), result))
        self._results.append(result)

    def believed(self, state: State) -> list[Belief]:
        """Return the values of a state that are no facts: labels of what was heard, empty places.

        Long texts (a scratchpad) are no single value and are not judged; neither are names of the state itself.
        """
        found: list[Belief] = []
        for path, value in leaves(state):
            if not isinstance(value, str) or not 2 <= len(value) <= 80:
                continue
            folded, excerpt = fold(value), clean(f"{path}: {value}")
            result = self._by_label.get(folded)
            if _PLACEHOLDER.fullmatch(value.strip()) is not None:
                flag = Flag(Kind.PLACEHOLDER, excerpt, value)
                found.append(Belief(path, _holder(value, self._results), flag))
            elif result is not None and _is_shown(folded, path):
                found.append(Belief(path, result.span, Flag(Kind.HEADER, excerpt, value)))
            if len(found) >= MAX_FLAGS:
                break
        return found


def believed(state: State, results: Sequence[Saying]) -> list[Belief]:
    """Return the values of a state that are no facts, as `Heard` does. `results` are those of the same turn or before,
    the latest last."""
    heard = Heard()
    for result in results:
        heard.hear(result)
    return heard.believed(state)


def _is_shown(folded: str, path: str) -> bool:
    """Tell whether a label as a value is odd: `status: open` is, by its name, what a table calls its column.

    Words of pages are odd everywhere, if there are two or more (`search` may be what is done next); another label
    only where the value should name something.
    """
    if folded in COMMON_LABELS and " " in folded:
        return True
    last = re.split(r"[.\[]", path)[-1].casefold()
    return any(word in last for word in _NAMING)


_NAMING: Final = (
    "name", "customer", "contact", "person", "user", "owner", "author", "company", "client", "title", "subject",
    "address", "email", "mail", "city", "recipient", "vendor", "supplier", "account",
)  # fmt: skip


def _holder(value: str, results: Sequence[Saying]) -> str | None:
    return next((one.span for one in reversed(results) if value in one.text[:MAX_LOOKED]), None)


# -- what was made of it ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Touched:
    """A span with content that came from a flagged result."""

    span: str
    source: str
    """The span of the result."""
    kind: str
    """What the content is to the span: input, arguments, output, state."""
    turn: str
    exact: bool
    """It holds what was flagged itself; else other words of that result, SHINGLE and more in a row."""
    excerpt: str


def spread(flagged: Mapping[str, Sequence[Flag]], sayings: Iterable[Saying]) -> list[Touched]:
    """Return the contents that came from flagged results, in the order of time.

    `flagged` are flags by the span of the result, `sayings` all contents, also the results themselves. A content is
    touched when it is later than the result and repeats what was flagged, or a row of its words. What was said before
    the first flagged result takes nothing of MAX_SPREAD_LOOKED.
    """
    left = MAX_SPREAD_LOOKED
    ordered = sorted(sayings, key=lambda one: (one.at_ns, one.span, one.kind))
    values: dict[str, str] = {}
    rows: dict[bytes, tuple[int, str]] = {}
    found: list[Touched] = []
    for one in ordered:
        text = one.text[:left]
        if values or rows:
            left -= len(text)
        source, exact, excerpt = _source(text, one, values, rows)
        if source is not None:
            found.append(Touched(one.span, source, one.kind, one.turn, exact, excerpt))
            if len(found) >= MAX_SPREAD:
                break
        if one.kind in ("result", "documents") and one.span in flagged:
            for flag in flagged[one.span]:
                if len(value := fold(flag.value)) >= 4 and len(values) < MAX_VALUES:
                    values.setdefault(value, one.span)
            for row in _shingles(text):
                if len(rows) >= MAX_SHINGLES:
                    break
                rows.setdefault(row, (one.at_ns, one.span))
    return found


def _source(
    text: str,
    one: Saying,
    values: Mapping[str, str],
    rows: Mapping[bytes, tuple[int, str]],
) -> tuple[str | None, bool, str]:
    folded = " ".join(text.casefold().split())
    for value, span in values.items():
        if span != one.span and value in folded:
            hit = re.search(re.escape(value), folded)
            return span, True, around(folded, *hit.span()) if hit is not None else ""
    if rows:
        for row in _shingles(text):
            source = rows.get(row)
            if source is not None and source[1] != one.span:
                return source[1], False, clean(text)
    return None, False, ""


def _shingles(text: str) -> Iterator[bytes]:
    words = re.findall(r"\w+", text.casefold())
    for begin in range(len(words) - SHINGLE + 1):
        row = " ".join(words[begin : begin + SHINGLE])
        yield blake2b(row.encode(errors="replace"), digest_size=8).digest()
