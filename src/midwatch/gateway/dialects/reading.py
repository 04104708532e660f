"""What all readers of requests share: checks of types, and the gathering of what a request contains.

A reader walks its dialect's messages and puts every text into a `Contents`. What it does not know, be it a
part, a member of one, or a member of the request itself, is gathered whole, with its keys: nothing that a
provider might put before its model goes uncounted. Ids that change from one request to the next are counted,
and left out of what is hashed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final, cast

from pydantic_core import to_json

from midwatch.core.calls.ask import Ask, Dialect, Kind
from midwatch.gateway.dialects import counting
from midwatch.gateway.dialects.bodies import BadRequest, Json, show, wrong

MAX_MODEL: Final = 200
"""Characters of a model's name."""

MAX_PROMPT: Final = 2_000
"""Characters of `Ask.prompt`."""

MAX_OUTPUT: Final = 10**9
"""A larger bound for the output is none."""

MAX_TAGS: Final = 20
MAX_WORD: Final = 128

_HEAD, _TAIL = 4_096, 8_192
"""Characters at both ends of a request in which times and ids are looked for: what stands between is history,
and the same in the next request."""

_IDS: Final = frozenset(("id", "call_id", "tool_call_id", "tool_use_id", "item_id", "created_at"))
"""Of messages, calls and results. Within what a tool is given or gives they are data like any other."""

MAX_UNSEEN: Final = 16
"""Kinds of input that are told apart."""

MAX_ID: Final = 64
"""Characters of an id. What is longer is counted as a text."""

NO_INPUT: Final = frozenset(
    ("model", "stream", "metadata", "user", "stop", "logit_bias", "safety_identifier", "prompt_cache_key", "store",
     "include", "labels", "stop_sequences", "service_tier", "serviceTier", "safetySettings", "safety_settings",
     "stream_options", "prompt_cache_retention", "provider", "encoding_format", "thinking", "reasoning",
     "reasoning_effort", "verbosity", "truncation")
)  # fmt: skip
"""Members of requests that no model reads."""

_FIGURES: Final = frozenset((bool, int, float, type(None)))


