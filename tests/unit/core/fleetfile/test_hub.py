"""The fleet file's `hub`: terms of telemetry, and what is said about mistakes in them."""

from __future__ import annotations

import json

import pytest

from midwatch.core.errors import FleetFileError
from midwatch.core.fleet import Fleet
from midwatch.core.fleetfile import FleetFile, check_conditions, read
from midwatch.core.telemetry import SAMPLED_BY, Keep, SampleRule

AGENTS = "agents:\n  inbox: {command: [x]}\n"
DAY_S = 86_400.0

WHOLE = """\
hub:
  keep:
    spans: 7d
    contents: 2d
    logs: ~
    size: 20GiB
    agents: {inbox: {contents: 1h, size: 1GiB}}
  sample:
    - {name: failures, when: errors > 0 || lost > 0, keep: 100%}
    - {when: 'duration_s > 10.0 && "gpt-4o-mini" in models', keep: 50%}
    - {when: 'has(tags.customer) && tags.customer == "acme"', keep: 100%}
    - {keep: 10%}
  forward:
    tempo: {url: "http://tempo:4318/"}
    langfuse:
      url: https://cloud.langfuse.com/api/public/otel
      headers: {Authorization: "env:LANGFUSE", x-region: eu}
      signals: [spans]
      contents: false
      agents: ["in*"]
      queue: 64MiB
  stores: {state: "postgresql://midwatch@db/midwatch", telemetry: "env:CLICKHOUSE"}
  tags: [customer, team]
"""


def hub(text: str) -> FleetFile:
    def no_file(path: str) -> str:
        raise FileNotFoundError(path)

    return read(text + AGENTS, file="f", root="/", env={}, read_file=no_file)


def problems(text: str) -> list[str]:
    with pytest.raises(FleetFileError) as refused:
        hub(text)
    return str(refused.value).splitlines()


def test_everything_that_may_stand_there_is_read() -> None:
    found = hub(WHOLE).fleet.hub
    assert (found.keep.spans, found.keep.logs, found.keep.size) == (7 * DAY_S, None, 20 * 2**30)
    assert found.keep.agents["inbox"].size == 2**30
    assert [rule.keep for rule in found.sample] == [1.0, 0.5, 1.0, 0.1]
    assert found.forward["tempo"].url == "http://tempo:4318"
    assert found.forward["tempo"].signals == ["spans", "points", "logs"]
    assert found.forward["langfuse"].headers == {"Authorization": "env:LANGFUSE", "x-region": "eu"}
    assert found.stores.telemetry == "env:CLICKHOUSE"
    assert found.tags == ["customer", "team"]


def test_the_snapshot_reads_as_the_same_hub() -> None:
    fleet = hub(WHOLE).fleet
    assert Fleet.model_validate(json.loads(fleet.model_dump_json())) == fleet


def test_nothing_is_sampled_forwarded_or_shared_unless_it_is_asked_for() -> None:
    found = hub("").fleet.hub
    assert (found.sample, found.forward, found.stores.state, found.stores.telemetry) == (
        [],
        {},
        None,
        None,
    )


