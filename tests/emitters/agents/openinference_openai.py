"""OpenAI's client under OpenInference: calls alone, in the session that the code names."""

import openai
import stage
from openinference.instrumentation import using_session
from openinference.instrumentation.openai import OpenAIInstrumentor

made = stage.provider()
OpenAIInstrumentor().instrument(tracer_provider=made)
with using_session(stage.SESSION):
    stage.openai_turns(openai.OpenAI(base_url=stage.MODEL_URL + "/v1", api_key="rehearsal"))
made.shutdown()
