"""Bodies are read strictly, and what must change in them changes alone."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch.gateway.dialects import bodies
from midwatch.gateway.dialects.bodies import (
    BadRequest,
    decode,
    load,
    members,
    with_model,
    with_usage,
    without,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
    | st.sampled_from(['"model":"x"', "}{][,:", "\\", '\\"', "stream_options"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["model", "stream_options", "usage", "a", 'b"\\', ""]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
SEPARATORS = st.sampled_from([(",", ":"), (", ", ": "), (" , ", " :\n\t")])


def dump(value: Any, separators: tuple[str, str] = (",", ":"), *, escaped: bool = False) -> bytes:
    return json.dumps(value, ensure_ascii=escaped, separators=separators).encode()


@settings(max_examples=25)
@given(
    st.dictionaries(st.sampled_from(["a", "b", "messages", "stream_options"]), VALUES, max_size=5),
    NAMES,
    NAMES,
    SEPARATORS,
    st.booleans(),
    st.integers(0, 5),
)
def test_another_model_is_the_only_thing_that_changes(
    rest: dict[str, Any], old: str, new: str, separators: tuple[str, str], escaped: bool, at: int
) -> None:
    items = list(rest.items())
    items.insert(at, ("model", old))
    before = dump(dict(items), separators, escaped=escaped)
    after = with_model(before, new)
    assert json.loads(after) == {**dict(items), "model": new}
    assert list(json.loads(after)) == [name for name, _ in items]
    # every byte around the value is as it was
    written = dump(old, escaped=escaped)
    place = next(m for m in members(before) if m.key == "model")
    assert before[place.start : place.end] == written
    assert after == before[: place.start] + bodies.text(new) + before[place.end :]


def test_a_model_within_a_message_stays() -> None:
    body = (
        b'{"tools":[{"model":"a"}],"text":"\\"model\\":\\"b\\"", "model" : "c","z":{"model":"d"}}'
    )
    assert with_model(body, "new") == body.replace(b'"c"', b'"new"')


def test_a_model_whose_key_is_written_with_escapes_is_found() -> None:
    assert (
        with_model(rb'{"x":{"model":"a"},"mod\u0065l":"b"}', "c")
        == rb'{"x":{"model":"a"},"mod\u0065l":"c"}'
    )


def test_a_model_that_occurs_twice_is_refused_also_in_disguise() -> None:
    for body in (b'{"model":"a","model":"b"}', rb'{"model":"a","mod\u0065l":"b"}'):
        with pytest.raises(BadRequest, match="twice"):
            with_model(body, "c")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b' {"model":"m"}', b' {"stream_options":{"include_usage":true},"model":"m"}'),
        (b'{"stream_options":null}', b'{"stream_options":{"include_usage":true}}'),
        (b'{"stream_options":{}}', b'{"stream_options":{"include_usage":true}}'),
        (b'{"stream_options":{ "x":1}}', b'{"stream_options":{"include_usage":true, "x":1}}'),
        (b'{"stream_options":{"include_usage": false, "x":1}}', b'{"stream_options":{"include_usage": true, "x":1}}'),
        (b'{"stream_options":{"include_usage":null}}', b'{"stream_options":{"include_usage":true}}'),
        (b'{"a":{"stream_options":1}}', b'{"stream_options":{"include_usage":true},"a":{"stream_options":1}}'),
    ],
)  # fmt: skip
def test_usage_is_asked_for_by_a_splice(before: bytes, after: bytes) -> None:
    assert with_usage(before) == after
    assert json.loads(after)["stream_options"]["include_usage"] is True


@settings(max_examples=25)
@given(st.dictionaries(NAMES, VALUES, max_size=5), SEPARATORS, st.booleans())
def test_members_are_found_where_they_stand(
    value: dict[str, Any], separators: tuple[str, str], escaped: bool
) -> None:
    body = dump(value, separators, escaped=escaped)
    found = members(body)
    assert {m.key: json.loads(body[m.start : m.end]) for m in found} == value
    for member in found:
        left = without(b"data: " + body, member.key, 6)
        assert json.loads(left[6:]) == {k: v for k, v in value.items() if k != member.key}


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[1]", b'"x"', b"null", b"<html>", b'{"a":NaN}', b'{"a":Infinity}', b'{"a":1}x', b"{'a':1}",
        b'\xef\xbb\xbf{"a":1}', b'{"a":"\xff"}', b'{"a":"\x00"}', b'{"a":"\\ud800"}', b"[" * 100_000,
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000, b'{"a":1,}', b'\x1f\x8b\x08',
    ],
)  # fmt: skip
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        load({"content-type": "application/json"}, body)


@pytest.mark.parametrize("key", ["model", "messages", "stream", "max_tokens", "n", "tools"])
def test_a_key_that_decides_on_money_may_not_occur_twice(key: str) -> None:
    with pytest.raises(BadRequest, match="twice") as caught:
        load({}, f'{{"{key}":1,"x":{{"{key}":2}},"{key}" : 3}}'.encode())
    assert caught.value.param == key
    assert load({}, f'{{"{key}":1,"x":{{"{key}":2}}}}'.encode())[key] == 1


@pytest.mark.parametrize(
    "body",
    [
        rb'{"max_tokens":1,"max_t\u006fkens":100000}',
        rb'{"max_t\u006fkens":100000,"max_tokens":1}',
        rb'{"generationConfig":{"maxOutputTokens":1,"maxOutputTokens":9}}',
        rb'{"contents":[{"generationConfig":{}}],"generationConfig":{"candidateCount":8,"candidateCount":1}}',
        rb'{"generation_config" : {"max_output_tokens":1,"max_outp\u0075t_tokens":9}}',
        rb'{"generationC\u006fnfig":{"maxOutputTokens":1,"maxOutputTokens":9}}',
        rb'{"stream_options":{"include_usage":false,"include_usage":true}}',
    ],
)
def test_what_decides_may_not_occur_twice_in_disguise_or_within(body: bytes) -> None:
    with pytest.raises(BadRequest, match="twice"):
        load({}, body)


@pytest.mark.parametrize(
    "key",
    [
        "Model",
        "STREAM",
        "Max_Tokens",
        "\u017ftream",
        "Contents",
        "generationconfig",
        "Background",
        "N",
        "MODELS",
    ],
)
def test_a_key_that_only_others_would_read_is_refused(key: str) -> None:
    """Go's parsers match without case, and with the long s of Unicode."""
    body = {"model": "gpt-4o-mini", key: "o3-pro"}
    with pytest.raises(BadRequest, match="expected it as"):
        load({}, dump(body))
    inner = {"generationConfig": {"MaxOutputTokens": 9}}
    with pytest.raises(BadRequest, match="expected it as 'maxOutputTokens'"):
        load({}, dump(inner))
    assert load({}, dump({"x": body})) == {"x": body}


