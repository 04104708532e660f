"""What every agent of this folder shares: where it talks to, what it says, and plain OpenTelemetry."""

from __future__ import annotations

import os

MODEL_URL = os.environ.get("REHEARSAL_URL", "http://127.0.0.1:8790")
SESSION = "conversation-7"
AGENT = "weather-clerk"
SYSTEM = "You are a weather clerk. Ask the tool before you answer."
FIRST = "What is the weather in Paris?"
SECOND = "Thank you very much."
OPENAI = "gpt-4o-mini"
ANTHROPIC = "claude-haiku-4-5"
GEMINI = "gemini-2.5-flash"

OPENAI_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city, now.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
ANTHROPIC_TOOL = {
    "name": "get_weather",
    "description": "The weather in a city, now.",
    "input_schema": OPENAI_TOOL["function"]["parameters"],
}


def get_weather(city: str) -> str:
    """The weather in a city, now."""
    return f"21 degrees, sunny ({city})"


def provider():
    """Return a tracer provider that sends by OTLP, as its documentation sets it up."""
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    made = TracerProvider()
    made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(made)
    return made


def openai_turns(client, between=None) -> None:
    """Hold the conversation by chat completions: turn 1 whole, with a tool; turn 2 streamed."""
    import json

    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": FIRST}]
    first = client.chat.completions.create(model=OPENAI, messages=messages, tools=[OPENAI_TOOL])
    asked = first.choices[0].message
    call = asked.tool_calls[0]
    if between is None:
        result = get_weather(**json.loads(call.function.arguments))
    else:
        result = between(call.id, json.loads(call.function.arguments))
    messages += [
        {
            "role": "assistant",
            "tool_calls": [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.function.name, "arguments": call.function.arguments},
                }
            ],
        },
        {"role": "tool", "tool_call_id": call.id, "content": result},
    ]
    second = client.chat.completions.create(model=OPENAI, messages=messages, tools=[OPENAI_TOOL])
    messages += [
        {"role": "assistant", "content": second.choices[0].message.content},
        {"role": "user", "content": SECOND},
    ]
    for _ in client.chat.completions.create(
        model=OPENAI,
        messages=messages,
        stream=True,
        stream_options={"include_usage": True},
    ):
        pass


def anthropic_turns(client) -> None:
    """Hold the conversation by Anthropic's messages: turn 1 whole, with a tool; turn 2 streamed."""
    base = {"model": ANTHROPIC, "max_tokens": 300, "system": SYSTEM}
    messages = [{"role": "user", "content": FIRST}]
    first = client.messages.create(messages=messages, tools=[ANTHROPIC_TOOL], **base)
    call = next(block for block in first.content if block.type == "tool_use")
    messages += [
        {
            "role": "assistant",
            "content": [
                {"type": "tool_use", "id": call.id, "name": call.name, "input": call.input}
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": call.id,
                    "content": get_weather(**call.input),
                }
            ],
        },
    ]
    second = client.messages.create(messages=messages, tools=[ANTHROPIC_TOOL], **base)
    messages += [
        {"role": "assistant", "content": second.content[-1].text},
        {"role": "user", "content": SECOND},
    ]
    for _ in client.messages.create(messages=messages, stream=True, **base):
        pass
