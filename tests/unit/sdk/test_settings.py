"""What the environment says, and what wins."""

from __future__ import annotations

from pathlib import Path

import pytest

import midwatch as mw
from midwatch.sdk import runtime
from midwatch.sdk.settings import TABLE, Settings

UP = {
    "MIDWATCH_AGENT": "inbox",
    "MIDWATCH_RUN_ID": "run-1",
    "MIDWATCH_URL": "http://127.0.0.1:8700",
    "MIDWATCH_TOKEN": "secret",
    "MIDWATCH_SPOOL": "/spool",
    "NOTIFY_SOCKET": "@n",
}


def test_all_is_read_from_the_environment() -> None:
    settings = Settings(UP)
    assert settings.agent == "inbox"
    assert settings.run_id == "run-1"
    assert settings.url == "http://127.0.0.1:8700"
    assert settings.token == "secret"
    assert settings.spool_dir == "/spool"
    assert settings.notify_socket == "@n"
    assert settings.traces
    assert settings.traces_url is None
    assert settings.resource == {"service.name": "inbox", "midwatch.agent": "inbox"}


def test_arguments_win() -> None:
    settings = Settings(UP, agent="a", url="http://h", token="t", spool="/s", run_id="r")
    assert (settings.agent, settings.url, settings.token) == ("a", "http://h", "t")
    assert (settings.spool_dir, settings.run_id) == ("/s", "r")


def test_a_token_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from-file\n")
    environ = {"MIDWATCH_URL": "http://h", "MIDWATCH_TOKEN_FILE": str(file)}
    assert Settings(environ).token == "from-file"
    assert Settings({**environ, "MIDWATCH_TOKEN_FILE": "/nowhere"}).token is None


def test_the_spool_is_where_state_belongs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert Settings({}, agent="inbox").spool_dir == "/home/ann/.local/state/midwatch/spool/inbox"
    assert Settings({"XDG_STATE_HOME": "/x"}, agent="../a/b").spool_dir == "/x/midwatch/spool/_a_b"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/"}, "http://c:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/x"}, "http://c/x"),
        (
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            },
            None,
        ),
    ],
)
def test_spans_go_where_opentelemetry_says(environ: dict[str, str], expected: str | None) -> None:
    assert Settings({**UP, **environ}).traces_url == expected


@pytest.mark.parametrize("off", [{"OTEL_SDK_DISABLED": "True"}, {"OTEL_TRACES_EXPORTER": "none"}])
def test_spans_can_be_turned_off(off: dict[str, str]) -> None:
    assert not Settings({**UP, **off}).traces


def test_headers_and_attributes_are_percent_decoded() -> None:
    settings = Settings(
        {
            **UP,
            "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20x, y=1,broken,=2",
            "OTEL_RESOURCE_ATTRIBUTES": "team=night%2Cwatch",
            "OTEL_SERVICE_NAME": "mail",
        }
    )
    assert settings.traces_headers == {"authorization": "Bearer x", "y": "1"}
    assert settings.resource == {
        "team": "night,watch",
        "service.name": "mail",
        "midwatch.agent": "inbox",
    }


def test_without_hub_and_supervisor_init_does_nothing() -> None:
    mw.init("inbox", track=("openai",))
    assert runtime.current is None
    assert mw.statistics() == {"active": False, "swallowed": {}}


def test_the_table_names_each_variable_once() -> None:
    names = [name for name, about in TABLE if about]
    assert len(names) == len(set(names)) == len(TABLE)
