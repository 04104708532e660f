"""Plain OpenTelemetry, written by hand: the same conversation three times, once in each generation of
the GenAI conventions, each a trace and a session of its own."""

import json

import stage
from opentelemetry import trace
from opentelemetry.trace import SpanKind

made = stage.provider()


def v1_28(tracer: trace.Tracer) -> None:
    """Up to 1.36: `gen_ai.system`, messages as events of the span."""
    for question, tool, cached in (
        (stage.FIRST, True, 1024),
        (stage.SECOND, False, 1536),
    ):
        with tracer.start_as_current_span("chat gpt-4o-mini", kind=SpanKind.CLIENT) as span:
            span.set_attributes(
                {
                    "gen_ai.operation.name": "chat",
                    "gen_ai.system": "openai",
                    "gen_ai.request.model": stage.OPENAI,
                    "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
                    "gen_ai.response.id": f"chatcmpl-{cached}",
                    "gen_ai.response.finish_reasons": ["tool_calls" if tool else "stop"],
                    "gen_ai.usage.input_tokens": 1500 if tool else 1700,
                    "gen_ai.usage.output_tokens": 63 if tool else 11,
                    "session.id": "session-a",
                }
            )
            span.add_event(
                "gen_ai.system.message", {"gen_ai.system": "openai", "content": stage.SYSTEM}
            )
            span.add_event("gen_ai.user.message", {"gen_ai.system": "openai", "content": question})
            span.add_event(
                "gen_ai.choice",
                {
                    "gen_ai.system": "openai",
                    "index": 0,
                    "finish_reason": "stop",
                    "message": json.dumps({"role": "assistant", "content": "You are welcome."}),
                },
            )


def v1_37(tracer: trace.Tracer, provider_cache: str, session: str) -> None:
    """1.37 and later: an agent, its turn, a tool; messages as attributes."""
    common = {
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": stage.ANTHROPIC,
        "gen_ai.conversation.id": session,
        "gen_ai.agent.name": stage.AGENT,
        "gen_ai.agent.id": "clerk-1",
    }
    with tracer.start_as_current_span(f"invoke_agent {stage.AGENT}") as agent:
        agent.set_attributes({"gen_ai.operation.name": "invoke_agent", **common})
        for number in range(2):
            with tracer.start_as_current_span("chat claude-haiku-4-5", kind=SpanKind.CLIENT) as s:
                s.set_attributes(
                    {
                        "gen_ai.operation.name": "chat",
                        **common,
                        "gen_ai.response.model": "claude-haiku-4-5-20251001",
                        "gen_ai.response.id": f"msg_{session}_{number}",
                        "gen_ai.usage.input_tokens": (1500, 1600)[number],
                        "gen_ai.usage.output_tokens": (63, 40)[number],
                        "gen_ai.usage.cache_read.input_tokens": (1024, 1408)[number],
                        provider_cache: (256, 0)[number],
                        "gen_ai.input.messages": json.dumps(
                            [
                                {
                                    "role": "user",
                                    "parts": [{"type": "text", "content": stage.FIRST}],
                                }
                            ]
                        ),
                        "gen_ai.output.messages": json.dumps(
                            [
                                {
                                    "role": "assistant",
                                    "parts": [{"type": "text", "content": "It is sunny."}],
                                    "finish_reason": "stop",
                                }
                            ]
                        ),
                    }
                )
            if not number:
                with tracer.start_as_current_span("execute_tool get_weather") as s:
                    s.set_attributes(
                        {
                            "gen_ai.operation.name": "execute_tool",
                            "gen_ai.tool.name": "get_weather",
                            "gen_ai.tool.call.id": "toolu_1",
                            "gen_ai.tool.call.arguments": json.dumps({"city": "Paris"}),
                            "gen_ai.tool.call.result": stage.get_weather("Paris"),
                        }
                    )
        agent.set_attributes({"gen_ai.usage.input_tokens": 3100, "gen_ai.usage.output_tokens": 103})


def since(tracer: trace.Tracer, session: str) -> None:
    """What the conventions' own repository has words for: a plan, an evaluation of it, a retrieval."""
    with tracer.start_as_current_span("plan weather") as s:
        s.set_attributes({"gen_ai.operation.name": "plan", "gen_ai.conversation.id": session})
        s.add_event(
            "gen_ai.evaluation.result",
            {
                "gen_ai.evaluation.name": "helpful",
                "gen_ai.evaluation.score.value": 0.9,
                "gen_ai.evaluation.score.label": "pass",
            },
        )
    with tracer.start_as_current_span("retrieval handbook") as s:
        s.set_attributes(
            {
                "gen_ai.operation.name": "retrieval",
                "gen_ai.data_source.id": "handbook",
                "gen_ai.conversation.id": session,
            }
        )


v1_28(trace.get_tracer("clerk", "1.0"))
v1_37(trace.get_tracer("clerk", "1.0"), "gen_ai.usage.cache_creation.input_tokens", "session-b")
v1_37(trace.get_tracer("clerk", "1.0"), "gen_ai.usage.cache_write.input_tokens", "session-c")
since(trace.get_tracer("clerk", "1.0"), "session-c")
made.shutdown()
