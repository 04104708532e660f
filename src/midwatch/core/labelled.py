"""Secrets that only their name gives away, within text: in JSON, in Python's own spelling of it, in URLs. Pure.

`"password": "correct horse"` looks like nothing; its name says what it is. The text around stays what it was: whoever
could read it as JSON still can, also where that JSON is a text within JSON, however often. Of a quote behind `n`
backslashes the level is the number of times that `n + 1` can be halved, so that a value ends at the first quote of its
own level or of one further out.

Every look is one pass: whatever an agent writes, no character is looked at more than a few times.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

HIDDEN: Final = "[redacted]"
"""What stands in the place of what a secret's name names."""

_HIDDEN: Final = HIDDEN.encode()

MAX_NAME: Final = 256
"""Characters of a name, the last ones, by which it is judged."""

_NAMES: Final = frozenset(
    [
        "authorization",
        "cookie",
        "set_cookie",
        "apikey",
        "password",
        "passwd",
        "passphrase",
        "secret",
        "secretkey",
        "clientsecret",
        "privatekey",
        "accesstoken",
        "refreshtoken",
        "authtoken",
        "bearertoken",
        "apitoken",
        "idtoken",
        "sessiontoken",
        "secretaccesskey",
    ]
)
_ENDS: Final = (
    "api_key", "apikey", "api_token", "id_token", "_password", "_passphrase", "_secret", "secret_key", "private_key", "_access_key",
    "access_token", "refresh_token", "auth_token", "bearer_token", "session_token", "_authorization",
)  # fmt: skip

_ROOTS: Final = (b"authoriz", b"cookie", b"key", b"passw", b"passphr", b"secret", b"token")
"""Of which every such name has one."""

_IN_URLS: Final = frozenset(
    ["token", "sig", "signature", "jwt", "pwd", "x_amz_signature", "x_amz_security_token", "x_goog_signature"]
)  # fmt: skip
"""Parameters of URLs that are secrets, too: a `token` there is no count."""


@lru_cache(8_192)
def is_secret(name: str) -> bool:
    """Tell whether what is called so is a secret, by the last part of the name behind a dot: `Authorization`,
    `http.request.header.x-api-key`, `clientSecret`. Plain `token` and `key` are not: they are counts and labels."""
    last = name.rpartition(".")[2].lower().replace("-", "_")
    return last in _NAMES or last.endswith(_ENDS)


def hints_names(data: bytes) -> bool:
    """Tell whether such a name may stand in `data`."""
    low = data.lower()
    return any(root in low for root in _ROOTS)


# -- a quick look ----------------------------------------------------------------------------------

_MEMBERS: Final = (rb"\wkey", rb"[-_]key", rb"\wtoken", rb"[-_]token", rb"secret", rb"cookie", rb"authorization",
                   rb"password", rb"passwd", rb"passphrase")  # fmt: skip
"""How every such name ends."""

_PARAMETERS: Final = (b"key", b"token", *_MEMBERS[4:], b"sig", b"signature", b"jwt", b"pwd")


def _behind(tails: tuple[bytes, ...], *signs: bytes) -> bytes:
    return b"|".join(rb"(?<=(?i:" + tail + b")" + sign + b")" for sign in signs for tail in tails)


_ENDING_SO: Final = rb"[eiorwsEIORWS][yndetYNDET]"
"""The last two letters of every such name, and of few others."""

_COLON: Final = re.compile(
    rb":(?:(?<=" + _ENDING_SO + rb"[\"']:)(?:" + _behind(_MEMBERS, rb"[\"']:")
    + rb")|(?<=\\[\"']:)(?:(?<=\\\\[\"']:)|(?<=" + _ENDING_SO + rb"\\[\"']:)(?:" + _behind(_MEMBERS, rb"\\[\"']:")
    + rb"))|(?<=[\"']\s:)|(?<=\s\s:))"
)  # fmt: skip
"""The colon behind a name, and some that may be one. It begins with its own sign: to find that costs next to nothing."""

_EQUALS: Final = re.compile(rb"=(?:" + _behind(_PARAMETERS, b"=") + b")")

_LETTERS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-."
_SPACE: Final = b" \t\n\r\f\v"
_LOOKED: Final = 80
"""Bytes before a colon or an equals sign in which the quick look expects the end of the name."""

MAX_ONE_BY_ONE: Final = 512
"""Signs `@` and `=` that are looked at one by one before all is searched."""

_URL: Final = 4 + 128 + 1 + 6 * 256 + 64
"""Bytes of a URL up to its `@`, as `_USER` reads it."""

_SECRET_ENDS: Final = tuple(name.encode() for name in {*_NAMES, *_ENDS})


