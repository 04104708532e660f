"""OpenAI's client under OpenTelemetry's own instrumentation, with the newest conventions."""

import os

os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "gen_ai_latest_experimental"
os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = "SPAN_ONLY"

import openai
import stage
from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor

made = stage.provider()
OpenAIInstrumentor().instrument(tracer_provider=made)
stage.openai_turns(openai.OpenAI(base_url=stage.MODEL_URL + "/v1", api_key="rehearsal"))
made.shutdown()
