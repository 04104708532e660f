"""What the model answers: the text, its tool calls, its reasoning, and what all of it counts.

A question whose answer was begun, by a prefill or by a broken-off answer that the client asks to go on
with, gets the rest of the answer that it would have had.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Final

from midwatch.drills.rehearsal import builtin, script, tokens
from midwatch.drills.rehearsal.behave import Behaviour, Mode
from midwatch.drills.rehearsal.question import BadQuestion, Call, Question
from midwatch.drills.rehearsal.rendering import Rendering, end_text

_GO_ON: Final = re.compile(
    r"\b(continue|go on|resume|carry on)\b.*\b(where|left off|stopped|interrupted|cut off)\b",
    re.I | re.S,
)
_AGAIN: Final = re.compile(r"\brepeating its last words\b.*\blast words are:\n(.+)\Z", re.I | re.S)
"""Who is asked so begins with these words, as Midwatch's gateway wants it (`models.about.NAME.continuation`)."""
MAX_GO_ON: Final = 2_000
"""Characters of a message that may ask to go on; a longer one asks something else."""
_THOUGHTS: Final = "First I look at what was asked, then at what I know of it, and then I answer."


class Composer:
    """Scripts and the prompt cache: all that an answer depends on beside its question."""

    def __init__(self, playing: script.Script, seed: int) -> None:
        self.seed = seed
        self._players = [script.Player(playing), script.Player(script.load(script.SAMPLE))]
        self._cache = tokens.PromptCache()

    def answer(self, question: Question, order: Behaviour | None, task: str) -> script.Answer:
        """Return what is said: by a script, by the sample fleet's, or by the model itself."""
        if order is not None and order.mode is Mode.LOOP:
            return builtin.loop(question, self.seed, same=order.same)
        for player in self._players:
            answer = player.answer(question, task)
            if answer is not None:
                return answer
            if player.script.otherwise == "error":
                raise BadQuestion(
                    f"no rule of the script matches: turn {question.turn}, user {question.user[:80]!r}"
                )
        return builtin.answer(question, self.seed)

    def render(
        self,
        question: Question,
        answer: script.Answer,
        order: Behaviour | None,
        beginning: str,
        owner: str,
        now: float,
    ) -> Rendering:
        """Return the answer, bounded and counted. `owner` is whose prompt cache it is; no token yet."""
        said, calls = answer.text, answer.calls
        if order is not None and order.words is not None:
            said, calls = " ".join(f"word{n}" for n in range(1, order.words + 1)), ()
        if beginning and said.startswith(beginning):
            said = said[len(beginning) :]
        thinks, limit = question.thinks, question.max_tokens
        if (
            limit is not None and thinks >= limit
        ):  # all it may say is used up before it says anything
            said, calls, thinks, limit = "", (), limit, None
        left = None if limit is None else limit - thinks
        text, stop, long = end_text(said, question.stops, left)
        long = long or (question.max_tokens is not None and thinks == question.max_tokens)
        calls = () if long else calls
        broken = order is not None and order.mode is Mode.ARGUMENTS
        if broken:
            calls = tuple(Call(c.tool, c.arguments()[:-1] + ', "oops": ') for c in calls)
        filtered = order is not None and order.mode is Mode.REFUSAL
        if filtered:
            text, calls = text[: len(text) // 2], ()
        usage = self._usage(question, text, calls, thinks, answer.counts, owner, now)
        ends = "length" if long else "calls" if calls else "stop" if stop is not None else "end"
        odd_usage = order is not None and order.usage == "none"
        return Rendering(
            token="",
            created=int(now),
            model=order.served if order is not None and order.served else question.model,
            text=text,
            calls=calls,
            finish="filter" if filtered else ends,
            stop=stop,
            usage=usage,
            include_usage=question.include_usage and not odd_usage,
            question=question,
            thoughts=_THOUGHTS if thinks and question.shows_thoughts else "",
            tier=order.tier if order is not None and order.tier else question.tier,
            malformed=broken,
        )

    def _usage(
        self,
        question: Question,
        text: str,
        calls: tuple[Call, ...],
        thinks: int,
        counts: script.Counts | None,
        owner: str,
        now: float,
    ) -> tokens.Usage:
        usage = self._cache.look(
            owner,
            question.blocks(),
            explicit=question.explicit_cache,
            now=now,
            step=1 if question.api == "generate" else tokens.OPENAI_STEP_TOKENS,
        )
        said = tokens.count(text) + sum(tokens.count(c.tool + c.arguments()) + 4 for c in calls)
        usage = dataclasses.replace(usage, output=max(said + thinks, 1), reasoning=thinks)
        return _insist(usage, counts)


def begin(question: Question) -> tuple[Question, str]:
    """Return the question without what its answer began with, and that beginning.

    A client may begin the answer itself, or ask to go on with an answer that broke off.
    """
    turns = question.turns
    if question.prefill is not None:
        return dataclasses.replace(question, prefill=None), question.prefill
    if len(turns) > 2 and turns[-1].role == "user" and turns[-2].role == "assistant":
        asks = turns[-1].text
        again = _AGAIN.search(asks[:MAX_GO_ON])
        if again is not None and turns[-2].text.endswith(again[1]):
            begun = dataclasses.replace(question, turns=turns[:-2])
            return begun, turns[-2].text.removesuffix(again[1])
        if turns[-2].text and len(asks) <= MAX_GO_ON and _GO_ON.search(asks):
            return dataclasses.replace(question, turns=turns[:-2]), turns[-2].text
    return question, ""


def _insist(usage: tokens.Usage, counts: script.Counts | None) -> tokens.Usage:
    """Return the usage with what a rule insists on, and no part larger than its whole."""
    if counts is None:
        return usage
    given: dict[str, Any] = {
        name: value for name, value in counts.model_dump().items() if value is not None
    }
    usage = dataclasses.replace(usage, **given)
    cached = min(usage.cached, usage.input)
    written = min(usage.written, usage.input - cached)
    return dataclasses.replace(
        usage,
        cached=cached,
        written=written,
        written_1h=min(usage.written_1h, written),
        reasoning=min(usage.reasoning, usage.output),
    )
