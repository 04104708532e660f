"""Growth of what is sent: conversations to which each call adds many times what calls usually add.

Every conversation grows by its turns, and a long one is no fault. So it is not judged how much is sent, but how much
more than with the call before of the same conversation, against what the calls of this agent usually add. `ratio`
times that, and no less than `floor`, is out of the usual. A page that somebody puts in is that, too: only a row of
such calls is told, and a longer one stopped. A call that adds as usual, or nothing, or begins shorter, ends the row.

What is out of the usual is not learned, so that a runaway never becomes usual. Before enough is known nothing is
judged; a sub-agent that is new is compared with all of its tree, and only told of: it may be the one that reads
where the others talk. Calls whose input is not all in the request
(previous_response_id) say nothing.

A conversation is known by its session and by its first words, which stay while it grows; two that begin alike are
taken for one, and then what they usually add is the distance between them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from midwatch.core.baseline import Baseline
from midwatch.core.calls.ask import Ask, Dialect
from midwatch.core.calls.judgement import FINE, Judgement, Level

KIND: Final = "prompt-growth"

WARN_ROW: Final = 3
LOOP_ROW: Final = 5
"""Calls in a row, each of which adds that much: told, and stopped."""

ENOUGH: Final = 30
"""Calls of which it is known what they add, before any is judged: the first turns of a new agent are often small."""

TALKS: Final = 64
"""Conversations of one agent that are known; the one that was gone on with least recently goes first."""


@dataclass(slots=True)
class _Talk:
    tokens: int
    """What its newest call sent that was answered."""
    row: int = 0
    """Newest calls that added too much."""
    began: int = 0
    """What was sent before these."""


@dataclass(slots=True)
class Growth:
    """What is remembered of one agent's conversations."""

    usual: Baseline = field(default_factory=Baseline)
    """Tokens that a call adds."""
    _talks: dict[tuple[str, int], _Talk] = field(default_factory=dict[tuple[str, int], _Talk])

    def judge(self, ask: Ask, ratio: float, floor: int, tree: Growth | None = None) -> Judgement:
        """Judge a call before it is made, and keep nothing of it. `tree`: of the agent and all of its sub-agents."""
        talk = self._talks.get(_name(ask))
        if talk is None or not _says(ask):
            return FINE
        added, usual = ask.input_tokens - talk.tokens, self._usual(tree)
        if usual is None or added < floor or added < ratio * usual or talk.row + 1 < WARN_ROW:
            return FINE
        row = talk.row + 1
        each = (ask.input_tokens - (talk.began if talk.row else talk.tokens)) / row
        said = (
            f"each of its last {row} calls sent about {each:,.0f} tokens more than the one before, usual {usual:,.0f};"
            f" {ask.input_tokens:,} now"
        )
        evidence = {
            "count": row, "tokens": ask.input_tokens, "added": round(each), "usual": round(usual, 1),
            "threshold": round(max(ratio * usual, floor)),
        }  # fmt: skip
        stopped = row >= LOOP_ROW and len(self.usual) >= ENOUGH
        return Judgement(Level.LOOP if stopped else Level.WARN, KIND, said, evidence)

    def answered(self, ask: Ask, ratio: float, floor: int, tree: Growth | None = None) -> None:
        """Take a call that was answered."""
        if not _says(ask):
            return
        name = _name(ask)
        talk = self._talks.pop(name, None)
        if talk is None:
            if len(self._talks) >= TALKS:
                del self._talks[next(iter(self._talks))]
            self._talks[name] = _Talk(ask.input_tokens)
            return
        self._talks[name] = talk
        added, usual = ask.input_tokens - talk.tokens, self._usual(tree)
        if usual is not None and added >= floor and added >= ratio * usual:
            if not talk.row:
                talk.began = talk.tokens
            talk.row += 1
        else:
            talk.row = 0
            if added >= 0:
                self.learn(added)
                if tree is not None:
                    tree.learn(added)
        talk.tokens = ask.input_tokens

    def learn(self, added: int) -> None:
        """Let what a call added become usual. Nothing is told from no call: it counts as one token."""
        self.usual.add(max(1, added))

    def forgive(self) -> None:
        """Begin to count anew; what is usual stays known."""
        self._talks.clear()

    def _usual(self, tree: Growth | None) -> float | None:
        if len(self.usual) >= ENOUGH:
            return self.usual.usual
        return tree.usual.usual if tree is not None and len(tree.usual) >= ENOUGH else None


def _name(ask: Ask) -> tuple[str, int]:
    return ask.session or "", ask.opening


def _says(ask: Ask) -> bool:
    return ask.dialect is not Dialect.EMBEDDINGS and not ask.unseen
