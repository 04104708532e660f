"""An MCP client that calls a tool of a server in a process of its own: the official SDK's own spans."""

import os
import sys

import anyio
import mcp.client
import mcp.client.stdio
import stage
from mcp.server.mcpserver import MCPServer
from opentelemetry import trace

made = stage.provider()


async def main() -> None:
    server = mcp.client.stdio.StdioServerParameters(
        command=sys.executable, args=[__file__, "serve"], env=dict(os.environ)
    )
    transport = mcp.client.stdio.stdio_client(server)
    async with mcp.client.Client(transport) as client:
        with trace.get_tracer("clerk").start_as_current_span("turn") as span:
            span.set_attribute("gen_ai.operation.name", "invoke_agent")
            span.set_attribute("gen_ai.agent.name", stage.AGENT)
            span.set_attribute("gen_ai.conversation.id", stage.SESSION)
            await client.call_tool("get_weather", {"city": "Paris"})


if sys.argv[1:] == ["serve"]:
    weather = MCPServer("weather")
    weather.tool()(stage.get_weather)
    weather.run()
else:
    anyio.run(main)
made.shutdown()
