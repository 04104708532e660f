"""An MCP client and server over memory: the official SDK's own spans, one tool called inside a turn."""

import anyio
import mcp.client
import stage
from mcp.server.mcpserver import MCPServer
from opentelemetry import trace

made = stage.provider()
server = MCPServer("weather")
server.tool()(stage.get_weather)


async def main() -> None:
    async with mcp.client.Client(server) as client:
        with trace.get_tracer("clerk").start_as_current_span("turn") as span:
            span.set_attribute("gen_ai.operation.name", "invoke_agent")
            span.set_attribute("gen_ai.agent.name", stage.AGENT)
            span.set_attribute("gen_ai.conversation.id", stage.SESSION)
            await client.call_tool("get_weather", {"city": "Paris"})


anyio.run(main)
made.shutdown()
