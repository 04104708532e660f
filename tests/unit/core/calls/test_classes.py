"""Failures are told apart by what providers really say, and a number within a text says nothing."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.calls import complaint, patience
from midwatch.core.calls.ask import Kind
from midwatch.core.calls.chain import Place
from midwatch.core.calls.classes import REACTIONS, ErrorClass, broken, classify, reaction
from midwatch.core.calls.classes import ErrorClass as C
from midwatch.core.calls.exchange import Try
from midwatch.core.calls.pool import MAX_MODELS, KeyHealth, KeyState
from midwatch.core.calls.route import Health, Route, note_failure
from midwatch.core.models import Breaker

OPENAI = "platform.openai.com/docs/guides/error-codes"
OPENAI_LIMITS = "platform.openai.com/docs/guides/rate-limits"
AZURE = "learn.microsoft.com/azure/ai-services/openai"
ANTHROPIC = "docs.anthropic.com/en/api/errors"
GEMINI = "ai.google.dev/gemini-api/docs/troubleshooting"
RPC = "google.aip.dev/193"
OPENROUTER = "openrouter.ai/docs/api-reference/errors"
GROQ = "console.groq.com/docs/errors"
MISTRAL = "docs.mistral.ai/api"
DEEPSEEK = "api-docs.deepseek.com/quick_start/error_codes"
OLLAMA = "github.com/ollama/ollama/blob/main/docs/api.md"
VLLM = "github.com/vllm-project/vllm protocol.ErrorResponse"


class Case(NamedTuple):
    """`body` is JSON when it is no bytes. `event`: it came within a stream."""

    name: str
    source: str
    kind: Kind
    status: int
    body: Any
    expected: C
    headers: tuple[tuple[str, str], ...] = ()
    pause_s: float | None = None
    event: bool = False


def openai(message: str, type_: str | None, code: Any = None, **more: Any) -> Any:
    return {"error": {"message": message, "type": type_, "param": None, "code": code, **more}}


def anthropic(type_: str, message: str) -> Any:
    return {"type": "error", "error": {"type": type_, "message": message}, "request_id": "req_1"}


def google(code: int, status: str, message: str, *details: Any) -> Any:
    error = {"code": code, "message": message, "status": status}
    return {"error": {**error, "details": list(details)} if details else error}


def reason(text: str) -> Any:
    kind = "type.googleapis.com/google.rpc.ErrorInfo"
    return {"@type": kind, "reason": text, "domain": "googleapis.com"}


def quota(identity: str) -> Any:
    kind = "type.googleapis.com/google.rpc.QuotaFailure"
    metric = "generativelanguage.googleapis.com/generate_content_free_tier_requests"
    return {"@type": kind, "violations": [{"quotaMetric": metric, "quotaId": identity}]}


def retry(delay: str) -> Any:
    return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}


OAI, ANT, GEM = Kind.OPENAI, Kind.ANTHROPIC, Kind.GEMINI
HTML = b"<!DOCTYPE html>\n<html><head><title>502 Bad Gateway</title></head><body>400 401 429</body></html>"

CASES = (
    # -- OpenAI
    Case("openai wrong key", OPENAI, OAI, 401, openai("Incorrect API key provided: sk-ab**yz.", "invalid_request_error", "invalid_api_key"), C.CREDENTIALS),
    Case("openai no member", OPENAI, OAI, 401, openai("You must be a member of an organization to use the API", "invalid_request_error", None), C.CREDENTIALS),
    Case("openai country", OPENAI, OAI, 403, openai("Country, region, or territory not supported", "request_forbidden", "unsupported_country_region_territory"), C.CREDENTIALS),
    Case("openai scopes", OPENAI, OAI, 401, openai("You have insufficient permissions for this operation. Missing scopes: api.responses.write.", "invalid_request_error", None), C.FORBIDDEN),
    Case("openai 403 without a word", OPENAI, OAI, 403, b"", C.FORBIDDEN),
    Case("openai rate", OPENAI_LIMITS, OAI, 429, openai("Rate limit reached for gpt-4o in organization org-1 on tokens per min (TPM): Limit 30000, Used 29000, Requested 2000. Please try again in 1.2s.", "tokens", "rate_limit_exceeded"), C.RATE_LIMIT, pause_s=1.2),
    Case("openai rate with headers", OPENAI_LIMITS, OAI, 429, openai("Rate limit reached", "requests", "rate_limit_exceeded"), C.RATE_LIMIT, (("x-ratelimit-remaining-requests", "0"), ("x-ratelimit-reset-requests", "6m0s"), ("x-ratelimit-remaining-tokens", "100"), ("x-ratelimit-reset-tokens", "1h")), 360.0),
    Case("openai rate in ms", OPENAI_LIMITS, OAI, 429, openai("Rate limit reached", "requests", "rate_limit_exceeded"), C.RATE_LIMIT, (("retry-after-ms", "350"), ("retry-after", "1")), 0.35),
    Case("openai daily requests", OPENAI_LIMITS, OAI, 429, openai("Rate limit reached for gpt-4o in organization org-1 on requests per day (RPD): Limit 200, Used 200, Requested 1. Please try again in 7m12s.", "requests", "rate_limit_exceeded"), C.QUOTA, pause_s=432.0),
    Case("openai never fits the limit", OPENAI_LIMITS, OAI, 429, openai("Request too large for gpt-4o in organization org-1 on tokens per min (TPM): Limit 30000, Requested 40000.", "tokens", "rate_limit_exceeded"), C.CONTEXT_LENGTH),
    Case("openai quota", OPENAI, OAI, 429, openai("You exceeded your current quota, please check your plan and billing details.", "insufficient_quota", "insufficient_quota"), C.QUOTA),
    Case("openai hard limit", OPENAI, OAI, 429, openai("Billing hard limit has been reached", "invalid_request_error", "billing_hard_limit_reached"), C.QUOTA),
    Case("openai project spend", OPENAI, OAI, 429, openai("This project reached its spend limit.", "insufficient_quota", "project_spend_limit_exceeded"), C.QUOTA),
    Case("openai server", OPENAI, OAI, 500, openai("The server had an error while processing your request. Sorry about that!", "server_error"), C.TRANSIENT),
    Case("openai overloaded", OPENAI, OAI, 503, openai("The engine is currently overloaded, please try again later", "server_error", "server_overloaded"), C.OVERLOADED),
    Case("openai slow down", OPENAI, OAI, 503, openai("Slow down", "server_error", "slow_down"), C.OVERLOADED),
    Case("openai context", "community.openai.com, chat completions", OAI, 400, openai("This model's maximum context length is 8192 tokens. However, your messages resulted in 10000 tokens.", "invalid_request_error", "context_length_exceeded"), C.CONTEXT_LENGTH),
    Case("openai policy", "platform.openai.com/docs/guides/safety-best-practices", OAI, 400, openai("Your request was rejected as a result of our safety system.", "invalid_request_error", "content_policy_violation"), C.CONTENT_POLICY),
    Case("openai flagged prompt", "platform.openai.com/docs/guides/reasoning", OAI, 400, openai("Invalid prompt: your prompt was flagged as potentially violating our usage policy.", "invalid_request_error", "invalid_prompt"), C.CONTENT_POLICY),
    Case("openai unknown parameter", OPENAI, OAI, 400, openai("Unrecognized request argument supplied: foo", "invalid_request_error", "unknown_parameter"), C.BAD_REQUEST),
    Case("openai number in the text", OPENAI, OAI, 400, openai("Invalid 'seed': 429 500 529 quota exceeded rate limit", "invalid_request_error", "invalid_value"), C.BAD_REQUEST),
    Case("openai unknown model", OPENAI, OAI, 404, openai("The model `gpt-9` does not exist or you do not have access to it.", "invalid_request_error", "model_not_found"), C.NOT_FOUND),
    Case("openai no access to model", OPENAI, OAI, 403, openai("Project `proj_1` does not have access to model `o3`", "invalid_request_error", "model_not_found"), C.NOT_FOUND),
    Case("openai lost response", "platform.openai.com/docs/api-reference/responses", OAI, 400, openai("Previous response with id 'resp_1' not found.", "invalid_request_error", "previous_response_not_found"), C.BAD_REQUEST),
    Case("openai timeout", OPENAI, OAI, 408, openai("Request timed out", "timeout"), C.TRANSIENT),
    Case("openai lock", "github.com/openai/openai-python _should_retry", OAI, 409, openai("Conflict", "conflict_error"), C.TRANSIENT),
    Case("openai too large", OPENAI, OAI, 413, openai("Request body too large", "invalid_request_error"), C.BAD_REQUEST),
    Case("openai event in chat", "openai-python _streaming.py", OAI, 200, openai("The server had an error", "server_error"), C.TRANSIENT, event=True),
    Case("openai error event of responses", "platform.openai.com/docs/api-reference/responses-streaming/error", OAI, 200, {"type": "error", "code": "rate_limit_exceeded", "message": "Rate limit reached. Please try again in 20ms.", "param": None, "sequence_number": 3}, C.RATE_LIMIT, pause_s=0.02, event=True),
    Case("openai failed response", "platform.openai.com/docs/api-reference/responses-streaming/response/failed", OAI, 200, {"type": "response.failed", "response": {"id": "resp_1", "status": "failed", "error": {"code": "server_error", "message": "The model failed to generate a response."}}}, C.TRANSIENT, event=True),
    # -- Azure
    Case("azure filter", f"{AZURE}/concepts/content-filter", OAI, 400, openai("The response was filtered due to the prompt triggering Azure OpenAI's content management policy.", None, "content_filter", status=400, innererror={"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {"filtered": True, "severity": "high"}}}), C.CONTENT_POLICY),
    Case("azure rate", f"{AZURE}/how-to/quota", OAI, 429, {"error": {"code": "429", "message": "Requests to the ChatCompletions_Create Operation have exceeded call rate limit. Please retry after 26 seconds."}}, C.RATE_LIMIT, pause_s=26.0),
    Case("azure front door", AZURE, OAI, 401, {"statusCode": 401, "message": "Unauthorized. Access token is missing, invalid, audience is incorrect, or have expired."}, C.CREDENTIALS),
    Case("azure wrong key", AZURE, OAI, 401, {"error": {"code": "401", "message": "Access denied due to invalid subscription key or wrong API endpoint."}}, C.CREDENTIALS),
    Case("azure no deployment", AZURE, OAI, 404, {"error": {"code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist."}}, C.NOT_FOUND),
    Case("azure server", AZURE, OAI, 500, {"error": {"code": "InternalServerError", "message": "Backend returned unexpected response."}}, C.TRANSIENT),
    # -- Anthropic
    Case("anthropic key", ANTHROPIC, ANT, 401, anthropic("authentication_error", "invalid x-api-key"), C.CREDENTIALS),
    Case("anthropic permission", ANTHROPIC, ANT, 403, anthropic("permission_error", "Your API key does not have permission to use the specified resource."), C.FORBIDDEN),
    Case("anthropic disabled, with its code", ANTHROPIC, ANT, 403, anthropic("permission_error", "This organization has been disabled."), C.CREDENTIALS),
    Case("anthropic disabled", ANTHROPIC, ANT, 400, anthropic("invalid_request_error", "This organization has been disabled."), C.CREDENTIALS),
    Case("anthropic rate", "docs.anthropic.com/en/api/rate-limits", ANT, 429, anthropic("rate_limit_error", "This request would exceed your organization's rate limit of 50,000 input tokens per minute."), C.RATE_LIMIT, (("retry-after", "21"), ("anthropic-ratelimit-input-tokens-remaining", "0")), 21.0),
    Case("anthropic rate by reset", "docs.anthropic.com/en/api/rate-limits", ANT, 429, anthropic("rate_limit_error", "Number of requests has exceeded your rate limit"), C.RATE_LIMIT, (("anthropic-ratelimit-requests-remaining", "0"), ("anthropic-ratelimit-requests-reset", "2026-01-01T00:00:30Z")), 30.0),
    Case("anthropic credit", "seen with api.anthropic.com", ANT, 400, anthropic("invalid_request_error", "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits."), C.QUOTA),
    Case("anthropic spend limit", "seen with api.anthropic.com", ANT, 400, anthropic("invalid_request_error", "You have reached your specified API usage limits. You will regain access on 2026-02-01 at 00:00 UTC."), C.QUOTA),
    Case("anthropic billing", ANTHROPIC, ANT, 402, anthropic("billing_error", "There is an issue with your payment information."), C.QUOTA),
    Case("anthropic overloaded", ANTHROPIC, ANT, 529, anthropic("overloaded_error", "Overloaded"), C.OVERLOADED),
    Case("anthropic overloaded in the stream", ANTHROPIC, ANT, 200, anthropic("overloaded_error", "Overloaded"), C.OVERLOADED, event=True),
    Case("anthropic server", ANTHROPIC, ANT, 500, anthropic("api_error", "Internal server error"), C.TRANSIENT),
    Case("anthropic timeout", ANTHROPIC, ANT, 504, anthropic("timeout_error", "Request timed out"), C.TRANSIENT),
    Case("anthropic long prompt", "docs.anthropic.com/en/docs/build-with-claude/context-windows", ANT, 400, anthropic("invalid_request_error", "prompt is too long: 213462 tokens > 200000 maximum"), C.CONTEXT_LENGTH),
    Case("anthropic no room", "docs.anthropic.com/en/docs/build-with-claude/context-windows", ANT, 400, anthropic("invalid_request_error", "input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000, decrease input length or `max_tokens` and try again"), C.CONTEXT_LENGTH),
    Case("anthropic filtered", ANTHROPIC, ANT, 400, anthropic("invalid_request_error", "Output blocked by content filtering policy"), C.CONTENT_POLICY),
    Case("anthropic prefill", "docs.anthropic.com/en/docs/build-with-claude/prefill", ANT, 400, anthropic("invalid_request_error", "This model does not support assistant message prefill."), C.BAD_REQUEST),
    Case("anthropic wrong order", ANTHROPIC, ANT, 400, anthropic("invalid_request_error", "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: toolu_1"), C.BAD_REQUEST),
    Case("anthropic model", ANTHROPIC, ANT, 404, anthropic("not_found_error", "model: claude-9"), C.NOT_FOUND),
    Case("anthropic too large", ANTHROPIC, ANT, 413, anthropic("request_too_large", "Request exceeds the maximum allowed number of bytes."), C.BAD_REQUEST),
    # -- Gemini
    Case("gemini wrong key", GEMINI, GEM, 400, google(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", reason("API_KEY_INVALID")), C.CREDENTIALS),
    Case("gemini wrong key without details", GEMINI, GEM, 400, google(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."), C.CREDENTIALS),
    Case("gemini leaked key", GEMINI, GEM, 403, google(403, "PERMISSION_DENIED", "Your API key was reported as leaked. Please use another API key."), C.CREDENTIALS),
    Case("gemini not enabled", RPC, GEM, 403, google(403, "PERMISSION_DENIED", "Generative Language API has not been used in project 1 before or it is disabled.", reason("SERVICE_DISABLED")), C.CREDENTIALS),
    Case("gemini somebody else's file", GEMINI, GEM, 403, google(403, "PERMISSION_DENIED", "You do not have permission to access the File x or it may not exist."), C.FORBIDDEN),
    Case("gemini refused address", RPC, GEM, 403, google(403, "PERMISSION_DENIED", "The provided API key has an IP address restriction.", reason("API_KEY_IP_ADDRESS_BLOCKED")), C.CREDENTIALS),
    Case("gemini region", GEMINI, GEM, 400, google(400, "FAILED_PRECONDITION", "User location is not supported for the API use."), C.CREDENTIALS),
    Case("gemini per minute", GEMINI, GEM, 429, google(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota, please check your plan and billing details.", quota("GenerateRequestsPerMinutePerProjectPerModel-FreeTier"), retry("34.074824224s")), C.RATE_LIMIT, pause_s=34.074824224),
    Case("gemini per day", GEMINI, GEM, 429, google(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota, please check your plan and billing details.", quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier"), retry("34s")), C.QUOTA),
    Case("gemini exhausted without details", GEMINI, GEM, 429, google(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota)."), C.RATE_LIMIT),
    Case("gemini array", "ai.google.dev/api/generate-content, REST", GEM, 429, [google(429, "RESOURCE_EXHAUSTED", "Quota exceeded", quota("GenerateContentInputTokensPerModelPerMinute-FreeTier"), retry("8s"))], C.RATE_LIMIT, pause_s=8.0),
    Case("gemini overloaded", GEMINI, GEM, 503, google(503, "UNAVAILABLE", "The model is overloaded. Please try again later."), C.OVERLOADED),
    Case("gemini overloaded in the stream", GEMINI, GEM, 200, google(503, "UNAVAILABLE", "The model is overloaded. Please try again later."), C.OVERLOADED, event=True),
    Case("gemini internal", GEMINI, GEM, 500, google(500, "INTERNAL", "An internal error has occurred. Please retry or report."), C.TRANSIENT),
    Case("gemini deadline", GEMINI, GEM, 504, google(504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete."), C.TRANSIENT),
    Case("gemini context", GEMINI, GEM, 400, google(400, "INVALID_ARGUMENT", "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."), C.CONTEXT_LENGTH),
    Case("gemini argument", GEMINI, GEM, 400, google(400, "INVALID_ARGUMENT", "Unable to submit request because it has a temperature value of 3."), C.BAD_REQUEST),
    Case("gemini model", GEMINI, GEM, 404, google(404, "NOT_FOUND", "models/gemini-9 is not found for API version v1beta, or is not supported for generateContent."), C.NOT_FOUND),
    # -- OpenRouter
    Case("openrouter credits", OPENROUTER, OAI, 402, {"error": {"code": 402, "message": "This request requires more credits, or fewer max_tokens. You requested up to 90000 tokens, but can only afford 5000."}}, C.FORBIDDEN),
    Case("openrouter no credits", OPENROUTER, OAI, 402, {"error": {"code": 402, "message": "Insufficient credits. Add more using https://openrouter.ai/settings/credits"}}, C.QUOTA),
    Case("openrouter moderation", OPENROUTER, OAI, 403, {"error": {"code": 403, "message": "openai/gpt-4o requires moderation on OpenAI. Your input was flagged for \"violence\".", "metadata": {"reasons": ["violence"], "flagged_input": "...", "provider_name": "OpenAI"}}}, C.CONTENT_POLICY),
    Case("openrouter quotes a rate limit", OPENROUTER, OAI, 429, {"error": {"message": "Provider returned error", "code": 429, "metadata": {"raw": '{"error":{"message":"Rate limit reached","type":"requests","code":"rate_limit_exceeded"}}', "provider_name": "OpenAI"}}}, C.RATE_LIMIT),
    Case("openrouter quotes a context length", OPENROUTER, OAI, 400, {"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": '{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 213462 tokens > 200000 maximum"}}', "provider_name": "Anthropic"}}}, C.CONTEXT_LENGTH),
    Case("openrouter with a good status", OPENROUTER, OAI, 200, {"error": {"message": "Upstream error", "code": 502}}, C.TRANSIENT),
    Case("openrouter in the stream", OPENROUTER, OAI, 200, {"id": "gen-1", "error": {"code": 429, "message": "Rate limit exceeded"}, "choices": [{"delta": {"content": ""}, "finish_reason": "error"}]}, C.RATE_LIMIT, event=True),
    Case("openrouter reset in ms", "openrouter.ai/docs/api-reference/limits", OAI, 429, {"error": {"message": "Rate limit exceeded: free-models-per-min.", "code": 429}}, C.RATE_LIMIT, (("x-ratelimit-limit", "20"), ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1767225660000")), 60.0),
    Case("openrouter model", OPENROUTER, OAI, 400, {"error": {"message": "foo/bar is not a valid model ID", "code": 400}}, C.NOT_FOUND),
    # -- Groq, Mistral, DeepSeek, Ollama, vLLM, llama.cpp
    Case("groq rate", GROQ, OAI, 429, openai("Rate limit reached for model `llama-3.3-70b-versatile` in organization `org_1` on tokens per minute (TPM): Limit 12000, Used 11000, Requested 2000. Please try again in 7.66s.", "tokens", "rate_limit_exceeded"), C.RATE_LIMIT, (("retry-after", "8"),), 8.0),
    Case("groq day", GROQ, OAI, 429, openai("Rate limit reached for model `x` in organization `org_1` on tokens per day (TPD): Limit 100000, Used 99999, Requested 20. Please try again in 14m23.5s.", "tokens", "rate_limit_exceeded"), C.QUOTA, pause_s=863.5),
    Case("groq too large", GROQ, OAI, 413, openai("Request too large for model `x` in organization `org_1` on tokens per minute (TPM): Limit 6000, Requested 8000, please reduce your message size and try again.", "tokens", "rate_limit_exceeded"), C.CONTEXT_LENGTH),
    Case("groq flex", GROQ, OAI, 498, openai("Flex tier capacity exceeded", "server_error", "capacity_exceeded"), C.OVERLOADED),
    Case("groq tool use", GROQ, OAI, 400, openai("Failed to call a function. Please adjust your prompt.", "invalid_request_error", "tool_use_failed", failed_generation="<x>"), C.BAD_REQUEST),
    Case("groq gone model", GROQ, OAI, 400, openai("The model `x` has been decommissioned and is no longer supported.", "invalid_request_error", "model_decommissioned"), C.NOT_FOUND),
    Case("mistral key", MISTRAL, OAI, 401, {"message": "Unauthorized", "request_id": "1"}, C.CREDENTIALS),
    Case("mistral detail", MISTRAL, OAI, 401, {"detail": "Unauthorized"}, C.CREDENTIALS),
    Case("mistral rate", MISTRAL, OAI, 429, {"object": "error", "message": "Requests rate limit exceeded", "type": "rate_limited", "param": None, "code": "1300"}, C.RATE_LIMIT),
    Case("mistral capacity", MISTRAL, OAI, 429, {"object": "error", "message": "Service tier capacity exceeded for this model.", "type": "service_tier_capacity_exceeded", "param": None, "code": "3505"}, C.OVERLOADED),
    Case("mistral validation", MISTRAL, OAI, 422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "foo"], "msg": "Extra inputs are not permitted"}]}, C.BAD_REQUEST),
    Case("mistral model", MISTRAL, OAI, 400, {"object": "error", "message": "Invalid model: x", "type": "invalid_model", "param": None, "code": "1500"}, C.NOT_FOUND),
    Case("mistral context", MISTRAL, OAI, 400, {"object": "error", "message": "Prompt contains 40000 tokens, too large for model with 32768 maximum context length", "type": "invalid_request_error", "code": "3051"}, C.CONTEXT_LENGTH),
    Case("deepseek balance", DEEPSEEK, OAI, 402, openai("Insufficient Balance", "unknown_error", "invalid_request_error"), C.QUOTA),
    Case("deepseek key", DEEPSEEK, OAI, 401, openai("Authentication Fails, Your api key: ****1234 is invalid", "authentication_error", "invalid_request_error"), C.CREDENTIALS),
    Case("deepseek model", DEEPSEEK, OAI, 400, openai("Model Not Exist", "invalid_request_error", "invalid_request_error"), C.NOT_FOUND),
    Case("deepseek overloaded", DEEPSEEK, OAI, 503, openai("Service is too busy.", "service_unavailable_error", "service_unavailable_error"), C.TRANSIENT),
    Case("ollama model", OLLAMA, OAI, 404, openai('model "llama9" not found, try pulling it first', "api_error"), C.NOT_FOUND),
    Case("ollama plain", OLLAMA, OAI, 404, {"error": "model 'llama9' not found"}, C.NOT_FOUND),
    Case("ollama busy", OLLAMA, OAI, 503, {"error": "server busy, please try again. maximum pending requests exceeded"}, C.OVERLOADED),
    Case("vllm model", VLLM, OAI, 404, {"object": "error", "message": "The model `x` does not exist.", "type": "NotFoundError", "param": None, "code": 404}, C.NOT_FOUND),
    Case("vllm context", VLLM, OAI, 400, {"object": "error", "message": "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens.", "type": "BadRequestError", "param": None, "code": 400}, C.CONTEXT_LENGTH),
    Case("llama.cpp context", "github.com/ggml-org/llama.cpp tools/server", OAI, 400, {"error": {"code": 400, "message": "the request exceeds the available context size, try increasing it", "type": "exceed_context_size_error", "n_prompt_tokens": 9000, "n_ctx": 4096}}, C.CONTEXT_LENGTH),
    Case("moonshot quota", "platform.moonshot.ai/docs/api/chat", OAI, 429, openai("Your account is suspended due to insufficient balance", "exceeded_current_quota_error"), C.QUOTA),
    # -- whatever stands between
    Case("nginx page", "nginx", OAI, 502, HTML, C.TRANSIENT),
    Case("page with a good status", "a captive portal", OAI, 200, HTML, C.TRANSIENT),
    Case("blocked page", "a firewall", ANT, 403, HTML, C.TRANSIENT),
    Case("wrong address", "nginx", OAI, 404, b"<html><title>404 Not Found</title></html>", C.NOT_FOUND),
    Case("empty", "a proxy", OAI, 504, b"", C.TRANSIENT),
    Case("redirect", "a proxy", OAI, 302, b"", C.TRANSIENT),
    Case("teapot", "nobody", OAI, 418, b"I'm a teapot", C.UNKNOWN),
    Case("half a body", "a cut", ANT, 400, b'{"type":"error","error":{"type":"overl', C.BAD_REQUEST),
    Case("an event without a word", "nobody", OAI, 200, {"error": {}}, C.UNKNOWN, event=True),
)  # fmt: skip

NOW = 1767225600.0
"""2026-01-01T00:00:00Z."""

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["error", "code", "type", "message", "details", "metadata", "raw", "response",
                             "innererror", "violations", "quotaId", "retryDelay", "status", "detail"]),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_providers_error_has_its_class(case: Any) -> None:
    body = case.body if isinstance(case.body, bytes) else json.dumps(case.body).encode()
    failure = classify(case.kind, case.status, case.headers, body, now=NOW, stream_event=case.event)
    assert failure.kind is case.expected
    assert failure.retry_after_s == (
        pytest.approx(case.pause_s) if case.pause_s is not None else None
    )
    assert failure.reason
    if not isinstance(case.body, bytes):
        decoded = classify(
            case.kind, case.status, case.headers, case.body, now=NOW, stream_event=case.event
        )
        assert decoded == failure


def test_there_are_enough_cases_and_each_names_its_source() -> None:
    assert len(CASES) >= 60
    assert all(case.source for case in CASES)
    # what is no answer is told by its body, whatever the provider says
    assert {case.expected for case in CASES} == set(ErrorClass) - {ErrorClass.UNREADABLE}


def test_every_class_has_a_reaction_and_what_is_final_leads_nowhere() -> None:
    assert set(REACTIONS) == set(ErrorClass)
    for react in REACTIONS.values():
        if react.final:
            assert not any((react.here, react.next, react.wait, react.another_key, react.counts))
        else:
            assert react.here or react.next


def test_what_is_the_requests_fault_cools_nothing_and_opens_no_breaker() -> None:
    for kind in (ErrorClass.BAD_REQUEST, ErrorClass.CONTENT_POLICY, ErrorClass.UNKNOWN):
        assert REACTIONS[kind].final
        assert not REACTIONS[kind].counts


def test_what_one_request_may_not_do_takes_no_key_from_the_others() -> None:
    """A file of somebody else, a bill of somebody else's: asked once, it must not rest a whole pool."""
    health = Health(Breaker(), pools={"p": [KeyHealth("a"), KeyHealth("b")]})
    place = Place("p", Kind.GEMINI, "gemini-2.5-flash")
    denied = classify(Kind.GEMINI, 403, (), google(403, "PERMISSION_DENIED", "No."), now=NOW)
    for name in ("a", "b"):
        assert note_failure(health, Try(place, name, 1, 9.0, 9.0, 0.0), denied, 1.0) == []
    assert [key.state for key in health.pools["p"]] == [KeyState.ACTIVE, KeyState.ACTIVE]
    wrong = google(403, "PERMISSION_DENIED", "No.", reason("API_KEY_SERVICE_BLOCKED"))
    refused = classify(Kind.GEMINI, 403, (), wrong, now=NOW)
    assert note_failure(health, Try(place, "a", 1, 9.0, 9.0, 0.0), refused, 1.0)
    assert health.pools["p"][0].state is KeyState.REFUSED


