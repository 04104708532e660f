"""What an agent finds in its environment, and how env files are read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.errors import SetupError
from midwatch.core.fleet import Agent
from midwatch.supervisor.environment import Carrier, Identity, build, parse_env, read_env_file

WHO = Identity(
    agent="inbox",
    run_id="run-1",
    token="mwr_abc.def",
    hub_url="http://127.0.0.1:8700",
    spool="/data/spool/inbox",
    notify_socket="/data/run/inbox.sock",
    watchdog_s=60.0,
)
AGENT = Agent(command=["agent"])


def test_the_environment_of_contract_is_there() -> None:
    env = build(AGENT, WHO, {"PATH": "/bin", "HOME": "/home/me"}, {})
    path = env.pop("PATH")
    assert path.startswith("/bin:")
    assert env == {
        "HOME": "/home/me",
        "MIDWATCH_AGENT": "inbox",
        "MIDWATCH_RUN_ID": "run-1",
        "MIDWATCH_URL": "http://127.0.0.1:8700",
        "MIDWATCH_TOKEN": "mwr_abc.def",
        "MIDWATCH_SPOOL": "/data/spool/inbox",
        "NOTIFY_SOCKET": "/data/run/inbox.sock",
        "WATCHDOG_USEC": "60000000",
        "OTEL_SERVICE_NAME": "inbox",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:8700",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20mwr_abc.def",
        "OTEL_RESOURCE_ATTRIBUTES": "service.instance.id=run-1,midwatch.agent=inbox,midwatch.run_id=run-1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
    }


def test_what_is_the_supervisors_own_does_not_leak() -> None:
    ours = {
        "MIDWATCH_TOKEN": "admin",
        "MIDWATCH_DATA": "/data",
        "NOTIFY_SOCKET": "/run/systemd/notify",
        "WATCHDOG_PID": "1",
        "LISTEN_FDS": "3",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "secret",
    }
    env = build(AGENT, Identity("a", "r", "t", "http://h", "/s"), ours, {})
    assert env["MIDWATCH_TOKEN"] == "t"
    assert {
        "MIDWATCH_DATA",
        "NOTIFY_SOCKET",
        "WATCHDOG_PID",
        "LISTEN_FDS",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    } & env.keys() == set()


def test_the_fleet_file_wins_over_its_env_file_and_both_over_what_is_injected() -> None:
    agent = Agent(command=["agent"], env={"A": "file", "MIDWATCH_URL": "http://mine"})
    env = build(
        agent,
        WHO,
        {"A": "inherited", "B": "inherited"},
        {"A": "env file", "B": "env file", "PYTHONUNBUFFERED": ""},
    )
    assert (env["A"], env["B"], env["MIDWATCH_URL"], env["PYTHONUNBUFFERED"]) == (
        "file",
        "env file",
        "http://mine",
        "",
    )


GATEWAY = Carrier("http://127.0.0.1:8701", "mwk_run.key", frozenset({"OPENAI_API_KEY", "KEY_B"}))
CARRIED = replace(WHO, gateway=GATEWAY)
LED = {
    "OPENAI_BASE_URL": "http://127.0.0.1:8701/v1",
    "OPENAI_API_KEY": "mwk_run.key",
    "ANTHROPIC_BASE_URL": "http://127.0.0.1:8701",
    "ANTHROPIC_API_KEY": "mwk_run.key",
    "GOOGLE_GEMINI_BASE_URL": "http://127.0.0.1:8701",
    "GEMINI_API_KEY": "mwk_run.key",
}


def _models(env: dict[str, str]) -> dict[str, str]:
    return {k: v for k, v in env.items() if k.startswith(("OPENAI", "ANTHROPIC", "G", "KEY_"))}


def test_model_calls_are_led_to_the_gateway_and_no_providers_key_is_inherited() -> None:
    inherited = {
        "OPENAI_API_KEY": "sk-real",
        "KEY_B": "sk-named-by-the-fleet-file",
        "OPENAI_BASE_URL": "https://elsewhere",
        "OPENAI_API_BASE": "https://elsewhere",
    }
    assert _models(build(AGENT, CARRIED, inherited, {})) == LED


def test_an_agent_with_a_key_of_its_own_keeps_that_provider_to_itself() -> None:
    env = build(AGENT, CARRIED, {"OPENAI_API_KEY": "sk-real"}, {"OPENAI_API_KEY": "sk-own"})
    expected = {k: v for k, v in LED.items() if k != "OPENAI_BASE_URL"}
    assert _models(env) == expected | {"OPENAI_API_KEY": "sk-own"}
    inherited = {"OPENAI_BASE_URL": "https://inherited"}
    env = build(AGENT, CARRIED, inherited, {"OPENAI_API_KEY": "sk-own"})
    assert env["OPENAI_BASE_URL"] == "https://inherited"


def test_an_address_of_its_own_is_never_shown_the_key_of_a_run() -> None:
    agent = Agent(command=["agent"], env={"ANTHROPIC_BASE_URL": "https://mine"})
    env = build(agent, CARRIED, {}, {})
    assert env["ANTHROPIC_BASE_URL"] == "https://mine"
    assert "ANTHROPIC_API_KEY" not in env


def test_a_rehearsal_never_spends_whatever_the_fleet_file_says() -> None:
    agent = Agent(
        command=["agent"],
        env={"OPENAI_API_KEY": "sk-real", "OPENAI_BASE_URL": "https://real", "GROQ_API_KEY": "g"},
    )
    who = replace(WHO, gateway=replace(GATEWAY, rehearses=True))
    env = build(agent, who, {"ANTHROPIC_API_KEY": "real"}, {"GOOGLE_API_KEY": "real"})
    assert _models(env) == LED


def test_without_a_gateway_keys_are_passed_on_and_no_base_url_is_set() -> None:
    env = build(AGENT, WHO, {"OPENAI_API_KEY": "sk-real"}, {})
    assert env["OPENAI_API_KEY"] == "sk-real"
    assert "OPENAI_BASE_URL" not in env


def test_behind_a_proxy_this_machine_is_still_asked_directly() -> None:
    env = build(AGENT, WHO, {"https_proxy": "http://proxy:3128", "NO_PROXY": "intra"}, {})
    assert env["NO_PROXY"] == "intra,127.0.0.1,localhost,::1"
    assert env["no_proxy"] == "127.0.0.1,localhost,::1"
    assert "NO_PROXY" not in build(AGENT, WHO, {}, {})


def test_an_env_file_has_comments_exports_quotes_and_escapes() -> None:
    text = """
    # a comment
    A=plain # not this
    export B = "two words"   # nor this
    C='as $is \\n'
    D="line\\nbreak \\"quoted\\" \\d"
    E=
    F=a#b
    A=the last one wins
    """
    assert parse_env(text, ".env") == {
        "A": "the last one wins",
        "B": "two words",
        "C": "as $is \\n",
        "D": 'line\nbreak "quoted" \\d',
        "E": "",
        "F": "a#b",
    }


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("no equals sign", "expected KEY=VALUE"),
        ("1A=x", "expected KEY=VALUE"),
        ('A="open', "A: the quote is not closed"),
        ("A='a' b", "A: the quote"),
    ],
)
def test_a_bad_line_is_named_without_its_value(line: str, words: str) -> None:
    with pytest.raises(SetupError, match=f"^\\.env:2: {words}") as caught:
        parse_env(f"OK=1\n{line}\n", ".env")
    assert "open" not in str(caught.value)


def test_a_missing_env_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        SetupError, match=r"agents\.inbox\.env_file: cannot read .*create it, or take env_file out"
    ):
        read_env_file(tmp_path / ".env", "inbox")


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_with_a_line(text: str) -> None:
    refused = ""
    found: dict[str, str] = {}
    try:
        found = parse_env(text, ".env")
    except SetupError as error:
        refused = str(error)
    assert refused == "" or refused.startswith(".env:")
    assert all(name.isidentifier() for name in found)