def test_ordinary_escapes_are_no_disguise() -> None:
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": "d\u00e9j\u00e0 vu \x00 \\u006f"}],
    }
    assert load({}, dump(body, escaped=True)) == body


@settings(max_examples=40)
@given(VALUES, st.sampled_from(["model", "stream", "max_tokens", "generationConfig"]), SEPARATORS)
def test_a_body_that_says_nothing_twice_is_loaded(
    value: Any, key: str, separators: tuple[str, str]
) -> None:
    body = {"a": value, key: {"b": value}, "z": [value]}
    for escaped in (True, False):
        assert load({}, dump(body, separators, escaped=escaped)) == body


@pytest.mark.parametrize(
    ("kind", "fine"),
    [("application/json", True), ("application/json; charset=utf-8", True), ("application/vnd.x+json", True),
     ("multipart/form-data; boundary=x", False), ("text/plain", False), ("", False)],
)  # fmt: skip
def test_the_content_type_must_be_jsons(kind: str, fine: bool) -> None:
    if fine:
        assert load({"content-type": kind}, b"{}") == {}
    else:
        with pytest.raises(BadRequest) as caught:
            load({"content-type": kind}, b"{}")
        assert caught.value.status == 415


def test_a_body_without_a_content_type_is_read() -> None:
    assert load({}, b'{"a":1}') == {"a": 1}


def test_millions_of_values_are_refused_before_they_take_memory() -> None:
    with pytest.raises(BadRequest) as caught:
        load({}, b'{"a":[' + b"[]," * 1_100_000 + b"[]]}")
    assert caught.value.status == 413


def test_fifty_megabytes_of_text_are_read() -> None:
    body = b'{"model":"m","x":"' + b"a" * 50_000_000 + b'"}'
    assert len(load({}, body)["x"]) == 50_000_000
    assert with_model(body, "n").startswith(b'{"model":"n","x"')


def test_a_packed_body_is_unpacked_within_its_limit() -> None:
    assert decode(gzip.compress(b'{"a":1}'), "gzip", 100) == b'{"a":1}'
    assert decode(zlib.compress(b'{"a":1}'), "deflate", 100) == b'{"a":1}'
    assert decode(b"{}", "identity", 100) == b"{}"
    bomb = gzip.compress(b"0" * 20_000_000)
    with pytest.raises(BadRequest, match="larger than 1000000 bytes") as caught:
        decode(bomb, "gzip", 1_000_000)
    assert caught.value.status == 413


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"junk", "gzip"),
        (gzip.compress(b"{}", mtime=0)[:-4], "gzip"),
        (gzip.compress(b"{}", mtime=0) + b"x", "gzip"),
        (b"{}", "zstd"),
        (b"{}", "gzip, gzip"),
    ],
)
def test_what_cannot_be_unpacked_is_refused(body: bytes, encoding: str) -> None:
    with pytest.raises(BadRequest):
        decode(body, encoding, 1_000)


def test_a_wrong_value_is_shown_in_part_and_in_one_line() -> None:
    assert bodies.show("a\nb") == "'a\\nb'"
    assert len(bodies.show("é" * 500)) <= bodies.MAX_SHOWN
    assert bodies.show({"a": 1}) == "an object"
