"""A LangGraph agent under OpenInference: the thread is the session."""

import stage
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import MemorySaver
from langgraph.prebuilt import create_react_agent
from openinference.instrumentation.langchain import LangChainInstrumentor

made = stage.provider()
LangChainInstrumentor().instrument(tracer_provider=made)
model = ChatOpenAI(
    model=stage.OPENAI, base_url=stage.MODEL_URL + "/v1", api_key="rehearsal", stream_usage=True
)
clerk = create_react_agent(
    model,
    [tool(stage.get_weather)],
    checkpointer=MemorySaver(),
    name=stage.AGENT,
)
config = {"configurable": {"thread_id": stage.SESSION}}
clerk.invoke({"messages": [SystemMessage(stage.SYSTEM), HumanMessage(stage.FIRST)]}, config)
for _ in clerk.stream({"messages": [HumanMessage(stage.SECOND)]}, config, stream_mode="messages"):
    pass
made.shutdown()
