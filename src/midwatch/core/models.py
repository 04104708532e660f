"""The fleet file's `models`: providers and their keys, chains, patience, prices, policy.

The docstring under a key is its entry in the published schema and in docs/reference/fleet-file.md.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema

from midwatch.core import units
from midwatch.core.calls.ask import Kind
from midwatch.core.pricing.own import FLEET, read_prices
from midwatch.core.quantities import Duration, Model, Money, Range, Ratio, Word

BASE_URLS: Final = {
    Kind.OPENAI: "https://api.openai.com/v1",
    Kind.ANTHROPIC: "https://api.anthropic.com",
    Kind.GEMINI: "https://generativelanguage.googleapis.com",
}
"""Where each kind of provider lives unless told otherwise: what its official client starts from."""

_LOCAL: Final = ("localhost", "127.0.0.1", "::1")


def _check_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        fine = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        fine = False
    if not fine:
        raise units.Unexpected("an address such as https://api.example.com/v1", value)
    if "@" in urlsplit(value).netloc:
        raise units.Unexpected(
            "an address without a key in it", "***", "keys belong under keys:, as env:NAME"
        )
    return value.rstrip("/")


def _check_from(value: str) -> str:
    scheme, colon, rest = value.partition(":")
    if not colon or scheme not in ("env", "file") or not rest.strip():
        # what stands here by mistake is the key itself: it is not repeated
        raise units.Unexpected("env:NAME or file:PATH, where the key is found", "***")
    return value


def _check_target(value: str) -> str:
    provider, slash, model = value.partition("/")
    if not slash or not provider or not model:
        raise units.Unexpected("PROVIDER/MODEL such as openai/gpt-4o-mini", value)
    return value


def _per_minute(value: object, info: ValidationInfo) -> object:
    """Read `600/min`, `10/s`, `100k/min`; plain numbers (per minute) in a snapshot."""
    if isinstance(value, str):
        match = _PER.fullmatch(value.replace(" ", ""))
        if match is None:
            raise units.Unexpected("a rate such as 600/min or 10/s", value)
        count = float(match[1]) * {"": 1, "k": 1_000, "M": 1_000_000}[match[2]]
        return round(count * {"s": 60, "min": 1, "h": 1 / 60}[match[3]], 6)
    if isinstance(value, int | float) and not isinstance(value, bool) and info.context is None:
        return value
    raise units.Unexpected("a rate such as 600/min or 10/s", value)


_PER: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(|k|M)/(s|min|h)")

_LOOK_UP: Final = r"^/[^{}\s]*\{(call|response)\}[^{}\s]*$"

Url = Annotated[str, AfterValidator(_check_url)]
Target = Annotated[str, AfterValidator(_check_target)]
PerMinute = Annotated[
    float,
    BeforeValidator(_per_minute),
    Field(gt=0),
    WithJsonSchema({"type": "string", "title": "a rate", "examples": ["600/min", "10/s"]}),
]
Pattern = Annotated[str, Field(min_length=1, max_length=200)]
Header = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")]


class Timeouts(Model):
    """How long each phase of a call may take. What is left out comes from the next wider place: model,
    provider, `models.timeouts`."""

    connect: Duration | None = None
    """Until the connection stands."""
    first_token: Duration | None = None
    """From the request to the first piece of a streamed answer."""
    between: Duration | None = None
    """Between two pieces of a stream."""
    total: Duration | None = None
    """Each attempt. The call with all its attempts has the longest `total` of its places. An answer that is not
    streamed must begin within half of what is left of that, while a further place of its chain is there."""

    def over(self, wider: Timeouts) -> Timeouts:
        """Return these with what they leave out taken from `wider`."""
        return wider.model_copy(update=self.model_dump(exclude_none=True))


DEFAULT_TIMEOUTS: Final = Timeouts(connect=5.0, first_token=60.0, between=60.0, total=600.0)


class ProviderKey(Model):
    """One key of a provider, by reference: the key itself stays in the environment or in a file."""

    model_config = ConfigDict(serialize_by_alias=True)

    name: str = Field(default="main", pattern=r"^[A-Za-z0-9._-]{1,63}$")
    """How the key is called where it is shown."""
    source: Annotated[str, AfterValidator(_check_from)] = Field(alias="from")
    """`env:NAME`, of the environment that `midwatch up` is started in, or `file:PATH`."""
    weight: Annotated[int, Field(ge=0, le=1000)] = 1
    """Its share of the calls among the keys of this provider. 0: only when no other is left."""
    reserve: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    """A task, such as monitoring: the key serves calls with this `x-midwatch-task` alone, and they use it
    first."""
    budget: Money | None = None
    """What the key may spend in a month, as its provider bills it: told two hours before all keys of the pool will
    have spent theirs, at the pace of the last hour. It refuses nothing; budgets do."""


class Provider(Model):
    """Who serves models."""

    kind: Annotated[Kind, WithJsonSchema({"enum": [kind.value for kind in Kind]})] = Kind.OPENAI
    """Whose dialect it speaks. Most providers speak `openai`."""
    base_url: Url | None = None
    """Its address; the official one of its kind when left out."""
    keys: list[ProviderKey] = []
    """Tried by weight; one whose quota is used up or which is refused rests. Without any, none is sent."""
    headers: dict[Header, Word] = {}
    """Sent with each request, such as an organisation's id. No keys here: they would be shown."""
    models: list[Pattern] = []
    """Names of models that it serves, with * and ?, so that calls find it without a chain."""
    timeouts: Timeouts = Timeouts()
    """See models.timeouts."""
    price_of: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    """The provider whose price list holds here, such as azure or groq; its own name when left out."""
    free: bool = False
    """True: its calls cost nothing, as on a machine of your own."""
    reconcile: Annotated[str, Field(pattern=_LOOK_UP, max_length=500)] | None = None
    """Path below base_url where it tells what one call came to, such as /generation?id={response}: calls that a
    crash left open, or that had to be estimated, are looked up there. {response} is the id of its answer; {call} the
    gateway's own, which is sent along as x-midwatch-call then. Known of OpenRouter."""

    @field_validator("keys")
    @classmethod
    def _apart(cls, keys: list[ProviderKey]) -> list[ProviderKey]:
        names = [key.name for key in keys]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise units.Unexpected("keys with different names", twice)
        return keys

    @property
    def url(self) -> str:
        return self.base_url or BASE_URLS[self.kind]

    @property
    def local(self) -> bool:
        """Whether it runs on this machine."""
        return urlsplit(self.url).hostname in _LOCAL


