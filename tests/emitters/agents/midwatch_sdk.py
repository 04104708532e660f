"""Our own SDK over OpenAI's client: a cycle, a session, two turns, a tool."""

import json
import os

os.environ["MIDWATCH_URL"] = os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"]
os.environ["MIDWATCH_AGENT"] = "weather-clerk"
os.environ["MIDWATCH_RUN_ID"] = "run-1"

import openai
import stage

import midwatch as mw

mw.init(track=("openai",))
client = openai.OpenAI(base_url=stage.MODEL_URL + "/v1", api_key="rehearsal")


@mw.tool(side_effect=False)
def get_weather(city: str) -> str:
    return stage.get_weather(city)


with mw.cycle(), mw.session(stage.SESSION):
    messages = [{"role": "system", "content": stage.SYSTEM}]
    with mw.turn():
        messages.append({"role": "user", "content": stage.FIRST})
        asked = client.chat.completions.create(
            model=stage.OPENAI, messages=messages, tools=[stage.OPENAI_TOOL]
        )
        call = asked.choices[0].message.tool_calls[0]
        result = get_weather(**json.loads(call.function.arguments))
        messages += [
            asked.choices[0].message.model_dump(exclude_none=True),
            {"role": "tool", "tool_call_id": call.id, "content": result},
        ]
        said = client.chat.completions.create(
            model=stage.OPENAI, messages=messages, tools=[stage.OPENAI_TOOL]
        )
        messages.append({"role": "assistant", "content": said.choices[0].message.content})
    with mw.turn():
        messages.append({"role": "user", "content": stage.SECOND})
        for _ in client.chat.completions.create(
            model=stage.OPENAI,
            messages=messages,
            stream=True,
            stream_options={"include_usage": True},
        ):
            pass
