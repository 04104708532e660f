"""What no recording shows: older versions of each family, other kinds of spans, and what families share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from heard import PARENT, hear

from midwatch.core.spans.form import ContentKind, CostFrom, Role

OLD_GEN_AI = {
    "gen_ai.system": "openai",
    "gen_ai.request.model": "gpt-4o",
    "gen_ai.usage.prompt_tokens": 100,
    "gen_ai.usage.completion_tokens": 20,
}
OLD_TRACELOOP = {
    "llm.request.type": "chat",
    "gen_ai.system": "Anthropic",
    "gen_ai.request.model": "claude-3-5-sonnet",
    "gen_ai.prompt.0.role": "user",
    "gen_ai.prompt.0.content": "Where is my parcel?",
    "gen_ai.completion.0.role": "assistant",
    "gen_ai.completion.0.content": "On its way.",
    "gen_ai.completion.0.finish_reason": "end_turn",
    "gen_ai.usage.prompt_tokens": 900,
    "gen_ai.usage.completion_tokens": 30,
    "gen_ai.usage.cache_read_input_tokens": 800,
    "gen_ai.usage.cache_creation_input_tokens": 50,
    "llm.usage.total_tokens": 930,
    "traceloop.association.properties.session_id": "s-1",
    "traceloop.association.properties.customer": "acme",
}
OLD_VERCEL = {
    "ai.operationId": "ai.generateText.doGenerate",
    "ai.model.id": "claude-3-5-sonnet",
    "ai.model.provider": "anthropic.messages",
    "ai.usage.promptTokens": 10,
    "ai.usage.completionTokens": 5,
    "ai.telemetry.metadata.sessionId": "s-1",
    "ai.telemetry.metadata.userId": "u-1",
    "ai.telemetry.metadata.plan": "gold",
    "ai.prompt.messages": "[]",
    "ai.response.text": "Hello.",
    "ai.response.msToFirstChunk": 12.5,
}

TABLE: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    (
        "a call without an operation, up to 1.36",
        OLD_GEN_AI,
        {},
        {
            "dialect": "gen_ai",
            "role": Role.CALL,
            "provider": "openai",
            "model": "gpt-4o",
            "input_tokens": 100,
            "output_tokens": 20,
        },
    ),
    (
        "Traceloop with indexed messages",
        OLD_TRACELOOP,
        {},
        {
            "dialect": "traceloop",
            "role": Role.CALL,
            "provider": "anthropic",
            "session": "s-1",
            "tags": '{"customer":"acme"}',
            "input_tokens": 900,
            "cached_tokens": 800,
            "cache_write_tokens": 50,
            "output_tokens": 30,
        },
    ),
    (
        "Vercel before version 5",
        OLD_VERCEL,
        {},
        {
            "dialect": "vercel",
            "role": Role.CALL,
            "operation": "ai.generateText.doGenerate",
            "provider": "anthropic",
            "session": "s-1",
            "user": "u-1",
            "input_tokens": 10,
            "output_tokens": 5,
            "first_token_ns": 12_500_000,
        },
    ),
    (
        "Vercel's embedding",
        {"ai.operationId": "ai.embed.doEmbed", "ai.model.id": "e-1", "ai.usage.tokens": 7},
        {},
        {"role": Role.EMBEDDING, "model": "e-1", "input_tokens": 7, "output_tokens": None},
    ),
    (
        "a task of Traceloop's",
        {"traceloop.span.kind": "task", "traceloop.entity.name": "sort"},
        {},
        {"role": Role.CHAIN, "agent_name": None},
    ),
    (
        "an agent of Traceloop's that is named as an entity alone",
        {"traceloop.span.kind": "agent", "traceloop.entity.name": "sorter"},
        {},
        {"role": Role.AGENT, "agent_name": "sorter"},
    ),
    (
        "a tool of Traceloop's that is named as an entity alone",
        {"traceloop.span.kind": "tool", "traceloop.entity.name": "look_up"},
        {},
        {"role": Role.TOOL, "tool": "look_up"},
    ),
    (
        "a retriever of OpenInference's",
        {"openinference.span.kind": "RETRIEVER", "input.value": "lamps"},
        {},
        {"role": Role.RETRIEVAL, "dialect": "openinference"},
    ),
    (
        "a guardrail of OpenInference's",
        {"openinference.span.kind": "GUARDRAIL"},
        {},
        {"role": Role.GUARD},
    ),
    (
        "an evaluator of OpenInference's",
        {"openinference.span.kind": "EVALUATOR"},
        {},
        {"role": Role.EVALUATION},
    ),
    (
        "a decision of OpenInference's",
        {"openinference.span.kind": "DECISION", "decision.model_name": "m"},
        {},
        {"role": Role.DECISION, "model": "m"},
    ),
    (
        "an embedding of OpenInference's",
        {
            "openinference.span.kind": "EMBEDDING",
            "embedding.model_name": "text-embedding-3-small",
            "llm.token_count.prompt": 8,
        },
        {},
        {"role": Role.EMBEDDING, "model": "text-embedding-3-small", "input_tokens": 8},
    ),
    (
        "an agent of OpenInference's that is named by its span alone",
        {"openinference.span.kind": "AGENT"},
        {"name": "planner"},
        {"role": Role.AGENT, "agent_name": "planner"},
    ),
    (
        "a handoff of the OpenAI Agents SDK, by OpenInference",
        {"openinference.span.kind": "TOOL"},
        {"scope": "openinference.instrumentation.openai_agents", "name": "handoff to biller"},
        {"role": Role.HANDOFF},
    ),
    (
        "a handoff of the OpenAI Agents SDK, by Logfire",
        {"logfire.msg_template": "Handoff: {from_agent} → {to_agent}"},
        {"scope": "logfire.openai_agents"},
        {"role": Role.HANDOFF, "dialect": "logfire"},
    ),
    (
        "a guardrail of the OpenAI Agents SDK, by Logfire",
        {"logfire.msg_template": "Guardrail {name!r} {triggered=}", "name": "no-orders"},
        {"scope": "logfire.openai_agents"},
        {"role": Role.GUARD},
    ),
    (
        "a tool of an MCP client that says its name",
        {"mcp.method.name": "tools/call", "gen_ai.tool.name": "look_up"},
        {"kind": 3, "parent": PARENT},
        {"role": Role.TOOL, "tool": "look_up", "dialect": "mcp"},
    ),
    (
        "a tool of an MCP server that nobody is seen to call",
        {"mcp.method.name": "tools/call", "gen_ai.tool.name": "look_up"},
        {"kind": 2},
        {"role": Role.TOOL, "tool": "look_up"},
    ),
    (
        "a tool of an MCP server, below its caller",
        {"mcp.method.name": "tools/call", "gen_ai.tool.name": "look_up"},
        {"kind": 2, "parent": PARENT},
        {"role": Role.CHAIN, "tool": "look_up"},
    ),
    (
        "a resource that an MCP client reads",
        {"mcp.method.name": "resources/read", "mcp.session.id": "c-1"},
        {"kind": 3},
        {"role": Role.RETRIEVAL, "session": None},
    ),
    ("what MCP does besides", {"mcp.method.name": "tools/list"}, {}, {"role": Role.OTHER}),
    (
        "the gateway's call",
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "cheap",
            "gen_ai.provider.name": "openai",
            "gen_ai.response.model": "gpt-4o-mini",
            "midwatch.provider": "main",
            "midwatch.model": "gpt-4o-mini",
            "midwatch.call_id": "call-1",
            "midwatch.cost_nusd": 4200,
            "midwatch.price_version": "v1",
            "midwatch.tags": ["customer=acme", "night"],
            "gen_ai.usage.input_tokens": 10,
            "gen_ai.usage.output_tokens": 1,
        },
        {"scope": "midwatch.gateway"},
        {
            "dialect": "midwatch",
            "role": Role.CALL,
            "model": "cheap",
            "response_model": "gpt-4o-mini",
            "provider": "openai",
            "call_id": "call-1",
            "cost_nusd": 4200,
            "cost_from": CostFrom.LEDGER,
            "price_version": "v1",
            "tags": '{"customer":"acme","night":"true"}',
        },
    ),
    (
        "one attempt of the gateway's call",
        {
            "midwatch.call_id": "call-1",
            "midwatch.attempt": 1,
            "gen_ai.provider.name": "openai",
            "midwatch.model": "gpt-4o-mini",
            "gen_ai.response.time_to_first_chunk": 0.25,
        },
        {"scope": "midwatch.gateway"},
        {"role": Role.OTHER, "call_id": "call-1", "first_token_ns": 250_000_000},
    ),
    (
        "a cost that somebody else says is the ledger's",
        {"midwatch.span": "call", "midwatch.cost_nusd": 4200},
        {"scope": "midwatch.sdk"},
        {"cost_nusd": 4200, "cost_from": CostFrom.REPORTED},
    ),
    (
        "a session's outcome",
        {
            "midwatch.span": "session",
            "midwatch.outcome": "success",
            "midwatch.goal_met": True,
            "midwatch.escalated": False,
        },
        {"scope": "midwatch.sdk"},
        {"role": Role.CHAIN, "outcome": "success", "goal_met": True, "escalated": False},
    ),
    (
        "Langfuse's guardrail, its environment and release",
        {
            "langfuse.observation.type": "guardrail",
            "langfuse.environment": "production",
            "langfuse.release": "v7",
            "langfuse.trace.metadata.customer": "acme",
            "langfuse.trace.tags": ["night"],
            "user.id": 12,
        },
        {},
        {
            "dialect": "langfuse",
            "role": Role.GUARD,
            "user": "12",
            "tags": '{"environment":"production","version":"v7","customer":"acme","night":"true"}',
        },
    ),
    (
        "what Langfuse itself says a call costs",
        {
            "langfuse.observation.type": "generation",
            "langfuse.observation.cost_details": '{"input": 0.001, "total": 0.0015}',
        },
        {},
        {"role": Role.CALL, "cost_nusd": 1_500_000, "cost_from": CostFrom.REPORTED},
    ),
    (
        "a plan, a search in a memory, by the conventions' own repository",
        {"gen_ai.operation.name": "search_memory", "gen_ai.memory.store.id": "m"},
        {},
        {"role": Role.MEMORY, "operation": "search_memory"},
    ),
    (
        "an operation of somebody's own that is an agent's",
        {
            "gen_ai.operation.name": "run_agent_loop",
            "gen_ai.request.model": "m",
            "gen_ai.usage.input_tokens": 5,
        },
        {},
        {"role": Role.AGENT, "input_tokens": 5},
    ),
    (
        "an operation of somebody's own that has a model and tokens",
        {
            "gen_ai.operation.name": "call_llm",
            "gen_ai.system": "gcp.vertex.agent",
            "gen_ai.request.model": "gemini-2.5-flash",
            "gen_ai.usage.input_tokens": 5,
        },
        {},
        {"role": Role.CALL, "provider": "google"},
    ),
    (
        "what no family knows",
        {"http.request.method": "GET", "error.type": "500", "session.id": "s-1"},
        {},
        {"dialect": "none", "role": Role.OTHER, "error_type": "500", "session": "s-1"},
    ),
]


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