class Link(Model):
    """One place of a chain."""

    use: Target
    """PROVIDER/MODEL."""
    when: str = "true"
    """A condition (CEL): this place is tried only where it holds. Names: agent, group, model, task, tags,
    stream, tools, images, input_tokens, error (why the place before failed, "" at first)."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: object) -> object:
        return {"use": value} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        shape = handler.resolve_ref_schema(
            super().__get_pydantic_json_schema__(core_schema, handler)
        )
        shape["type"] = ["object", "string"]
        return shape


Chain = Annotated[list[Link], Field(min_length=1, max_length=20)]


class Retries(Model):
    """Trying again at the same place before the next one of the chain."""

    attempts: Annotated[int, Field(ge=0, le=10)] = 2
    """Further attempts after the first, at each place."""
    backoff: Range = (0.5, 8.0)
    """The pause grows from the first value to the second, at random below it; a Retry-After of the provider
    is kept when it is longer."""
    total: Duration = 60.0
    """After so long, from the beginning of the call, no place is asked again, and none waited for. To go on to the
    next place, and to go on with a stream that broke off, is bounded by timeouts.total alone."""


class Breaker(Model):
    """When a place counts as down: it is passed over, and asked again with one call at a time. The same holds for a key
    of a pool that fails while others of it are answered."""

    failures: Annotated[int, Field(ge=1)] = 5
    """So many failures of the provider within `window` open it. What is the request's fault never counts."""
    window: Duration = 60.0
    """See failures."""
    cooldown: Range = (15.0, 300.0)
    """How long it stays open; twice as long each time that the probe fails, up to the second value."""


