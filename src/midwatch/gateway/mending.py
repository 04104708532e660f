"""What follows when an answer breaks off in mid-stream and its client has a part of it.

`continue`: another attempt goes on where it stopped. The beginning is given to the model as its own; where it takes
none, and the fleet file allows that, a further request shows it what came and asks for the rest, which must begin
with the last words of that. Nothing proves such a seam, so that it is marked. `restart`: the
same is asked again, and the new answer is passed on behind the part that the client has, when it begins with
exactly that. Either way the client sees one answer: one beginning, one id, blocks numbered through, one
sentinel, and a usage that is the sum of all attempts, as it is charged. Where neither can be, the stream
ends with an error.

Pure: no I/O, no clock. `Mending` is what the client has; `graft` turns one further stream into its rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from midwatch.core.calls.ask import Ask
from midwatch.core.calls.chain import Place
from midwatch.gateway.dialects import Listener, Route, additions
from midwatch.gateway.dialects.listeners import MessagesListener, ResponsesListener
from midwatch.gateway.settings import Settings

if TYPE_CHECKING:
    from midwatch.gateway.graft import Graft

Json = dict[str, Any]

CONTINUE: Final = "continue"
RESTART: Final = "restart"

ANCHOR: Final = 80
"""Characters, at the most, with which the rest of an answer has to begin where it is asked for by a request: its
last words, in its last line where that is long enough."""

SHORT: Final = 24
"""A last line of fewer characters may stand anywhere in an answer."""


class Way(StrEnum):
    """How a place goes on with an answer."""

    AGAIN = "again"  # nothing was said yet: the same is asked once more
    RESTART = "restart"
    PREFILL = "prefill"
    REQUEST = "request"


@dataclass(slots=True)
class Mending:
    """What a client has of an answer that broke off, and how it is gone on with."""

    route: Route
    restart: bool
    text: str = ""
    pieces: int = 0
    """Tokens that the client has, at least."""
    response_id: str = ""
    created: object = None
    block: int = -1
    """Anthropic's: the newest block, and whether it is open."""
    block_open: bool = False
    sequence: int = -1
    input_tokens: int = 0
    """Charged for the attempts that broke off; their output, too."""
    output_tokens: int = 0
    place: Json = field(default_factory=dict[str, Any])
    """Of responses: the item, and the part of it, in which the text stands."""
    done: frozenset[str] = frozenset()
    """Of responses: what of that text was said to be over."""
    listener: Listener | None = None
    """Of what went out last: the error is told behind it."""

    @property
    def beginning(self) -> str:
        """The text that a model is given as its own; Anthropic takes none that ends in white space."""
        return self.text.rstrip()

    def broke(self, listener: Listener, graft: Graft | None, usage: tuple[int, int]) -> None:
        """Note what the client got of a further attempt, and what that is charged (tokens in, out). `listener`: of
        the client's dialect, to what went out."""
        self.listener = listener
        self.input_tokens += usage[0]
        self.output_tokens += usage[1]
        if graft is not None:
            self.text += graft.passed
            self.pieces += graft.pieces
            self.block, self.block_open = graft.block, graft.block_open
            self.sequence, self.done = graft.sequence, frozenset(graft.done)
            return
        self.text, self.pieces = listener.text(), listener.pieces
        self.response_id, self.created = listener.response_id, listener.created
        if isinstance(listener, MessagesListener):
            self.block, self.block_open = listener.block, listener.block_open
        if isinstance(listener, ResponsesListener):
            self.sequence, self.place = listener.sequence, listener.place
            self.done = frozenset(listener.done)

    def way(self, settings: Settings, place: Place) -> Way | None:
        """Return how a place goes on; None: it cannot. Its model is known to, or nothing has to be known of it."""
        if self.restart:
            return Way.RESTART
        if not self.beginning:
            return Way.AGAIN
        if self.route.dialect in additions.CONTINUABLE and continues(settings, place):
            return Way.PREFILL
        # a text that was said to be over has no rest
        return Way.REQUEST if requested(settings, place) and not self.done else None

    def ask(self, ask: Ask, way: Way | None) -> Ask:
        """Return the facts of the request that goes on."""
        if way not in (Way.PREFILL, Way.REQUEST):
            return ask
        tokens = ask.input_tokens + additions.tokens_of(self.beginning)
        if way is Way.REQUEST:
            tokens += additions.tokens_of(note_of(self.anchor))
        bound = None if ask.max_output is None else self._bound(ask.max_output, way)
        return replace(ask, input_tokens=tokens, max_output=bound)

    def body(self, ask: Ask, body: bytes, seller: str, way: Way | None) -> bytes:
        """Return the request that goes on. Raises BadRequest."""
        if way not in (Way.PREFILL, Way.REQUEST):
            return body
        if ask.max_output is not None:
            body = additions.with_bound(ask, body, self._bound(ask.max_output, way))
        if way is Way.REQUEST:
            return additions.with_rest_asked(ask, body, self.beginning, note_of(self.anchor))
        form = additions.form_of(ask.dialect, seller)
        return additions.with_prefill(ask, body, self.beginning, form)

    def _bound(self, bound: int, way: Way | None) -> int:
        """Return what is left of a bound: the words that are repeated do not count as the client's."""
        again = additions.tokens_of(self.anchor) if way is Way.REQUEST else 0
        return max(1, bound - self.pieces) + again

    @property
    def anchor(self) -> str:
        """The last words, with which the rest has to begin that a request asks for."""
        tail = self.beginning[-ANCHOR:]
        line = tail.rpartition("\n")[2]
        tail = tail if len(line) < SHORT else line
        if len(tail) == ANCHOR and not tail[0].isspace():  # it may begin within a word
            word = tail.split(maxsplit=1)
            tail = word[1] if len(word) > 1 and len(word[1]) >= SHORT else tail
        return tail.lstrip()

    def owed(self, way: Way | None) -> tuple[str, int]:
        """Return what the further stream says before its text is new to the client, and how many of the last
        characters of that may come otherwise: white space that was cut off the beginning."""
        if way is Way.RESTART:
            return self.text, 0
        blank = self.text[len(self.beginning) :]
        return (self.anchor + blank if way is Way.REQUEST else blank), len(blank)


