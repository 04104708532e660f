"""Anthropic's client under OpenInference: calls alone, in the session that the code names."""

import anthropic
import stage
from openinference.instrumentation import using_session
from openinference.instrumentation.anthropic import AnthropicInstrumentor

made = stage.provider()
AnthropicInstrumentor().instrument(tracer_provider=made)
with using_session(stage.SESSION):
    stage.anthropic_turns(anthropic.Anthropic(base_url=stage.MODEL_URL, api_key="rehearsal"))
made.shutdown()