class About(Model):
    """What is known of a model and stands in no price list."""

    context: Annotated[int, Field(ge=1)] | None = None
    """Tokens that fit into its window."""
    max_output: Annotated[int, Field(ge=1)] | None = None
    """Tokens of its longest answer: what a call without a bound of its own is reserved for."""
    prefill: bool | None = None
    """Whether it continues an answer that is begun for it: needed to continue a stream that was cut. When left
    out, a price list may know it; unknown is no."""
    continuation: bool = False
    """True: where it takes no `prefill`, an answer that was cut is gone on with by a further request, which shows
    the model what came and asks for the rest. The rest must begin by repeating the last words, or the stream ends
    with an error. Even so nothing proves that both parts fit: such an answer is marked (`seam: unproven`)."""
    rank: Annotated[int, Field(ge=0, le=100)] | None = None
    """How able it is, from 0 to 100, for `min_rank` and to tell a weaker fallback from an equal one."""
    tags: list[Pattern] = []
    """Words for conditions and for `require`: vision, reasoning, eu."""
    timeouts: Timeouts = Timeouts()
    """See models.timeouts."""


class PolicyRule(Model):
    """Which model may do which work. The first rule whose condition holds and that decides wins. The model that a rule
    moves a call to is judged by all rules, too."""

    name: str | None = None
    """How it is called where it is told; its place in the list when left out."""
    when: str = "true"
    """A condition (CEL). Names: agent, group, model, provider, task, tags, prompt, stream, tools, images,
    input_tokens, max_output, price (dollars of the dearest outcome), fallback, unbounded (names of the
    provider's own tools that the request sets no bound to)."""
    allow: list[Pattern] | None = None
    """Only these models, with * and ?."""
    deny: str | None = None
    """The call is refused, with this reason."""
    force: Target | None = None
    """The call goes to this model, whatever was asked for."""
    max_price: Money | None = None
    """What one call may cost at the most."""
    require: list[Pattern] = []
    """Tags that the model must have (models.about)."""
    min_rank: Annotated[int, Field(ge=0, le=100)] | None = None
    """How able the model must be: keeps a fallback from becoming a silent downgrade."""
    shadow: bool = False
    """True: what it would do is recorded and told, and nothing is done."""

    @model_validator(mode="after")
    def _does_something(self) -> PolicyRule:
        does = ("allow", "deny", "force", "max_price", "min_rank")
        if all(getattr(self, name) is None for name in does) and not self.require:
            raise units.Unexpected(f"one of {', '.join(does)} and require in a rule", None)
        return self


class CallLimits(Model):
    """What one agent, its sub-agents with it, may ask of the gateway. Above it calls are refused with Retry-After;
    one for which there will be room within two seconds waits. Each process of the gateway counts what goes through
    it: an agent that asks several has these limits at each. Budgets hold for all of them together."""

    requests: PerMinute | None = None
    """Calls, as 600/min or 10/s."""
    tokens: PerMinute | None = None
    """Tokens in and out, as 100k/min."""
    concurrent: Annotated[int, Field(ge=1)] | None = 1_024
    """Calls at one time. The default keeps an agent that has gone wild from taking every connection."""
    body: Annotated[int, Field(ge=1024)] = 64 * 1024 * 1024
    """Bytes of one request."""


