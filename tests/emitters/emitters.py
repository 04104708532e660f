"""The real emitters that are recorded: which script, which packages, and whether they bring an agent."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Emitter:
    name: str
    script: str
    packages: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    older: tuple[str, ...] = ()
    """Packages that it needs older than the other emitters do."""
    own: bool = False
    """It runs in the checkout's own environment: our SDK."""


EMITTERS = (
    Emitter("otel-plain", "otel_plain.py", ("opentelemetry-sdk",)),
    Emitter(
        "otel-openai",
        "otel_openai.py",
        ("opentelemetry-instrumentation-openai-v2", "openai"),
        # it does not work with the newest opentelemetry-util-genai, and says nothing about it
        older=("opentelemetry-util-genai==0.4b0",),
    ),
    Emitter(
        "otel-google",
        "google_genai.py",
        ("opentelemetry-instrumentation-google-genai", "google-genai"),
        ("otel",),
    ),
    Emitter(
        "openinference-openai",
        "openinference_openai.py",
        ("openinference-instrumentation-openai", "openai"),
    ),
    Emitter(
        "openinference-anthropic",
        "openinference_anthropic.py",
        ("openinference-instrumentation-anthropic", "anthropic"),
    ),
    Emitter(
        "openinference-agents",
        "openai_agents.py",
        ("openinference-instrumentation-openai-agents", "openai-agents", "openai"),
        ("openinference",),
    ),
    Emitter(
        "openinference-langgraph",
        "langgraph_openinference.py",
        ("openinference-instrumentation-langchain", "langgraph", "langchain-openai"),
    ),
    Emitter(
        "logfire-agents", "openai_agents.py", ("logfire", "openai-agents", "openai"), ("logfire",)
    ),
    Emitter(
        "logfire-pydantic-ai", "pydantic_ai_logfire.py", ("logfire", "pydantic-ai-slim", "openai")
    ),
    Emitter(
        "traceloop-openai",
        "traceloop_openai.py",
        ("opentelemetry-instrumentation-openai", "openai"),
    ),
    Emitter(
        "traceloop-anthropic",
        "traceloop_anthropic.py",
        ("opentelemetry-instrumentation-anthropic", "anthropic"),
    ),
    Emitter(
        "traceloop-google",
        "google_genai.py",
        ("opentelemetry-instrumentation-google-generativeai", "google-genai"),
        ("traceloop",),
    ),
    Emitter(
        "traceloop-agents",
        "openai_agents.py",
        ("opentelemetry-instrumentation-openai-agents", "openai-agents", "openai"),
        ("traceloop",),
    ),
    Emitter("langfuse", "langfuse_sdk.py", ("langfuse", "openai")),
    Emitter("mcp", "mcp_server.py", ("mcp",)),
    Emitter("vercel", "vercel.mjs", ("ai", "@ai-sdk/openai")),
    Emitter("midwatch", "midwatch_sdk.py", ("midwatch", "openai"), own=True),
)