def test_a_limit_for_counting_tokens_rests_no_key_that_carries_calls() -> None:
    health = Health(Breaker(), pools={"p": [KeyHealth("a")]})
    place = Place("p", Kind.ANTHROPIC, "claude-haiku-4-5")
    limited = classify(Kind.ANTHROPIC, 429, (("retry-after", "20"),), b"{}", now=NOW)
    attempt = Try(place, "a", 1, 9.0, 9.0, 0.0)
    assert note_failure(health, attempt, limited, 1.0, metered=False) == []
    assert health.pools["p"][0].state is KeyState.ACTIVE
    assert note_failure(health, attempt, limited, 1.0) != []


@pytest.mark.parametrize(
    ("body", "one"),
    [
        (google(429, "RESOURCE_EXHAUSTED", "limit: 0", quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier")), True),
        (google(429, "RESOURCE_EXHAUSTED", "x", quota("GenerateRequestsPerMinutePerProject")), False),
        (openai("Rate limit reached for gpt-4o in organization org-1 on requests per day (RPD): Limit 200.", "requests", "rate_limit_exceeded"), True),
        (openai("Rate limit reached for model `x/y` in organization `o` on tokens per minute (TPM): Limit 1.", "tokens", "rate_limit_exceeded"), True),
        (openai("Rate limit reached", "requests", "rate_limit_exceeded"), False),
        (openai("You exceeded your current quota.", "insufficient_quota", "insufficient_quota"), False),
    ],
)  # fmt: skip
def test_a_limit_of_one_model_rests_its_key_for_that_model_alone(body: Any, one: bool) -> None:
    health = Health(Breaker(), pools={"p": [KeyHealth("a")]})
    place, other = Place("p", OAI, "dear"), Place("p", OAI, "cheap")
    failure = classify(OAI, 429, (), body, now=NOW)
    assert failure.one_model is one
    assert len(note_failure(health, Try(place, "a", 1, 9.0, 9.0, 0.0), failure, 1.0)) == 1
    assert note_failure(health, Try(place, "a", 1, 9.0, 9.0, 0.0), failure, 1.0) == []  # no news
    route = Route([place, other], health, None, lambda: 0.0, lambda _p, _f: True)
    assert route.take(place, 1.0) is None
    assert route.free_at(place, 1.0) > 1.0
    assert route.take(other, 1.0) == ("a" if one else None)
    assert (route.free_at(other, 1.0) == 1.0) is one
    assert route.take(place, 4_000.0) == "a"


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, openai("Invalid value: 'monthly spend limit'. Supported values are: 'low'.", "invalid_request_error", "invalid_value"), C.BAD_REQUEST),
        (400, openai("Invalid value: 'on tokens per day (TPD)'. Supported values are: 'low'.", "invalid_request_error", "invalid_value"), C.BAD_REQUEST),
        (400, openai("insufficient credits is not a valid model ID", None, None), C.NOT_FOUND),
        (400, openai("API key not found is not a valid model ID", None, None), C.NOT_FOUND),
        (400, google(400, "INVALID_ARGUMENT", 'Unknown name "monthly usage limit": Cannot find field.'), C.BAD_REQUEST),
        (403, openai("Your team has reached its monthly spending limit.", None, None), C.QUOTA),
    ],
)  # fmt: skip
def test_words_of_a_request_that_its_refusal_repeats_rest_no_key(status: int, body: Any, kind: C) -> None:  # fmt: skip
    assert classify(OAI, status, (), body, now=NOW).kind is kind


