"""The OpenAI Agents SDK as its documentation begins: nothing is said of where the model is."""

import asyncio

import agents
import saying
import stage


async def talk(interface: str) -> None:
    agents.set_default_openai_api(interface)
    clerk = agents.Agent(
        name=stage.AGENT,
        instructions=stage.SYSTEM,
        tools=[agents.function_tool(stage.get_weather)],
        model=stage.OPENAI,
    )
    history: list = []
    with saying.turn(f"{interface}, whole") as told:
        done = await agents.Runner.run(clerk, f"{stage.FIRST} {saying.WHO} asks by {interface}.")
        told |= seen(done)
        history = done.to_input_list()
    with saying.turn(f"{interface}, streamed") as told:
        thanks = f"{stage.SECOND} So says {saying.WHO} by {interface}."
        asked = [*history, {"role": "user", "content": thanks}]
        await stream(clerk, asked, told)
    with saying.turn(f"{interface}, streamed with a tool") as told:
        await stream(clerk, f"{stage.FIRST} {saying.WHO} asks by a stream of {interface}.", told)


async def stream(clerk: agents.Agent, asked: object, told: dict) -> None:
    running = agents.Runner.run_streamed(clerk, asked)
    told["events"] = []
    async for event in running.stream_events():
        if event.type == "raw_response_event":
            told["events"].append([event.data.type, getattr(event.data, "delta", None)])
    told |= seen(running)


def seen(done: object) -> dict:
    used = done.context_wrapper.usage
    return {
        "answer": done.final_output,
        "items": [item.type for item in done.new_items],
        "requests": used.requests,
        "tokens": [
            used.input_tokens,
            used.input_tokens_details.cached_tokens,
            used.output_tokens,
            used.output_tokens_details.reasoning_tokens,
        ],
    }


async def main() -> None:
    for interface in ("responses", "chat_completions"):
        await talk(interface)


asyncio.run(main())
saying.over()