def hints_labels(data: bytes) -> bool:
    """Tell whether `unlabel` may find something in any text within `data`. Never False where it does, as long as the
    text stands there byte by byte."""
    return (
        any(map(_is_member, _before(_COLON, data)))
        or any(map(_is_parameter, _before_equals(data)))
        or (_is_in_url(data) and _USER.search(data) is not None)
    )


def _is_in_url(data: bytes) -> bool:
    """Tell whether before some `@` there is what a URL begins with; a random byte of an id seldom has that."""
    at = data.find(b"@")
    for _ in range(MAX_ONE_BY_ONE):
        if at < 0:
            return False
        near = data[max(0, at - _URL) : at]
        if b"://" in near or b":\\" in near:
            return True
        at = data.find(b"@", at + 1)
    return True


def _before(pattern: re.Pattern[bytes], data: bytes, at: int = 0) -> Iterator[bytes]:
    for hit in pattern.finditer(data, at):
        place = hit.start()
        yield data[max(0, place - _LOOKED) : place]


def _before_equals(data: bytes) -> Iterator[bytes]:
    """Yield the same of equals signs. Prose has hardly any: to jump from one to the next beats the search at first."""
    at = data.find(b"=")
    for _ in range(MAX_ONE_BY_ONE):
        if at < 0:
            return
        if _EQUALS.match(data, at) is not None:
            yield data[max(0, at - _LOOKED) : at]
        at = data.find(b"=", at + 1)
    if at >= 0:
        yield from _before(_EQUALS, data, at)


def _is_member(before: bytes) -> bool:
    name = before.rstrip(_SPACE)
    if name[-1:] not in (b'"', b"'"):
        return False
    name = name[:-1].rstrip(b"\\")
    return not name or name.lower().replace(b"-", b"_").endswith(_SECRET_ENDS)


def _is_parameter(before: bytes) -> bool:
    sign = before.rstrip(_LETTERS)[-1:]
    return not sign or sign in b"?&#;\\"


# -- a closer look ---------------------------------------------------------------------------------

_MEMBER: Final = re.compile(
    rb"(?<!\\)(\\*+)([\"'])([A-Za-z0-9_.-]++)\1\2\s{0,4}+:(?:\s|\\++[nrt])*+"
)
"""A name as a member of an object has it, up to its value."""

_QUOTE: Final = re.compile(rb"[bu]?(\\*+)([\"'])")
_NUMBER: Final = re.compile(rb"-?[0-9][0-9.eE+-]*+(?=[\s,}\])\\]|\Z)")
_WORD: Final = re.compile(rb"[A-Za-z]++")
_BETWEEN: Final = re.compile(rb"(?:[\s,]|\\++[nrt])*+")
_ENDING: Final = re.compile(rb"(\\*+)\"|[\n\r]")
_APOSTROPHE: Final = re.compile(rb"(?<!\\)'|\\*+\"|[\n\r]")

_STAYS: Final = re.compile(
    rb"""[^\[]{0,24}\[(?i:redacted|hidden|masked|removed|filtered)\]   # already gone, perhaps by its look
    |[*]+|[xX]{3,}|[.]{3}|(?:\xe2\x80[\xa2\xa6])+                       # a mask
    |<[^<>]{1,60}>|\{\{?[^{}]{1,60}\}\}?|[$](?:[A-Z_][A-Z0-9_]*|\{[^{}]{1,60}\})|%[A-Z_]+%   # an empty place
    |(?i:your[_ -][a-z0-9_ -]{1,40})
    |(?i:string|str|null|none|undefined|true|false|boolean|optional|required|missing|unset)""",
    re.VERBOSE,
)
"""Values that are evidently no secret: what a schema, a template or a mask says in the place of one."""

_PARAMETER: Final = re.compile(
    rb"(?:[?&#;]|\\u0026|\\u003[fF])([A-Za-z0-9_.-]{2,64}+)=((?:[^\s&#\"'<>\\`;,()\[\]{}|$*]|\\++/)++)(?![(\[{$])"
)
_LONG: Final = re.compile(rb"(?=[A-Za-z_-]*[0-9])(?=[0-9_-]*[A-Za-z])[A-Za-z0-9_-]{16,}")
"""What a parameter called `key` holds if it opens something; a shorter one is where something lies."""

_USER: Final = re.compile(
    rb"://[^\s/@:\"'\\<>?#]{0,128}+:((?:[^\s/\"'\\<>?#]|\\++u[0-9A-Fa-f]{4}){1,256})@"
    rb"|:(?:\\++/){2}[^\s/@:\"'\\<>?#]{0,128}+:((?:[^\s/\"'\\<>?#]|\\++u[0-9A-Fa-f]{4}){1,256})@"
)
"""What stands between a user and the last `@` of a URL's host, also where JSON spells its slashes."""

_Cut = tuple[int, int, bytes]
"""From where to where, and what stands there instead."""


