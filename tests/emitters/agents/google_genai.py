"""Google's client; how it is instrumented is the script's argument."""

import os
import sys

how = sys.argv[1]
if how == "otel":
    os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "gen_ai_latest_experimental"
    os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = "SPAN_ONLY"

import stage  # noqa: E402  it reads the environment
from google import genai  # noqa: E402  it reads the environment
from google.genai import types  # noqa: E402  it reads the environment

made = stage.provider()
if how == "otel":
    from opentelemetry.instrumentation.google_genai import GoogleGenAiSdkInstrumentor

    # it asks for google-genai below 3, and works with 3.4
    GoogleGenAiSdkInstrumentor().instrument(tracer_provider=made, skip_dep_check=True)
else:
    from opentelemetry.instrumentation.google_generativeai import GoogleGenerativeAiInstrumentor

    GoogleGenerativeAiInstrumentor().instrument(tracer_provider=made)

client = genai.Client(api_key="rehearsal", http_options=types.HttpOptions(base_url=stage.MODEL_URL))
config = types.GenerateContentConfig(
    system_instruction=stage.SYSTEM,
    tools=[stage.get_weather],
    automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
)
said = [types.Content(role="user", parts=[types.Part(text=stage.FIRST)])]
first = client.models.generate_content(model=stage.GEMINI, contents=said, config=config)
call = first.function_calls[0]
said += [
    first.candidates[0].content,
    types.Content(
        role="user",
        parts=[
            types.Part.from_function_response(
                name=call.name, response={"result": stage.get_weather(**call.args)}
            )
        ],
    ),
]
second = client.models.generate_content(model=stage.GEMINI, contents=said, config=config)
said += [
    second.candidates[0].content,
    types.Content(role="user", parts=[types.Part(text=stage.SECOND)]),
]
plain = types.GenerateContentConfig(system_instruction=stage.SYSTEM)
for _ in client.models.generate_content_stream(model=stage.GEMINI, contents=said, config=plain):
    pass
made.shutdown()
