"""Pydantic AI agents as its documentation begins, one for each maker: nothing is said of where the models are."""

import asyncio

import saying
import stage
from pydantic_ai import Agent

MODELS = {
    "chat": f"openai-chat:{stage.OPENAI}",
    "responses": f"openai-responses:{stage.OPENAI}",
    "messages": f"anthropic:{stage.ANTHROPIC}",
    "generate": f"google:{stage.GEMINI}",
}


async def talk(interface: str) -> None:
    clerk = Agent(
        MODELS[interface], name=stage.AGENT, instructions=stage.SYSTEM, tools=[stage.get_weather]
    )
    history = None
    with saying.turn(f"{interface}, whole") as told:
        done = await clerk.run(f"{stage.FIRST} {saying.WHO} asks by {interface}.")
        told |= seen(done, done.output)
        history = done.all_messages()
    with saying.turn(f"{interface}, streamed") as told:
        thanks = f"{stage.SECOND} So says {saying.WHO} by {interface}."
        await stream(clerk, thanks, history, told)
    with saying.turn(f"{interface}, streamed with a tool") as told:
        await stream(
            clerk, f"{stage.FIRST} {saying.WHO} asks by a stream of {interface}.", None, told
        )


async def stream(clerk: Agent, asked: str, history: object, told: dict) -> None:
    async with clerk.run_stream(asked, message_history=history) as running:
        told["pieces"] = [
            piece async for piece in running.stream_text(delta=True, debounce_by=None)
        ]
        told |= seen(running, "".join(told["pieces"]))


def seen(done: object, answer: str) -> dict:
    used = done.usage
    return {
        "answer": answer,
        "parts": [part.part_kind for message in done.all_messages() for part in message.parts],
        "requests": used.requests,
        "tokens": [used.input_tokens, used.cache_read_tokens, used.output_tokens, used.tool_calls],
    }


async def main() -> None:
    for interface in MODELS:
        await talk(interface)


asyncio.run(main())
saying.over()
