"""What ClickHouse alone brings: tables that other tools read, verdicts, hubs beside one another, servers that fail."""

from __future__ import annotations

import http.server
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from midwatch.core.counts import Counts
from midwatch.core.errors import SetupError, StoreError
from midwatch.core.spans.questions import BadQuestion, Choice, SqlLimits
from midwatch.store.clickhouse.client import ClickHouse
from midwatch.store.clickhouse.questions import ClickHouseQuestions
from midwatch.store.clickhouse.spans import ClickHouseSpans

sys.path.insert(0, str(Path(__file__).parents[2]))
from clickhouse import ClickHouseServer, rows
from spans import NOON_NS, NOON_S, batch, call, content, point, record, span, trace_id

T = trace_id("t").hex()


@pytest.fixture
async def hubs(clickhouse_server: ClickHouseServer) -> AsyncIterator[list[ClickHouseSpans]]:
    """Two hubs over one database."""
    address = clickhouse_server.fresh()
    # nobody is in the middle of an insert: what is stored may be settled at once
    made = [ClickHouseSpans(ClickHouse(address), Counts(), lag_s=0.0) for _ in range(2)]
    for store in made:
        await store.open()
    yield made
    for store in made:
        await store.stop()


async def test_other_tools_find_what_the_collector_writes(hubs: list[ClickHouseSpans]) -> None:
    row = call(
        "a", parent="b", kind=3, status=2, status_message="late", scope="lib", scope_version="1",
        attributes='{"http.route":"/x","n":1,"list":[1]}', resource_id=b"\1" * 16,
        events='[{"name":"e","time_ns":5,"attributes":{"k":"v"}}]',
    )  # fmt: skip
    resource = '{"attributes":{"service.name":"inbox","host.cpus":2}}'
    await hubs[0].append(
        batch(row, points=[point(kind=1, monotonic=True)], logs=[record(body="hello", attributes='{"a":"b"}')],
              resources={b"\1" * 16: resource})
    )  # fmt: skip
    (one,) = await rows(
        hubs[1],
        "SELECT TraceId, SpanId, ParentSpanId != '', SpanName, SpanKind, ServiceName, ResourceAttributes, ScopeName,"
        " SpanAttributes, Duration, StatusCode, StatusMessage, `Events.Name`, `Events.Attributes`,"
        " toUnixTimestamp64Nano(Timestamp) FROM otel_traces FINAL",
    )
    assert one[:6] == [T, row[2].hex(), 1, "a", "Client", "inbox"]
    assert one[6] == {"service.name": "inbox", "host.cpus": "2"}
    assert one[7] == "lib"
    assert one[8] == {
        "http.route": "/x", "n": "1", "list": "[1]", "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o-mini", "gen_ai.usage.input_tokens": "100",
        "gen_ai.usage.cache_read.input_tokens": "40", "gen_ai.usage.output_tokens": "20",
    }  # fmt: skip
    assert one[9:] == [10**9, "Error", "late", ["e"], [{"k": "v"}], NOON_NS]
    assert await rows(hubs[1], "SELECT MetricName, Value, IsMonotonic FROM otel_metrics_sum") == [["queue", 1.5, True]]  # fmt: skip
    assert await rows(hubs[1], "SELECT Body, LogAttributes, ServiceName FROM otel_logs FINAL") == [["hello", {"a": "b"}, "inbox"]]  # fmt: skip


async def test_a_span_that_two_hubs_were_given_is_one(hubs: list[ClickHouseSpans]) -> None:
    one, two = hubs
    kept = await one.append(batch(span("a")))
    again = await two.append(batch(span("a"), span("b")))
    assert (kept.new, again.new, again.duplicates) == (1, 1, 1)
    # both at once: each keeps it, and whoever asks sees it once
    for store in hubs:
        await store.append(batch(span("c")))
    assert await rows(one, "SELECT count() FROM otel_traces FINAL") == [[3]]


async def test_what_two_hubs_stored_under_two_names_is_one_when_it_is_settled(
    hubs: list[ClickHouseSpans], clickhouse_server: ClickHouseServer
) -> None:
    one, two = hubs
    await one.append(batch(span("a", name="begun", rank=0)))
    # as if both had looked before either stored
    client = ClickHouse(f"http://127.0.0.1:{clickhouse_server.port}/{one._client.database}")
    names = "agent, trace_id, span_id, rank, start_ns, name, kind, status, role, version"
    client.run(
        f"INSERT INTO otel_traces ({names}) SELECT agent, trace_id, span_id, 2, start_ns, 'done', kind, status, role, 2"
        " FROM otel_traces"
    )
    assert await rows(one, "SELECT count() FROM otel_traces FINAL") == [[2]]
    await two.settle(NOON_S + 60.0)
    assert await rows(one, "SELECT name FROM otel_traces FINAL") == [["done"]]
    client.close()


