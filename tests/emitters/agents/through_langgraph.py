"""A LangGraph agent as its documentation begins: nothing is said of where the model is."""

import warnings

import saying
import stage
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import MemorySaver
from langgraph.prebuilt import create_react_agent

# it is to move to another package, and says so each time
warnings.filterwarnings("ignore", message="create_react_agent")


def talk(interface: str) -> None:
    model = ChatOpenAI(model=stage.OPENAI, use_responses_api=interface == "responses")
    clerk = create_react_agent(
        model, [tool(stage.get_weather)], checkpointer=MemorySaver(), name=stage.AGENT
    )
    with saying.turn(f"{interface}, whole") as told:
        first = f"{stage.FIRST} {saying.WHO} asks by {interface}."
        asked = [SystemMessage(stage.SYSTEM), HumanMessage(first)]
        done = clerk.invoke({"messages": asked}, thread("one"))
        told["messages"] = [seen(message) for message in done["messages"]]
    with saying.turn(f"{interface}, streamed") as told:
        thanks = f"{stage.SECOND} So says {saying.WHO} by {interface}."
        stream(clerk, [HumanMessage(thanks)], "one", told)
    with saying.turn(f"{interface}, streamed with a tool") as told:
        asked = f"{stage.FIRST} {saying.WHO} asks by a stream of {interface}."
        stream(clerk, [SystemMessage(stage.SYSTEM), HumanMessage(asked)], "two", told)


def thread(name: str) -> dict:
    return {"configurable": {"thread_id": name}}


def stream(clerk: object, asked: list, name: str, told: dict) -> None:
    told["chunks"] = []
    for chunk, _ in clerk.stream({"messages": asked}, thread(name), stream_mode="messages"):
        told["chunks"].append(seen(chunk))


def seen(message: object) -> list:
    used = getattr(message, "usage_metadata", None)
    calls = [(call["name"], call["args"]) for call in getattr(message, "tool_calls", [])]
    return [message.type, message.text, calls, used]


for interface in ("chat", "responses"):
    talk(interface)
saying.over()