class Contents:
    """What a request contains, for counting, hashing and conditions."""

    __slots__ = (
        "audio",
        "images",
        "kept",
        "kind",
        "marks",
        "model",
        "prompt",
        "results",
        "texts",
        "tokens",
        "unseen",
    )

    def __init__(self, kind: Kind, model: str) -> None:
        self.kind = kind
        self.model = model
        self.texts: list[str] = []
        self.marks: list[str] = []
        """Pieces of what is too large to be hashed."""
        self.kept = ""
        self.tokens = 0
        """Of what is no text."""
        self.images = False
        self.audio = False
        self.unseen: list[str] = []
        self.prompt = ""
        self.results: list[str] = []
        """Tool, arguments and result of each tool result that this request brings."""

    def text(self, value: object, param: str) -> str:
        """Gather a text and return it; null is none. Raises BadRequest for anything else."""
        if value is None:
            return ""
        if not isinstance(value, str):
            wrong(param, "text", value)
        self.texts.append(value)
        return value

    def anything(self, value: object) -> None:
        """Gather whatever stands here: texts, keys, numbers."""
        if isinstance(value, str):
            self.texts.append(value)
        elif isinstance(value, dict):
            for key, inner in cast("Json", value).items():
                self.texts.append(key)
                self.anything(inner)
        elif isinstance(value, list):
            for inner in cast("list[Any]", value):
                self.anything(inner)
        elif value is not None:
            self.texts.append(plain(value))

    def parts(self, value: object) -> None:
        """Gather a part, or a list of them: the ids of each are no text."""
        for part in cast("list[Any]", value) if isinstance(value, list) else (value,):
            if isinstance(part, dict):
                self.rest(cast("Json", part))
            else:
                self.anything(part)

    def rest(self, part: Json, *read: str) -> None:
        """Gather what a part has beside what was read of it."""
        for key, value in part.items():
            if key in read or (key == "type" and isinstance(value, str) and len(value) <= MAX_ID):
                continue
            if key in _IDS:
                self.identity(value)
            elif key == "cache_control":
                self.keep(value)
            else:
                self.texts.append(key)
                self.anything(value)

    def identity(self, value: object) -> None:
        """Count an id."""
        if isinstance(value, str) and len(value) <= MAX_ID and value.isascii():
            self.tokens += (len(value) * 2 + 2) // 3
        elif value is not None:
            self.beside(value)

    def beside(self, value: object) -> None:
        """Count what is not hashed."""
        self.tokens += counting.of_text(plain(value))

    def members(self, body: Json, read: frozenset[str]) -> None:
        """Count the members of a request that its reader does not read."""
        for key, value in body.items():
            if key in read:
                continue
            if value.__class__ not in _FIGURES or len(key) > MAX_ID:
                self.beside({key: value})

    def image(self, data: object, detail: object = "") -> None:
        """Gather a picture: an address or base64."""
        if (
            isinstance(data, str)
            and data.startswith("data:")
            and not data.startswith("data:image/")
        ):
            return self.document(data)  # some take films and files as pictures
        self.images = True
        self.tokens += counting.of_image(
            self.kind, self.model, detail if isinstance(detail, str) else ""
        )
        return self.sample(data)

    def sound(self, data: object, form: object) -> None:
        """Gather sound or film, as base64. `form`: wav, audio/mp3 and the like."""
        self.audio = True
        size = len(data) * 3 // 4 if isinstance(data, str) else 0
        self.tokens += size // counting.MEDIA_BYTES + counting.PER_MESSAGE
        if form not in counting.STEADY:
            self.elsewhere("media")
        self.sample(data)

    def document(self, data: object, form: object = None) -> None:
        """Gather a file, as base64 or as a data URL. `form`: its type, where that is told."""
        size = len(data) * 3 // 4 if isinstance(data, str) else 0
        self.tokens += size // counting.PAGE_BYTES + counting.PER_MESSAGE
        if isinstance(data, str) and data.startswith("data:"):
            form = data[5 : 5 + MAX_ID]
        if not isinstance(form, str) or not form.startswith("text/"):
            self.elsewhere("document")  # it is packed: nobody knows how large it is
        self.sample(data)

    def sealed(self, data: object) -> None:
        """Gather what only the provider can read."""
        if isinstance(data, str):
            self.tokens += len(data) // counting.ENCRYPTED_BYTES + counting.PER_MESSAGE
        elif data is not None:
            self.beside(data)

    def role(self, value: object) -> None:
        """Count whose a message is said to be, where that is no word."""
        if value is not None and not (isinstance(value, str) and len(value) <= MAX_ID):
            self.beside(value)

    def elsewhere(self, what: str) -> None:
        """Note input that is not in the request, or of unknown size."""
        if len(self.unseen) < MAX_UNSEEN and what not in self.unseen:
            self.unseen.append(what)

    def sample(self, data: object) -> None:
        """Put a few pieces of something large among what is hashed."""
        if isinstance(data, str):
            step = max(len(data) // 16, 1)
            pieces = [data[i : i + 16] for i in range(0, len(data), step)][:17]
            self.marks.append(f"{len(data)}" + "".join(pieces))
        else:
            self.anything(data)

    def keep(self, mark: object) -> None:
        """Note a mark behind which the provider is to keep the prompt: five minutes, or longer."""
        if isinstance(mark, dict):
            given = cast("Json", mark)
            ttl = given.get("ttl")
            self.kept = "1h" if ttl == "1h" or self.kept == "1h" else "5m"
            if given.keys() - {"type", "ttl"} or ttl not in (None, "5m", "1h"):
                self.beside(given)
        elif mark is not None:
            self.beside(mark)


def object_of(value: object, param: str) -> Json:
    if not isinstance(value, dict):
        wrong(param, "an object", value)
    return cast("Json", value)


def list_of(value: object, param: str) -> list[Any]:
    if not isinstance(value, list):
        wrong(param, "a list", value)
    return cast("list[Any]", value)


def objects_of(value: object, param: str) -> list[Json]:
    """Return a list of objects; none when nothing stands there."""
    if value is None:
        return []
    listed = list_of(value, param)
    for number, item in enumerate(listed):
        if not isinstance(item, dict):
            wrong(f"{param}[{number}]", "an object", item)
    return listed


def flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is None or value is False:
        return False
    if value is not True:
        wrong(name, "true or false", value)
    return True


def bound(body: Mapping[str, Any], *names: str) -> int | None:
    """Return the largest of some bounds; None without any. 0 and -1 mean none to some servers."""
    found: int | None = None
    for name in names:
        value = body.get(name)
        if value is None:
            continue
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 12:
            value = int(value)  # protobuf's JSON writes whole numbers as text, too
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < -1:
            wrong(name, "a whole number from 0 up", value)
        if value > 0:
            found = max(found or 0, min(value, MAX_OUTPUT))
    return found


def count_of(body: Mapping[str, Any], name: str, limit: int = 128) -> int:
    """Return how many answers are asked for. OpenAI makes 128 at the most."""
    value = body.get(name)
    if value is None:
        return 1
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= limit:
        wrong(name, f"a whole number from 1 to {limit}", value)
    return value


def model_of(value: object) -> str:
    """Return a model's name. Raises BadRequest for one that could not stand in a line of a log."""
    if not isinstance(value, str) or not value:
        wrong("model", "a name", value)
    if len(value) > MAX_MODEL:
        raise BadRequest(
            f"model: expected at most {MAX_MODEL} characters, got {len(value)}", "model"
        )
    if not value.isprintable() or value != value.strip():
        wrong("model", "a name in one line of printable characters", value)
    return value


def tier_of(value: object) -> str:
    """Return the service tier that is asked for. What is carried here is no batch, whatever it calls itself: its price
    is half of the usual one, and many providers look at no tier at all."""
    if not isinstance(value, str) or value.lower() in ("auto", "batch"):
        return "default"
    return value.lower()[:MAX_WORD]


_CLOCK: Final = re.compile(
    r"[0-9](?<![0-9.][0-9])(?:"
    r"[0-9]?:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]+)?)?(?![0-9])"
    r"|[0-9]{3}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]+)?)?(?:Z|[+-][0-9]{2}:?[0-9]{2})?)?"
    r"|[0-9]{9}(?:[0-9]{3})?(?:\.[0-9]+)?(?![0-9]))"
)
"""Dates, times of day, Unix seconds and milliseconds."""
_UUID_REST: Final = re.compile(r"-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")


def steady(text: str) -> str:
    """Return a text without the times and ids in it: what differs between two tries of the same thing."""
    plain = _CLOCK.sub("", text)
    if "-" in plain and _UUID_REST.search(plain):
        pieces = _UUID_REST.split(plain)
        plain = "-".join([*(piece[:-8] for piece in pieces[:-1]), pieces[-1]])
    return plain


def digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest()


def _steady_ends(text: str) -> str:
    if len(text) <= _HEAD + _TAIL:
        return steady(text)
    return steady(text[:_HEAD]) + text[_HEAD:-_TAIL] + steady(text[-_TAIL:])


def arguments(value: object) -> str:
    """Return the arguments of a tool call, however they were spaced and ordered."""
    if isinstance(value, str):
        if len(value) > 65_536:
            return value
        try:
            return json.dumps(json.loads(value), sort_keys=True, ensure_ascii=False)
        except (ValueError, RecursionError):
            return value
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def plain(value: object) -> str:
    """Return anything as text: for hashes and counts, not for people."""
    return value if isinstance(value, str) else to_json(value, inf_nan_mode="constants").decode()


def labels(headers: Mapping[str, str]) -> dict[str, Any]:
    """Return what the client says about the call by headers: task, session, tags (`a=b, c`)."""
    told: dict[str, Any] = {}
    for name in ("task", "session"):
        value = headers.get(f"x-midwatch-{name}")
        if value:
            told[name] = word(value, f"x-midwatch-{name}")
    tags = headers.get("x-midwatch-tags")
    if tags:
        parts = [part.strip() for part in tags.split(",") if part.strip()]
        if len(parts) > MAX_TAGS:
            raise BadRequest(f"x-midwatch-tags: expected at most {MAX_TAGS}, got {len(parts)}")
        pairs = (word(part, "x-midwatch-tags").partition("=") for part in parts)
        told["tags"] = {name.strip(): value.strip() for name, _, value in pairs}
    return told


def word(value: str, name: str) -> str:
    if len(value) > MAX_WORD or not value.isprintable():
        raise BadRequest(
            f"{name}: expected a line of up to {MAX_WORD} characters, got {show(value)}"
        )
    return value


def ask_of(
    contents: Contents,
    dialect: Dialect,
    headers: Mapping[str, str],
    *,
    system: str,
    tools: list[Any],
    messages: int,
    **facts: Any,
) -> Ask:
    """Return the `Ask` of what was gathered. `system` is the system prompt, `tools` as they were sent."""
    kind, count = contents.kind, 0
    prompt_alone = counting.of_text(system) if tools and system else 0
    if tools:
        count = counting.TOOLS[kind] + counting.PER_TOOL * len(tools)
        system = f"{system}\x1f{plain(tools)}"
    fixed = counting.of_text(system) + count if system else 0
    said = "\x1f".join(contents.texts)
    tokens = counting.of_text(said) + contents.tokens
    tokens += messages * counting.PER_MESSAGE + counting.PER_REQUEST
    results = contents.results
    whole = f"{contents.model}\x1f{_steady_ends(system)}\x1f{_steady_ends(said)}"
    if "x-midwatch-" in "\n".join(headers):
        facts |= labels(headers)
    return Ask(
        kind,
        dialect,
        contents.model,
        input_tokens=tokens + fixed,
        tools=bool(tools),
        images=contents.images,
        audio=facts.pop("audio", False) or contents.audio,
        request_hash=digest("\x1f".join((whole, *contents.marks)) if contents.marks else whole),
        result_hash=digest(_steady_ends("\x1f".join(results))) if results else None,
        prompt=contents.prompt[:MAX_PROMPT],
        opening=hash(contents.texts[0][:MAX_PROMPT]) if contents.texts else 0,
        system_hash=digest(system) if system else "",
        system_tokens=fixed,
        tool_tokens=fixed - prompt_alone if tools else 0,
        cache_write=contents.kept,
        unseen=tuple(contents.unseen),
        **facts,
    )
