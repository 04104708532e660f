"""What no recording shows: older versions of each family, other kinds of spans, and what families share."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from heard import hear
from spoken import OLD_GEN_AI, OLD_TRACELOOP, TABLE

from midwatch.core.spans.form import ContentKind, Role


@pytest.mark.parametrize(
    ("attributes", "how", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_a_span_becomes_the_normal_form(
    attributes: dict[str, Any], how: dict[str, Any], expected: dict[str, Any]
) -> None:
    heard = hear(attributes, **how)
    assert {name: heard[name] for name in expected} == expected
    assert heard.is_whole()


def test_indexed_messages_are_one_content_each_way() -> None:
    heard = hear(OLD_TRACELOOP)
    assert heard.contents == [
        (
            ContentKind.INPUT,
            "gen_ai.prompt.*",
            '[{"role":"user","content":"Where is my parcel?"}]',
        ),
        (
            ContentKind.OUTPUT,
            "gen_ai.completion.*",
            '[{"role":"assistant","content":"On its way.","finish_reason":"end_turn"}]',
        ),
    ]
    assert heard["content_count"] == 2
    assert heard["input_hash"] != heard["output_hash"]


@pytest.mark.parametrize(
    ("word", "seller"),
    [
        ("openai", "openai"),
        ("openai.chat", "openai"),
        ("openai.responses", "openai"),
        ("azure-openai.chat", "azure"),
        ("azure.ai.openai", "azure"),
        ("az.ai.openai", "azure"),
        ("anthropic.messages", "anthropic"),
        ("Anthropic", "anthropic"),
        ("google.generative-ai", "google"),
        ("google.vertex.chat", "google"),
        ("gcp.gemini", "google"),
        ("gcp.vertex_ai", "google"),
        ("gcp.gen_ai", "google"),
        ("vertex_ai", "google"),
        ("gemini", "google"),
        ("amazon-bedrock", "aws"),
        ("aws.bedrock", "aws"),
        ("x_ai", "x-ai"),
        ("xai.chat", "x-ai"),
        ("mistral_ai", "mistral"),
        ("mistral.chat", "mistral"),
        ("groq", "groq"),
        ("our own", "our own"),
    ],
)
def test_a_provider_is_spelt_as_the_price_list_does(word: str, seller: str) -> None:
    heard = hear({"gen_ai.system": word, "gen_ai.operation.name": "chat"})
    assert heard["provider"] == seller
    assert heard.is_whole()


@pytest.mark.parametrize(
    ("reasons", "finish"),
    [
        (["stop"], "stop"),
        (["end_turn"], "stop"),
        ('["length"]', "length"),
        (["max_tokens"], "length"),
        (["tool_use"], "tool_calls"),
        (["tool-calls"], "tool_calls"),
        (["content_filter"], "refusal"),
        (["SAFETY"], "refusal"),
        (["refusal"], "refusal"),
        (["odd"], "odd"),
        ([], None),
        (7, None),
    ],
)
def test_a_reason_to_end_is_one_of_a_few_words(reasons: Any, finish: str | None) -> None:
    heard = hear({"gen_ai.operation.name": "chat", "gen_ai.response.finish_reasons": reasons})
    assert heard["finish"] == finish
    assert heard.is_whole()


def test_of_two_names_for_one_thing_the_newer_wins_and_both_stay() -> None:
    heard = hear(
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.system": "az.ai.openai",
            "gen_ai.provider.name": "openai",
            "gen_ai.usage.prompt_tokens": 1,
            "gen_ai.usage.input_tokens": 2,
        }
    )
    assert (heard["provider"], heard["input_tokens"]) == ("openai", 2)
    assert heard.is_whole()


def test_a_name_that_cannot_be_read_gives_way_to_the_next() -> None:
    heard = hear({"gen_ai.usage.input_tokens": "many", "gen_ai.usage.prompt_tokens": "12"})
    assert heard["input_tokens"] == 12
    assert heard.is_whole()


def test_an_answers_id_is_found_in_the_answer_where_nothing_else_tells_it() -> None:
    text = 'She said: \\"id\\": \\"chatcmpl-1234567\\"'
    heard = hear(
        {
            "openinference.span.kind": "LLM",
            "output.value": f'{{"choices":[{{"text":"{text}"}}],"id":"chatcmpl-abcdefg"}}',
        }
    )
    assert heard["response_id"] == "chatcmpl-abcdefg"
    assert heard.is_whole()


def test_a_tool_calls_id_is_no_answers_id() -> None:
    heard = hear({"openinference.span.kind": "LLM", "output.value": '{"id":"call_12345678"}'})
    assert heard["response_id"] is None


def test_a_graphs_run_is_an_agent_and_its_node_called_agent_is_none() -> None:
    scope = "openinference.instrumentation.langchain"
    run = hear(
        {"openinference.span.kind": "CHAIN", "metadata": '{"ls_integration": "langgraph"}'},
        scope=scope,
        name="clerk",
    )
    node = hear(
        {
            "openinference.span.kind": "AGENT",
            "metadata": '{"ls_integration": "langgraph", "langgraph_node": "agent"}',
        },
        scope=scope,
        name="agent",
    )
    assert (run.role, run["agent_name"]) == (Role.AGENT, "clerk")
    assert (node.role, node["agent_name"]) == (Role.CHAIN, None)


def test_a_resource_says_environment_version_and_run() -> None:
    resource = {
        "deployment.environment.name": "production",
        "service.version": "7.1",
        "midwatch.run_id": "run-1",
    }
    heard = hear({"gen_ai.operation.name": "chat"}, resource=resource)
    assert heard["tags"] == '{"environment":"production","version":"7.1"}'
    assert heard["run_id"] == "run-1"


def test_evaluations_of_openinference_are_told_and_stay() -> None:
    heard = hear(
        {
            "openinference.span.kind": "LLM",
            "evaluations.0.evaluation.name": "polite",
            "evaluations.0.evaluation.score": 0.5,
            "evaluations.0.evaluation.annotator_kind": "HUMAN",
            "annotations.0.annotation.name": "thumbs",
            "annotations.0.annotation.label": "down",
        }
    )
    assert heard["evaluations"] == (
        '[{"name":"polite","score":0.5,"by":"HUMAN"},{"name":"thumbs","label":"down"}]'
    )
    assert heard.is_whole()


@pytest.mark.parametrize(
    ("written", "waited_ns"),
    [
        ('"2026-11-21T20:05:09.250000Z"', 250_000_000),
        ("2026-11-21T20:05:09.250000", 250_000_000),
        ("2026-11-21T21:05:09.250000+01:00", 250_000_000),
        ("2026-11-21T20:05:08Z", None),
        ("0001-01-01T00:00:00", None),
        ("soon, I hope", None),
    ],
)
def test_langfuse_tells_when_the_first_token_came(written: str, waited_ns: int | None) -> None:
    """The span began at 2026-11-21T20:05:09Z; a time without a zone is UTC."""
    heard = hear(
        {
            "langfuse.observation.type": "generation",
            "langfuse.observation.completion_start_time": written,
        }
    )
    assert heard["first_token_ns"] == waited_ns


@pytest.mark.parametrize(
    ("score", "kept"), [(0.5, 0.5), (True, 1.0), (float("nan"), None), (10**400, None), ("a", None)]
)
def test_a_score_is_a_number_within_reason(score: Any, kept: float | None) -> None:
    told = {"gen_ai.evaluation.name": "good", "gen_ai.evaluation.score.value": score}
    heard = hear({}, events=(("gen_ai.evaluation.result", told),))
    assert json.loads(heard["evaluations"])[0].get("score") == kept


def test_messages_in_events_are_contents_and_the_events_stay() -> None:
    heard = hear(
        OLD_GEN_AI,
        events=(
            ("gen_ai.user.message", {"gen_ai.system": "openai", "content": "Where is it?"}),
            ("gen_ai.choice", {"index": 0, "message": '{"content":"Here."}'}),
            ("exception", {"exception.type": "Broken", "exception.message": "no"}),
        ),
    )
    assert heard.contents == [
        (ContentKind.INPUT, "event/0/content", "Where is it?"),
        (ContentKind.OUTPUT, "event/1/message", '{"content":"Here."}'),
    ]
    assert "Where" not in heard["events"]
    assert '"gen_ai.system":"openai"' in heard["events"]
    assert heard["error_type"] == "Broken"
    assert heard.is_whole()