async def test_usage_is_counted_once_when_it_is_settled(hubs: list[ClickHouseSpans]) -> None:
    one, two = hubs
    # a framework's call around the provider's own: the inner one counts, also when it comes last, to another hub
    await one.append(batch(span("agent", role=1), call("outer", parent="agent")))
    await one.settle(NOON_S + 60.0)
    await two.append(batch(call("inner", parent="outer")))
    questions = ClickHouseQuestions(two)
    before = (await questions.traces(Choice(), None, 10)).items[0]
    assert before["input_tokens"] == 200
    await two.settle(NOON_S + 90.0)
    after = (await questions.traces(Choice(), None, 10)).items[0]
    assert (after["input_tokens"], after["cost_nusd"]) == (100, 5)
    table = await questions.sql("SELECT sum(input_tokens) AS n FROM calls", SqlLimits())
    assert [list(row) for row in table.rows] == [[100]]


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM file('/etc/passwd')",
        "SELECT file('/etc/passwd')",
        "SELECT * FROM url('http://127.0.0.1/', 'CSV', 'a String')",
        "SELECT * FROM system.users",
        "SELECT name IN (system.users) FROM spans",
        "SELECT 1 FROM spans WHERE name IN system.users",
        "SELECT hostName()",
        "SELECT * FROM spans SETTINGS readonly = 0",
        "SELECT 1) FORMAT Null; SELECT (1",
        "SELECT * FROM spans INTO OUTFILE '/tmp/x'",
        "SELECT sleep(3)",
        "SELECT dictGet('d', 'a', 1)",
        "SELECT * FROM midwatch_lost",
        "WITH x AS (SELECT * FROM numbers(10)) SELECT * FROM x",
    ],
)
async def test_sql_of_strangers_has_no_way_out(hubs: list[ClickHouseSpans], text: str) -> None:
    with pytest.raises(BadQuestion):
        await ClickHouseQuestions(hubs[0]).sql(text, SqlLimits())


async def test_what_was_dropped_is_in_no_part_any_more(hubs: list[ClickHouseSpans]) -> None:
    from midwatch.core.spans.store import Selector

    row = span("a", session="s1")
    await hubs[0].append(batch(row, contents=[content(row, "k", "the secret of the night")]))
    proof = await hubs[1].drop(Selector(sessions=frozenset({"s1"})))
    assert proof.complete
    left = "SELECT count() FROM system.parts WHERE database = currentDatabase() AND active AND table = 'midwatch_contents' AND rows > 0"  # fmt: skip
    assert await rows(hubs[0], left) == [[0]]


# -- servers that fail ------------------------------------------------------------------------------


class _Failing(http.server.BaseHTTPRequestHandler):
    """Answers what it is told, in turn."""

    protocol_version = "HTTP/1.1"
    answers: ClassVar[list[tuple[int, bytes]]] = []
    tokens: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.tokens.append(self.path)
        status, body = self.answers.pop(0)
        if status == 0:
            self.close_connection = True
            return  # the answer is lost
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if status != 200:
            self.send_header("X-ClickHouse-Exception-Code", "241")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def failing() -> Iterator[ClickHouse]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Failing)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    client = ClickHouse(f"http://127.0.0.1:{server.server_address[1]}/x")
    yield client
    client.close()
    server.shutdown()
    thread.join()
    server.server_close()
    _Failing.tokens.clear()


def test_an_insert_whose_answer_was_lost_is_sent_again_with_the_same_token(
    failing: ClickHouse,
) -> None:
    _Failing.answers = [(0, b""), (200, b"")]
    failing.insert("t", ["a"], ["[1]"], "token-1")
    assert ["token-1" in path for path in _Failing.tokens] == [True, True]


def test_what_is_never_answered_is_never_acknowledged(failing: ClickHouse) -> None:
    _Failing.answers = [(0, b"")] * 4
    with pytest.raises(StoreError, match="cannot reach ClickHouse at 127") as told:
        failing.insert("t", ["a"], ["[1]"], "token-1")
    assert not told.value.permanent


def test_an_error_in_the_middle_of_an_answer_is_one(failing: ClickHouse) -> None:
    _Failing.answers = [(200, b'{"meta": [Code: 241. DB::Exception: Memory limit exceeded')]
    with pytest.raises(StoreError, match="Memory limit exceeded"):
        failing.ask("SELECT 1")
    _Failing.answers = [(500, b"Code: 241. DB::Exception: Memory limit exceeded")]
    with pytest.raises(StoreError, match="refused: Memory limit exceeded") as told:
        failing.ask("SELECT 1")
    assert not told.value.permanent


@pytest.mark.parametrize("address", ["clickhouse:8123", "ftp://h/x", "http://h:99999/x", "http://h/a;b"])  # fmt: skip
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(SetupError, match=r"hub\.stores\.telemetry"):
        ClickHouse(address)
