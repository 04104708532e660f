"""OpenAI's embeddings. Source: platform.openai.com/docs/api-reference/embeddings/create."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from midwatch.core.calls.ask import Ask, Dialect, Kind
from midwatch.gateway.dialects import reading
from midwatch.gateway.dialects.bodies import Json, wrong
from midwatch.gateway.dialects.reading import Contents

_READ: Final = reading.NO_INPUT | {"input", "dimensions"}


def read(headers: Mapping[str, str], body: Json) -> Ask:
    """Return what a request for embeddings asks. Raises BadRequest."""
    contents = Contents(Kind.OPENAI, reading.model_of(body.get("model")))
    given = body.get("input")
    texts = 1
    if isinstance(given, str):
        contents.prompt = contents.text(given, "input")
    elif isinstance(given, list):
        texts = _list(contents, cast("list[Any]", given))
    else:
        wrong("input", "text, or a list of texts or tokens", given)
    contents.members(body, _READ)
    return reading.ask_of(
        contents, Dialect.EMBEDDINGS, headers, system="", tools=[], messages=texts, max_output=0
    )


def _list(contents: Contents, given: list[Any]) -> int:
    """Gather texts, tokens, or lists of tokens; return how many there are."""
    if given and type(given[0]) is int:
        _tokens(contents, given)
        return 1
    for number, item in enumerate(given):
        if isinstance(item, str):
            contents.texts.append(item)
        elif isinstance(item, list):
            _tokens(contents, cast("list[Any]", item))
        elif isinstance(item, dict):
            contents.anything(cast("Json", item))  # pictures, where a provider takes them
        else:
            wrong(f"input[{number}]", "text or a list of tokens", item)
    return len(given)


def _tokens(contents: Contents, tokens: list[Any]) -> None:
    for token in tokens:
        if type(token) is not int:
            wrong("input", "whole numbers in a list of tokens", token)
    contents.tokens += len(tokens)
    contents.sample(",".join(map(str, tokens)))