def test_all_of_it_is_in_force() -> None:
    assert hub(WHOLE).notes == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hub: {keep: {span: 1d}}\n", "f:1:14: hub.keep.span: unknown key; did you mean 'spans'?"),
        ("hub: {keep: {spans: 30}}\n", "f:1:21: hub.keep.spans: expected a duration with its unit, such as 90s or 5m, got 30; did you mean 30s?"),
        ("hub: {keep: {spans: 5s}}\n", "f:1:21: hub.keep.spans: expected a minute or longer, such as 30d, got '5s'"),
        ("hub: {keep: {size: 20}}\n", "f:1:20: hub.keep.size: expected a size with its unit, such as 512MiB or 1GiB, got 20"),
        ("hub: {keep: {agents: {inbx: {spans: 1d}}}}\n", "f:1:23: hub.keep.agents.inbx: there is no agent 'inbx'; did you mean 'inbox'?"),
        ("hub: {sample: [{keep: 150%}]}\n", "f:1:23: hub.sample[0].keep: expected a share from 0% to 100%, got '150%'"),
        ("hub: {sample: [{when: 'true'}]}\n", "f:1:16: hub.sample[0].keep: is missing: The share of such traces that is kept"),
        ("hub: {sample: {keep: 10%}}\n", "f:1:15: hub.sample: expected a list, such as [a, b], got 'key: value' lines"),
        ("hub: {forward: {tempo: {}}}\n", "f:1:24: hub.forward.tempo.url: is missing: Where /v1/traces, /v1/metrics and /v1/logs are below, such as http://tempo:4318"),
        ("hub: {forward: {tempo: {url: tempo:4317}}}\n", "f:1:30: hub.forward.tempo.url: expected an address such as https://api.example.com/v1, got 'tempo:4317'"),
        ("hub: {forward: {a: {url: http://a, headers: {Authorization: Bearer x}}}}\n", "f:1:45: hub.forward.a.headers: expected env:NAME or file:PATH, got ***; what Authorization holds would show here; put it into a variable or a file"),
        ("hub: {forward: {a: {url: http://a, signals: [traces]}}}\n", "f:1:46: hub.forward.a.signals[0]: expected one of spans, points, logs, got 'traces'"),
        ("hub: {stores: {state: mysql://x}}\n", "f:1:23: hub.stores.state: expected postgresql://… or env:NAME, got 'mysql://x'"),
        ("hub: {stores: {telemetry: clickhouse}}\n", "f:1:27: hub.stores.telemetry: expected ClickHouse's HTTP address such as http://clickhouse:8123/midwatch, or env:NAME, got 'clickhouse'"),
        ("hub: {tags: [a, b, a]}\n", "f:1:13: hub.tags: expected each tag once, got a list"),
        ("hub: {otlp_grpc: 4317}\n", "f:1:18: hub.otlp_grpc: expected an address and a port such as 127.0.0.1:8700, got 4317; did you mean 127.0.0.1:4317?"),
    ],
)  # fmt: skip
def test_one_mistake_gives_one_message_with_its_place(text: str, message: str) -> None:
    assert problems(text) == [message]


@pytest.mark.parametrize(
    "text",
    [
        "hub: {stores: {state: 'postgresql://me:hunter2@db/x'}}\n",
        "hub: {stores: {telemetry: 'http://me:hunter2@ch:8123'}}\n",
        "hub: {forward: {a: {url: 'http://me:hunter2@a'}}}\n",
        "hub: {forward: {a: {url: http://a, headers: {x-api-key: hunter2}}}}\n",
        "gateway: {ledger: 'postgresql://me:hunter2@db/x'}\n",
        "models: {providers: {openai: {keys: [{from: sk-hunter2}]}}}\n",
        "models: {providers: {openai: {base_url: 'https://me:hunter2@a/v1'}}}\n",
    ],
)
def test_a_secret_that_stands_here_is_refused_and_not_repeated(text: str) -> None:
    (line,) = problems(text)
    assert "hunter2" not in line


def test_conditions_of_sampling_are_checked_over_their_names() -> None:
    assert check_conditions(hub(WHOLE)) == []
    found = check_conditions(hub("hub: {sample: [{when: 'eror > 0', keep: 1%}]}\n"))
    assert [(one.line, one.key) for one in found] == [(1, "hub.sample[0].when")]
    assert "eror" in found[0].message


def test_the_names_of_a_sampling_condition_are_those_that_its_page_lists() -> None:
    said = SampleRule.model_json_schema()["properties"]["when"]["description"]
    names = " ".join(said.partition("Names: ")[2].split())
    assert names.rstrip(".").split(", ") == list(SAMPLED_BY)


def test_an_agents_own_age_wins_and_contents_never_outlive_their_spans() -> None:
    keep = hub(WHOLE).fleet.hub.keep
    assert keep.age_s("inbox", "contents") == 3600.0
    assert keep.age_s("other", "contents") == 2 * DAY_S
    assert keep.age_s("inbox", "spans") == 7 * DAY_S
    assert keep.age_s("inbox", "logs") is None
    assert keep.age_s("inbox", "sums") == 400 * DAY_S
    assert Keep(spans=DAY_S, contents=None).age_s("x", "contents") == DAY_S
    assert Keep(spans=None, contents=DAY_S).age_s("x", "contents") == DAY_S
    assert Keep(spans=None, contents=None).age_s("x", "contents") is None
