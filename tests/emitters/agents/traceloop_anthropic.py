"""Anthropic's client under Traceloop's instrumentation: calls alone."""

import anthropic
import stage
from opentelemetry.instrumentation.anthropic import AnthropicInstrumentor

made = stage.provider()
AnthropicInstrumentor().instrument(tracer_provider=made)
stage.anthropic_turns(anthropic.Anthropic(base_url=stage.MODEL_URL, api_key="rehearsal"))
made.shutdown()
