"""A Pydantic AI agent under Logfire, sent elsewhere by OTLP, pending spans included."""

import asyncio
import os

import logfire
import stage
from logfire._internal.exporters.remove_pending import RemovePendingSpansExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

# as it sends to its own back-end: pending spans go only where this exporter is
sender = SimpleSpanProcessor(RemovePendingSpansExporter(OTLPSpanExporter()))
del os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"]
logfire.configure(send_to_logfire=False, console=False, additional_span_processors=[sender])
logfire.instrument_pydantic_ai()
clerk = Agent(
    OpenAIChatModel(
        stage.OPENAI,
        provider=OpenAIProvider(base_url=stage.MODEL_URL + "/v1", api_key="rehearsal"),
    ),
    name=stage.AGENT,
    instructions=stage.SYSTEM,
    tools=[stage.get_weather],
)


async def main() -> None:
    first = await clerk.run(stage.FIRST, conversation_id=stage.SESSION)
    async with clerk.run_stream(
        stage.SECOND, message_history=first.all_messages(), conversation_id=stage.SESSION
    ) as second:
        async for _ in second.stream_text():
            pass


asyncio.run(main())
logfire.shutdown()