class Models(Model):
    """Providers, chains and prices for the gateway. Without any, the providers whose keys stand in the
    environment under their usual names are used."""

    providers: dict[str, Provider] = {}
    """By name."""
    chains: dict[str, Chain] = {}
    """By the model that is asked for, or `task:NAME`: places that are tried in order. A model without a chain
    goes to the provider that serves it."""
    timeouts: Timeouts = Timeouts()
    """How long each phase of a call may take: 5s to connect, 60s to the first token and between two,
    10m in all when left out."""
    retries: Retries = Retries()
    breaker: Breaker = Breaker()
    on_cut: Literal["continue", "restart", "error"] = "continue"
    """What follows when an answer breaks off in mid-stream: `continue` lets a model that is able to (about.prefill,
    about.continuation) go on where it stopped, and ends with an error where none is; `restart` asks again, and goes on when the new
    answer begins alike; `error` ends the stream with an error, in the client's dialect. None of them passes a
    part on as the whole."""
    prices: dict[str, dict[str, Any]] = {}
    """Your own prices by model, as {input: $0.20/M, cached_input: $0.02/M, output: $0.80/M}; they win. More keys:
    cache_write, cache_write_1h, cache_write_12h, reasoning, input_audio, output_audio, input_image, output_image,
    request, web_search; batch, flex, priority and fast as a share (50%) or prices; above: {200k: prices};
    {like: OTHER-MODEL} alone."""
    unknown_price: Literal["refuse", "worst", "cap"] = "refuse"
    """What a model without a known price means for agents with a budget: `refuse` the call, reckon with the
    `worst` price of its provider, or let it have `unknown_cap` tokens a day at most."""
    unknown_cap: Annotated[int, Field(ge=1)] = 1_000_000
    """See unknown_price."""
    about: dict[str, About] = {}
    """What is known of models, by name."""
    policy: list[PolicyRule] = []
    """Rules, in order, also asked at each fallback."""
    limits: CallLimits = CallLimits()
    """Of each agent."""

    @field_validator("prices")
    @classmethod
    def _priced(cls, prices: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        read_prices(prices, FLEET)
        return prices

    @field_validator("providers")
    @classmethod
    def _names(cls, providers: dict[str, Provider]) -> dict[str, Provider]:
        for name in providers:
            if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", name) is None:
                raise units.Unexpected("a name of letters, digits, dots and dashes", name)
        return providers

    @model_validator(mode="after")
    def _targets_exist(self) -> Models:
        if not self.providers:
            return self
        targets = [link.use for chain in self.chains.values() for link in chain]
        targets += [rule.force for rule in self.policy if rule.force is not None]
        for target in targets:
            if target.partition("/")[0] not in self.providers:
                known = ", ".join(self.providers)
                raise units.Unexpected(f"PROVIDER/MODEL with one of {known}", target)
        return self


class Calls(Model):
    """How the gateway treats the calls of one agent."""

    limits: CallLimits | None = None
    """Instead of models.limits."""
    record: bool = False
    """True: requests and answers are kept on this machine, with keys and the like taken out."""
    record_for: Duration = 14 * 86_400.0
    """How long they are kept."""
    cache: Duration | None = None
    """An answer to exactly the same request is given again for so long, without asking and free of charge,
    whatever its temperature. A request with `cache-control: no-cache` is answered anew."""
    prompt_cache: bool = False
    """True: what stays the same at the beginning of prompts is marked for the provider's cache."""
    nudge: bool = False
    """True: an agent that begins to repeat itself, or whose calls grow out of the usual, is told so once, by a note
    in its next prompt, before calls are refused."""
    rate: Annotated[Ratio, Field(gt=1)] = 10.0
    """Tokens, and dollars, of one `window` as a multiple of the usual, from which on `loop.action` is taken."""
    window: Annotated[Duration, Field(ge=1)] = 60.0
    """See rate."""
    growth: Annotated[Ratio, Field(gt=1)] = 10.0
    """Tokens that a call sends more than the one before of its conversation, as a multiple of what the agent's calls
    usually add, and at least `loop.floor_tokens`: three such calls in a row are told, five are a loop. That
    conversations grow by their turns is usual, however long they are."""
    same_request: Annotated[int, Field(ge=2, le=10_000)] = 12
    """The same request so many times within ten minutes counts as a loop, unless it is less than a third of what is
    asked meanwhile: a round of many is no loop. All sub-agents of an agent together may make it four times as often."""
    tasks: list[Pattern] | None = None
    """Tasks (`x-midwatch-task`) that the agent may name, with * and ?; any when left out. Say it where a rule, a chain
    or a key's `reserve` goes by the task: what an agent says of itself is its own word."""
    tags: dict[str, list[Pattern]] | None = None
    """Tags (`x-midwatch-tags`) that the agent may give, and patterns of their values: {customer: [acme]}; any when left
    out. Say it where a budget or a rule goes by a tag: else an agent may spend from another one's."""
    polling: bool = False
    """True: a call with the tag `poll` (`x-midwatch-tags: poll`) waits for something, and may be made again with the
    same result as often as once a second. Without this, what an agent says of itself counts for nothing here."""
