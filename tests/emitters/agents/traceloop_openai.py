"""OpenAI's client under Traceloop's instrumentation: calls alone."""

import openai
import stage
from opentelemetry.instrumentation.openai import OpenAIInstrumentor

made = stage.provider()
OpenAIInstrumentor().instrument(tracer_provider=made)
stage.openai_turns(openai.OpenAI(base_url=stage.MODEL_URL + "/v1", api_key="rehearsal"))
made.shutdown()