def test_anthropics_rates_are_each_models_own_and_its_credit_is_not() -> None:
    rate = classify(
        ANT, 429, (), anthropic("rate_limit_error", "This request would exceed"), now=NOW
    )
    spent = classify(ANT, 402, (), anthropic("billing_error", "No credit"), now=NOW)
    assert (rate.one_model, spent.one_model) == (True, False)


def test_a_key_rests_for_a_bounded_number_of_models() -> None:
    key = KeyHealth("a")
    for number in range(3 * MAX_MODELS):
        assert key.rest_for(0.0, f"m{number}", KeyState.QUOTA, None)
    assert len(key.models) == MAX_MODELS
    assert key.rests(1.0, f"m{3 * MAX_MODELS - 1}")
    assert not key.rests(1.0)


def test_a_connection_that_breaks_is_transient() -> None:
    assert reaction(broken("connection refused")).counts


def test_keys_and_line_breaks_do_not_survive_in_the_reason() -> None:
    body = json.dumps(
        {
            "error": {
                "message": "bad key sk-proj-abcdefghijklmnopqrstuvwxyz\n\x1b[31mred",
                "code": "x",
            }
        }
    )
    reason = classify(Kind.OPENAI, 401, (), body.encode(), now=NOW).reason
    assert reason == "bad key sk-proj[redacted] ?[31mred"