def unlabel(data: bytes) -> tuple[bytes, int]:
    """Return `data` with `[redacted]` for values of members and parameters with a secret's name, and for the passwords
    of URLs; and how many there were. What was JSON is JSON."""
    cuts = sorted([*_members(data), *_parameters(data), *_passwords(data)])
    parts: list[bytes] = []
    kept = 0
    found = 0
    for begin, end, shown in cuts:
        if begin < kept:
            continue
        parts += (data[kept:begin], shown)
        kept = end
        found += 1
    return (b"".join((*parts, data[kept:])), found) if found else (data, 0)


def _members(data: bytes) -> Iterator[_Cut]:
    at = 0
    while (hit := _MEMBER.search(data, at)) is not None:
        at = hit.end()
        level = _level(hit[1])
        if is_secret(hit[3][-MAX_NAME:].decode("ascii")) and level:
            for cut in _values(data, at, level, hit[2]):
                yield cut
                at = cut[1]


def _level(backslashes: bytes) -> int:
    """Return 1, 2, 4, … for a quote that is spelled as in JSON, JSON within JSON, …; 0 for one that is no such."""
    return len(backslashes) + 1 if not (len(backslashes) + 1) & len(backslashes) else 0


def _values(data: bytes, at: int, level: int, sign: bytes) -> Iterator[_Cut]:
    """Yield what is to be cut of the value that begins here: a text, a number, those of a list. Objects are looked
    into as any other: a schema describes a password."""
    if data[at : at + 1] != b"[":
        yield from _value(data, at, level, sign)[1]
        return
    at = _after(_BETWEEN, data, at + 1)
    while True:
        end, cuts = _value(data, at, level, sign)
        yield from cuts
        after = _after(_BETWEEN, data, end)
        if after == at:
            return
        at = after


def _after(pattern: re.Pattern[bytes], data: bytes, at: int) -> int:
    hit = pattern.match(data, at)
    return at if hit is None else hit.end()


def _value(data: bytes, at: int, level: int, sign: bytes) -> tuple[int, list[_Cut]]:
    """Return where a text, number or word ends, and what is to be cut of it."""
    quote = _QUOTE.match(data, at)
    if quote is None:
        number = _NUMBER.match(data, at)
        if number is None:
            return _after(_WORD, data, at), []
        mark = b"\\" * (level - 1) + sign
        return number.end(), [(at, number.end(), mark + _HIDDEN + mark)]
    begin = quote.end()
    if quote[2] == b"'":
        end = _single(data, begin)
    elif sign == b'"' and _level(quote[1]) == level:
        end = _double(data, begin, level)
    elif sign == b"'" and _level(quote[1]) and data[begin : begin + 1] not in _STRUCTURE:
        # whatever closes a text of JSON is followed by one of those
        end = _double(data, begin, _level(quote[1]))
    else:
        return at, []
    cut = (begin, end, _HIDDEN)
    shown = begin == end or _STAYS.fullmatch(data, begin, end) is not None
    closing = _CLOSING.match(data, end)
    return (end if closing is None else closing.end()), [] if shown else [cut]


_STRUCTURE: Final = (b"", b",", b"}", b"]", b":", b" ", b"\t", b"\n", b"\r", b"\\", b'"', b"'")
_CLOSING: Final = re.compile(rb"\\*+[\"']")


def _double(data: bytes, at: int, level: int) -> int:
    """Return where a text ends that began at this level: before its quote, or before that of a text around it."""
    for hit in _ENDING.finditer(data, at):
        quote = hit[1]
        if quote is None:
            return hit.start()
        own = len(quote) + 1
        found = own & -own
        if found == level:
            return hit.end() - level  # the quote, and the backslashes that are its own
        if found < level:
            return hit.start()
    return len(data)


def _single(data: bytes, at: int) -> int:
    """Return where a text in single quotes ends; at any double quote, which may be that of a text around it."""
    hit = _APOSTROPHE.search(data, at)
    return len(data) if hit is None else hit.start()


def _parameters(data: bytes) -> Iterator[_Cut]:
    for hit in _PARAMETER.finditer(data):
        name, value = hit[1].decode("ascii"), hit[2]
        last = name.rpartition(".")[2].lower().replace("-", "_")
        hidden = is_secret(name) or last in _IN_URLS or (last == "key" and _LONG.fullmatch(value))
        if hidden and _STAYS.fullmatch(value) is None:
            yield hit.start(2), hit.end(2), _HIDDEN


def _passwords(data: bytes) -> Iterator[_Cut]:
    for hit in _USER.finditer(data):
        begin, end = hit.span(1 if hit[1] is not None else 2)
        if _STAYS.fullmatch(data, begin, end) is None:
            yield begin, end, _HIDDEN
