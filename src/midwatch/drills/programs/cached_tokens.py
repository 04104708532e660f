"""Tells of one call in each provider's convention: what came from a cache within the input tokens, or beside them."""

import json
import os
import time
from typing import Any

from midwatch.drills.programs import spans, stage

GIVEN, CACHED, WRITTEN, MADE = 1_000, 800, 100, 50
"""What every provider bills: all tokens sent, those read from a cache and written to it, tokens received."""

FRESH = GIVEN - CACHED - WRITTEN

TOLD: dict[str, tuple[str, dict[str, Any]]] = {
    # within, as the standard has it
    "standard": ("opentelemetry.instrumentation.openai_v2", {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.usage.input_tokens": GIVEN,
        "gen_ai.usage.cache_read.input_tokens": CACHED,
        "gen_ai.usage.cache_creation.input_tokens": WRITTEN,
        "gen_ai.usage.output_tokens": MADE,
    }),
    # beside, as Anthropic's own API counts
    "beside": ("my.anthropic", {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.usage.input_tokens": FRESH,
        "gen_ai.usage.cache_read.input_tokens": CACHED,
        "gen_ai.usage.cache_creation.input_tokens": WRITTEN,
        "gen_ai.usage.output_tokens": MADE,
    }),
    # OpenInference's names
    "openinference": ("openinference.instrumentation.langchain", {
        "openinference.span.kind": "LLM",
        "llm.provider": "openai",
        "llm.token_count.prompt": GIVEN,
        "llm.token_count.prompt_details.cache_read": CACHED,
        "llm.token_count.prompt_details.cache_write": WRITTEN,
        "llm.token_count.completion": MADE,
        "llm.token_count.total": GIVEN + MADE,
    }),
}  # fmt: skip

stage.wait_until_watched()
stage.evidence()
traces: dict[str, str] = {}
for name, (scope, attributes) in TOLD.items():
    traces[name] = os.urandom(16).hex()
    model = "llm.model_name" if name == "openinference" else "gen_ai.request.model"
    more = {
        key.replace(".", "__"): value for key, value in {**attributes, model: "drill-1"}.items()
    }
    one = spans.span(traces[name], os.urandom(8).hex(), "chat drill-1", **more)
    spans.post(spans.wrapped([one], scope))
time.sleep(2)  # time for a false alarm to show
stage.note("traces", json.dumps(traces))
stage.note("finished", "yes")
stage.stay()