def test_an_endless_error_is_read_in_part() -> None:
    failure = classify(Kind.OPENAI, 400, (), b"x" * 10_000_000, now=NOW)
    assert len(failure.reason) <= complaint.MAX_MESSAGE


@given(JSON, st.integers(100, 599), st.booleans(), st.sampled_from(list(Kind)))
def test_nothing_that_json_can_say_breaks_it(
    value: Any, status: int, event: bool, kind: Kind
) -> None:
    failure = classify(kind, status, (), value, now=NOW, stream_event=event)
    assert failure.kind in ErrorClass
    assert "\n" not in failure.reason


@given(
    st.binary(max_size=200),
    st.dictionaries(
        st.sampled_from(
            [
                "retry-after",
                "retry-after-ms",
                "x-ratelimit-reset-requests",
                "anthropic-ratelimit-tokens-reset",
            ]
        ),
        st.text(max_size=40),
    ),
)
def test_no_bytes_and_no_headers_break_it(body: bytes, headers: dict[str, str]) -> None:
    failure = classify(Kind.OPENAI, 429, headers.items(), body, now=NOW)
    assert failure.retry_after_s is None or 0 <= failure.retry_after_s <= patience.MAX_S


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "Thu, 01 Jan 2026 00:01:00 GMT"}, 60.0),
        ({"retry-after": "Wed, 31 Dec 2025 23:00:00 GMT"}, 0.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "999999999"}, patience.MAX_S),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"x-ratelimit-reset-tokens": "1h2m3.5s"}, 3723.5),
        ({"x-ratelimit-reset": "1767225610"}, 10.0),
        ({"x-ratelimit-reset-requests": "12.5"}, 12.5),
        ({"x-ratelimit-reset-requests": "6m0s", "x-ratelimit-remaining-requests": "3"}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_the_pause_that_headers_ask_for(headers: dict[str, str], expected: float | None) -> None:
    assert patience.asked(headers, NOW) == (None if expected is None else pytest.approx(expected))


def test_words_are_asked_for_a_pause_last() -> None:
    assert patience.asked({}, NOW, message="Please try again in 1m0.5s.") == 60.5
    assert patience.asked({}, NOW, message="please retry in 250ms") == 0.25
    assert patience.asked({}, NOW, message="try again in a while, error 429s") is None
    assert patience.asked({"retry-after": "3"}, NOW, message="try again in 9s") == 3.0
    assert patience.asked({}, NOW, delay="8s", message="try again in 9s") == 8.0