def note_of(anchor: str) -> str:
    """Return what a model is told that is asked for the rest of its answer."""
    return (
        "Your answer above was cut off on its way by a fault of the network. Say the rest of it now, as one text"
        " with what is there. Begin by repeating its last words, character by character, and go on from there; put"
        " nothing before them, and say nothing about this. Its last words are:\n" + anchor
    )


def requested(settings: Settings, place: Place) -> bool:
    """Tell whether the fleet file allows that a place's model is asked for the rest of an answer by a request."""
    return settings.chains.about(place.model).continuation


def continues(settings: Settings, place: Place) -> bool:
    """Tell whether a place's model is known to go on with an answer that is begun for it: by the fleet file, or
    by a price list. Unknown is no: a model that rejects it answers with an error that hides the real one."""
    told = settings.chains.about(place.model).prefill
    if told is not None:
        return told
    seller = settings.providers[place.provider].seller
    return settings.shelf.find(place.provider, seller, place.model).prefill


def begin(
    policy: str, route: Route, listener: Listener, *, by_request: bool = False
) -> tuple[Mending | None, str]:
    """Return how an answer that broke off is gone on with; None with the reason: not at all. `listener`: of the
    client's dialect. `by_request`: one of the call's places may be asked for the rest."""
    if policy not in (RESTART, CONTINUE):
        return None, "models.on_cut says so"
    if policy == CONTINUE and route.dialect not in additions.CONTINUABLE and not by_request:
        return None, f"{route.dialect.value} cannot be continued, only restarted"
    if not listener.text_only:
        return None, "more than one text had begun"
    if isinstance(listener, ResponsesListener) and not listener.place:
        return None, "no text had begun"
    if policy == RESTART:
        return Mending(route, restart=True), ""
    if not listener.continuable:
        return None, "it has a form that must be whole"
    return Mending(route, restart=False), ""
