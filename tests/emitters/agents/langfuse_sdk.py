"""Langfuse's SDK over OpenAI's client: observations by decorator, sent to Langfuse's own route."""

import json
import os

os.environ["LANGFUSE_PUBLIC_KEY"] = "pk-lf-rehearsal"
os.environ["LANGFUSE_SECRET_KEY"] = "sk-lf-rehearsal"
os.environ["LANGFUSE_HOST"] = os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"]

import stage
from langfuse import get_client, observe, propagate_attributes
from langfuse.openai import openai

client = openai.OpenAI(base_url=stage.MODEL_URL + "/v1", api_key="rehearsal")


@observe(as_type="tool", name="get_weather")
def get_weather(city: str) -> str:
    return stage.get_weather(city)


@observe(as_type="agent", name=stage.AGENT)
def first(messages: list) -> None:
    asked = client.chat.completions.create(
        model=stage.OPENAI, messages=messages, tools=[stage.OPENAI_TOOL]
    )
    call = asked.choices[0].message.tool_calls[0]
    messages += [
        asked.choices[0].message.model_dump(exclude_none=True),
        {
            "role": "tool",
            "tool_call_id": call.id,
            "content": get_weather(**json.loads(call.function.arguments)),
        },
    ]
    said = client.chat.completions.create(
        model=stage.OPENAI, messages=messages, tools=[stage.OPENAI_TOOL]
    )
    messages.append({"role": "assistant", "content": said.choices[0].message.content})


@observe(as_type="agent", name=stage.AGENT)
def second(messages: list) -> None:
    messages.append({"role": "user", "content": stage.SECOND})
    for _ in client.chat.completions.create(
        model=stage.OPENAI,
        messages=messages,
        stream=True,
        stream_options={"include_usage": True},
    ):
        pass


conversation = [
    {"role": "system", "content": stage.SYSTEM},
    {"role": "user", "content": stage.FIRST},
]
with propagate_attributes(session_id=stage.SESSION, user_id="user-3", tags=["night"]):
    first(conversation)
    second(conversation)
get_client().flush()
get_client().shutdown()
