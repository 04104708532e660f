"""The OpenAI Agents SDK; how it is instrumented is the script's argument."""

import asyncio
import sys
from contextlib import nullcontext

import agents
import openai
import stage

how = sys.argv[1]
session = nullcontext
if how == "openinference":
    from openinference.instrumentation import using_session
    from openinference.instrumentation.openai_agents import OpenAIAgentsInstrumentor

    def session():
        return using_session(stage.SESSION)

    made = stage.provider()
    OpenAIAgentsInstrumentor().instrument(tracer_provider=made)
elif how == "traceloop":
    from opentelemetry.instrumentation.openai_agents import OpenAIAgentsInstrumentor

    made = stage.provider()
    OpenAIAgentsInstrumentor().instrument(tracer_provider=made)
else:
    import logfire

    logfire.configure(send_to_logfire=False, console=False)
    logfire.instrument_openai_agents()
    made = None

agents.set_default_openai_client(
    openai.AsyncOpenAI(base_url=stage.MODEL_URL + "/v1", api_key="rehearsal"), use_for_tracing=False
)
clerk = agents.Agent(
    name=stage.AGENT,
    instructions=stage.SYSTEM,
    tools=[agents.function_tool(stage.get_weather)],
    model=stage.OPENAI,
)


async def main() -> None:
    with session(), agents.trace("weather", group_id=stage.SESSION):
        first = await agents.Runner.run(clerk, stage.FIRST)
        history = [*first.to_input_list(), {"role": "user", "content": stage.SECOND}]
        second = agents.Runner.run_streamed(clerk, history)
        async for _ in second.stream_events():
            pass


asyncio.run(main())
if made is not None:
    made.shutdown()
else:
    logfire.shutdown()
