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
def clerk() -> None:
    with propagate_attributes(session_id=stage.SESSION, user_id="user-3", tags=["night"]):
        stage.openai_turns(client, lambda _, given: get_weather(given["city"]))


clerk()
get_client().flush()
get_client().shutdown()
