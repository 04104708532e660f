"""Secrets that their name gives away leave text, what only looks so stays, and what was JSON is JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch.core.labelled import hints_labels, unlabel
from midwatch.core.redact import hints, redact, redact_counted, redact_text

SECRET = "correct horse battery"

TAKEN = [
    ('{"api_key": "correct horse"}', '{"api_key": "[redacted]"}'),
    ('{"user":"ann","password":"x","port":1}', '{"user":"ann","password":"[redacted]","port":1}'),
    ('{"Authorization" : "Basic dXNlcjpwYXNz"}', '{"Authorization" : "[redacted]"}'),
    ('{"headers": {"Set-Cookie": ["a=1; b=2", "c=3"]}}', '{"headers": {"Set-Cookie": ["[redacted]", "[redacted]"]}}'),
    ('{"password": 12345, "n": 1}', '{"password": "[redacted]", "n": 1}'),
    ('{"password": "a\\"b\\\\", "n": 1}', '{"password": "[redacted]", "n": 1}'),
    ('{"password": "a\\\\\\"b"}', '{"password": "[redacted]"}'),
    ('{"db.password": "x"}', '{"db.password": "[redacted]"}'),
    ('{"auth": {"clientSecret": "x"}}', '{"auth": {"clientSecret": "[redacted]"}}'),
    # JSON within JSON, once and twice, and pretty
    (r'{"text": "{\"api_key\": \"x y\", \"n\": 1}"}', r'{"text": "{\"api_key\": \"[redacted]\", \"n\": 1}"}'),
    (r'{"t": "{\"t\": \"{\\\"secret\\\": \\\"x\\\"}\"}"}', r'{"t": "{\"t\": \"{\\\"secret\\\": \\\"[redacted]\\\"}\"}"}'),
    (r'{"t": "{\n \"cookie\": [\n  \"a\"\n ]}"}', r'{"t": "{\n \"cookie\": [\n  \"[redacted]\"\n ]}"}'),
    # what was clipped in the middle
    ('{"api_key": "correct ho', '{"api_key": "[redacted]'),
    (r'{"text": "\"api_key\": \"correct", "n": 1}', r'{"text": "\"api_key\": \"[redacted]", "n": 1}'),
    # as Python writes objects
    ("{'password': 'a', 'n': 1}", "{'password': '[redacted]', 'n': 1}"),
    ("{'password': b'a', 'n': 1}", "{'password': b'[redacted]', 'n': 1}"),
    ("""{'password': "it's", 'n': 1}""", """{'password': "[redacted]", 'n': 1}"""),
    ("{'password': 7}", "{'password': '[redacted]'}"),
    # URLs
    ("GET https://x.io/a?token=abc&n=1 200", "GET https://x.io/a?token=[redacted]&n=1 200"),
    ("https://x.io/a?n=1&api_key=abc#top", "https://x.io/a?n=1&api_key=[redacted]#top"),
    ("https://x.io/#access_token=abc", "https://x.io/#access_token=[redacted]"),
    ("https://b.s3.aws/o?X-Amz-Signature=0f0f&X-Amz-Date=1", "https://b.s3.aws/o?X-Amz-Signature=[redacted]&X-Amz-Date=1"),
    ("a=1&client_secret=abc%2F", "a=1&client_secret=[redacted]"),
    ("/a?b=1&amp;token=abc&amp;c=2", "/a?b=1&amp;token=[redacted]&amp;c=2"),
    (r'{"u": "/a?b=1\u0026token=abc\u0026c=2"}', r'{"u": "/a?b=1\u0026token=[redacted]\u0026c=2"}'),
    ("https://maps.io/api?key=0123456789abcdef0123", "https://maps.io/api?key=[redacted]"),
    ("Server=db;Password=abc;Timeout=5", "Server=db;Password=[redacted];Timeout=5"),
    ("postgres://ann:s3cret@db:5432/x", "postgres://ann:[redacted]@db:5432/x"),
    ("redis://:s3cret@cache:6379/0", "redis://:[redacted]@cache:6379/0"),
    ("amqp://u:p@ss@h", "amqp://u:[redacted]@h"),
    (r'{"u": "https:\/\/u:p@h\/x"}', r'{"u": "https:\/\/u:[redacted]@h\/x"}'),
    (r'{"u": "https://u:p\u0026q@h/"}', r'{"u": "https://u:[redacted]@h/"}'),
]  # fmt: skip

STAYS = [
    "", '{"api_key": ""}', '{"api_key": null}', '{"has_password": true, "password": false}',
    '{"token": "page-2", "key": "name", "max_tokens": 4096, "input_tokens": 12}',
    '{"properties": {"api_key": {"type": "string", "description": "the key"}}, "required": ["api_key"]}',
    '{"password": "string", "secret": "required"}', '{"api_key": "${OPENAI_API_KEY}"}', '{"api_key": "$OPENAI_API_KEY"}',
    '{"api_key": "<your-key>"}', '{"api_key": "your_api_key_here"}', '{"password": "********"}', '{"password": "{{password}}"}',
    '{"api_key": "[redacted]"}', '{"authorization": "Bearer 9f8e7d6[redacted]"}', '{"cookie": []}', '{"password": {}}',
    'The password: "hunter" is asked for. Set "api_key" first.', "api_key = os.environ['API_KEY']", "f(api_key=api_key, n=1)",
    "if a and password == secret: pass", "SELECT secret FROM t WHERE token = 5", '["api_key", "password"]',
    '{"text": "set \'api_key\': ", "n": 1}', r'{"text": "say \"password\": \"", "n": 1}', '{"password_hint": "dog"}',
    "https://x.io/a?page=2&next_page_token_count=1", "https://x.io/issues?key=PROJ-123", "https://x.io/?q=token", "?token=",
    "?token={token}&n=1", "?api_key=$KEY", "?token=<token>", "a?password=get_password()", "http://localhost:8080/@user",
    "https://cdn.io/npm/vue@3.4:5", "git@github.com:a/b.git", "ann@example.org: see http://x.io:80/a", "ssh://git@host:22/x",
    "postgres://ann:${PASSWORD}@db", "https://user:[redacted]@h", "http://x.io:80?mail=a@b.c", "ftp://a@b", "16:30 @home // later",
]  # fmt: skip


@pytest.mark.parametrize(("text", "shown"), TAKEN)
def test_what_a_name_says_is_a_secret_is_taken_out(text: str, shown: str) -> None:
    assert redact_text(text) == shown
    assert redact_text(shown) == shown, "what is gone is not counted again"
    assert hints(text.encode())
    assert redact_counted(text.encode())[1] == 0, "by its name, not by its look"


@pytest.mark.parametrize("text", STAYS)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text.encode()) == (text.encode(), 0)


def test_a_key_that_its_look_gives_away_keeps_its_first_letters_under_a_name_too() -> None:
    text = '{"api_key": "sk-proj-' + "a1B2" * 12 + '", "cookie": "a=sk-' + "b" * 40 + '; b=2"}'
    assert redact_text(text) == '{"api_key": "sk-proj[redacted]", "cookie": "[redacted]"}'


def test_a_tool_that_describes_a_password_is_not_looked_at_closely() -> None:
    assert not hints_labels(b'{"key":"gen_ai.usage.input_tokens","value":{"intValue":"7"}}')
    assert not hints_labels(b'{"cache_key": "a", "next_token": "b"} ann@example.org')


WORDS = st.sampled_from(
    ["a", "'", '"', "\\", "\n", ",", "}", ": ", "'password': ", '"api_key": ', "'", "é", "?token=x&", "://u:p@", "[", "{'secret': '", "sk-" + "a1" * 12]
)  # fmt: skip
TEXTS = st.lists(WORDS, max_size=8).map("".join)
NAMES = st.sampled_from(["password", "api_key", "Set-Cookie", "note", "n", "x.secret"]) | TEXTS
TREES = st.recursive(
    TEXTS | st.integers(-5, 10**9) | st.booleans() | st.none() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=12,
)


def written(tree: Any, depth: int, *, pretty: bool, ascii_only: bool) -> str:
    """Return a tree as JSON that is a text within JSON, so many times."""
    text = json.dumps(tree, indent=1 if pretty else None, ensure_ascii=ascii_only)
    for _ in range(depth):
        text = json.dumps({"text": text, "n": 1}, ensure_ascii=ascii_only)
    return text


@settings(deadline=None)
@given(TREES, st.integers(0, 3), st.booleans(), st.booleans())
def test_json_stays_json_however_deep_it_is_a_text_within_json(
    tree: Any, depth: int, pretty: bool, ascii_only: bool
) -> None:
    text = redact_text(written(tree, depth, pretty=pretty, ascii_only=ascii_only))
    read: Any = None
    for level in range(depth + 1):
        read = json.loads(text)
        if level < depth:
            assert read["n"] == 1
            text = read["text"]


@settings(deadline=None)
@given(
    st.sampled_from(["password", "x-api-key", "db.secret"]),
    st.text(min_size=1),
    st.integers(0, 3),
    st.booleans(),
)
def test_a_secret_in_json_is_taken_out_whatever_it_is_and_its_neighbours_are_left(
    name: str, secret: str, depth: int, ascii_only: bool
) -> None:
    tree = {"before": "x", name: f"~1{secret}", "after": [1, "y"]}
    data = written(tree, depth, pretty=False, ascii_only=ascii_only).encode(errors="replace")
    clean, found = redact(data)
    assert hints(data)
    for _ in range(depth):
        clean = json.loads(clean)["text"].encode()
    assert json.loads(clean) == {**tree, name: "[redacted]"}
    assert found >= 1


@settings(deadline=None)
@given(
    st.lists(WORDS | st.sampled_from([one for one, _ in TAKEN]), max_size=6).map("".join),
    st.binary(max_size=40),
)
def test_the_quick_look_misses_no_label(text: str, raw: bytes) -> None:
    data = text.encode()
    if unlabel(data)[1]:
        assert hints_labels(data)
        assert hints_labels(raw + b"\n\x80\x01" + data + raw)
    once = redact(data)[0]
    assert redact(once) == (once, 0)


@pytest.mark.parametrize(
    "piece",
    ["\\", '"', "'", '"api_key":', '"api_key": "', "'password': '", "api_key", "?token=", "&", "://", "://a:", "://a:b@",
     '"cookie": [', '"cookie": ["a", ', "=", "@", ":", "key=", "a", '\\"secret\\": \\"', "\\u0026", '"a" : ', "secret\":"],
)  # fmt: skip
def test_twice_the_text_is_not_four_times_the_steps(piece: str) -> None:
    """Counted in what Python runs, not in seconds."""
    import sys

    def steps(size: int) -> int:
        data = (piece * (size // len(piece))).encode()
        seen = 0

        def count(*_: Any) -> None:
            nonlocal seen
            seen += 1

        sys.setprofile(count)
        try:
            redact(data)
            hints(data)
        finally:
            sys.setprofile(None)
        return seen

    assert steps(8_000) <= 2.5 * steps(4_000) + 100


@pytest.mark.parametrize("sign", ["=", "@"])
def test_behind_many_signs_that_say_nothing_one_that_does_is_found(sign: str) -> None:
    for many in (0, 1, 511, 512, 513, 5_000):
        data = f"{sign} " * many + "x?token=abc postgres://u:pw@h "
        assert hints_labels(data.encode())
        assert not hints_labels((f"{sign} " * many).encode())
