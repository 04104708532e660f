"""A call at a place of another kind than its client's dialect: what is asked there, and what the client gets of it.

Every stage asks here, and gets back what the client itself said where nothing has to be translated. A place
that a call cannot be translated for is passed over (`passes`), and named in the answer's headers, or in the
refusal when no place is left.
"""

from __future__ import annotations

from dataclasses import replace

from midwatch.core.calls.ask import Ask
from midwatch.core.calls.chain import Place
from midwatch.core.calls.classes import ErrorClass, Failure
from midwatch.core.redact import strike
from midwatch.gateway import dialects, translate, worth
from midwatch.gateway.carried import Carried
from midwatch.gateway.dialects import Listener, Refusal
from midwatch.gateway.dialects.headers import Pairs
from midwatch.gateway.http.port import Headers
from midwatch.gateway.translate import Asked, CannotTranslate, Frame, Stream


def asked(call: Carried, place: Place) -> Asked | None:
    """Return what a place of another kind is asked; None where the client's own words go. Raises CannotTranslate."""
    if place.kind is call.ask.kind:
        return None
    found = call.translations.get(place.name)
    if found is None:
        try:
            found = translate.request(
                call.ask, call.body, place.kind, place.model, _longest(call, place)
            )
        except CannotTranslate as error:
            found = error
        call.translations[place.name] = found
    if isinstance(found, CannotTranslate):
        raise found
    return found


def spoken(call: Carried, place: Place) -> bool:
    """Tell whether a place's dialect may be found words in, by all that is known without looking for them."""
    return place.kind is call.ask.kind or call.ask.dialect in translate.NATIVE.values()


def passes(call: Carried, place: Place) -> bool:
    """Tell whether a call can be put to a place at all."""
    try:
        asked(call, place)
    except CannotTranslate:
        return False
    return True


def passed_over(call: Carried) -> dict[str, CannotTranslate]:
    """Return by name the places that a call could not be put to, and why."""
    return {n: e for n, e in call.translations.items() if isinstance(e, CannotTranslate)}


def _longest(call: Carried, place: Place) -> int | None:
    """Return the longest answer of a place's model, where that is known."""
    settings = call.settings
    seller = settings.providers[place.provider].seller
    about = settings.chains.about(place.model)
    return about.max_output or settings.shelf.find(place.provider, seller, place.model).max_output


def ask_of(call: Carried, place: Place) -> Ask:
    """Return the call as a place sees it: what comes from there is heard and read by this."""
    found = asked(call, place)
    return call.ask if found is None else found.ask


def onward(call: Carried, place: Place, *, rehearsed: bool) -> tuple[Pairs, str]:
    """Return the headers for a place, without a key, and the path."""
    found = asked(call, place)
    if found is None:
        route = call.route
        path = dialects.target(
            place.kind,
            call.ask.dialect,
            place.model,
            stream=route.stream,
            array=route.array,
            version=route.version,
            query=call.query,
        )
        return dialects.onward(call.headers, rehearsed=rehearsed), path
    path = dialects.target(place.kind, found.ask.dialect, place.model, stream=call.ask.stream)
    return translate.onward(call.headers, place.kind, rehearsed=rehearsed), path


def back(call: Carried, place: Place, headers: Headers) -> Pairs:
    """Return the headers of an answer that pass to the client."""
    if place.kind is call.ask.kind:
        return dialects.back(headers)
    events = call.ask.stream and not call.route.array
    return translate.back(headers, "text/event-stream" if events else "application/json")


def whole(call: Carried, place: Place, body: bytes, answer: dialects.Answer) -> bytes:
    """Return a whole answer for the client. Raises CannotTranslate."""
    if place.kind is call.ask.kind:
        return body
    used = answer.usage or worth.estimate(call.ask, answer.text)
    return translate.answer(call.ask, place.kind, body, used, _frame(call, place))


def streams(call: Carried, place: Place, content_type: str) -> bool:
    """Tell whether an answer is a stream as the place was asked for one."""
    route = call.route if place.kind is call.ask.kind else replace(call.route, array=False)
    return dialects.streams(route, content_type)


def stream(call: Carried, place: Place, listener: Listener) -> Stream | None:
    """Return what turns the events of a stream into the client's; None where they pass as they come."""
    if place.kind is call.ask.kind:
        return None
    return Stream(call.ask, place.kind, listener, _frame(call, place))


def refused(
    call: Carried, place: Place, headers: Headers, body: bytes, status: int
) -> tuple[Pairs, bytes]:
    """Return headers and body by which a provider's refusal is passed on."""
    if place.kind is call.ask.kind or call.failure is None:
        return dialects.back(headers), body
    told = translate.failure(call.ask.kind, call.failure, status, array=call.route.array)
    return translate.back(headers, "application/json"), told


def worded(call: Carried, headers: Headers, failure: Failure, status: int) -> tuple[Pairs, bytes]:
    """Return headers and body of a provider's refusal whose own words did not come."""
    told = translate.failure(call.ask.kind, failure, status, array=call.route.array)
    return translate.back(headers, "application/json"), told


def told(call: Carried, place: Place, headers: Headers, body: bytes) -> tuple[Pairs, bytes]:
    """Return headers and body of what a provider says in refusal, without the keys that it was shown: servers of
    one's own and debugging proxies repeat them."""
    shown = call.settings.providers[place.provider].shown
    return [(n, strike(v.encode(), shown).decode()) for n, v in headers], strike(body, shown)


def cleared(call: Carried, place: Place, failure: Failure) -> Failure:
    """Return a failure whose reason holds none of these keys."""
    shown = call.settings.providers[place.provider].shown
    said = strike(failure.reason.encode("utf-8", "replace"), shown).decode()
    return failure if said == failure.reason else replace(failure, reason=said)


def _frame(call: Carried, place: Place) -> Frame:
    ask = call.ask
    return Frame(call.id, place.model, int(call.at), ask.model, ask.usage_asked, ask.array)


def untold(error: CannotTranslate) -> Failure:
    """Return the failure of an answer that has no words in the client's dialect."""
    return Failure(ErrorClass.UNKNOWN, f"the answer cannot be translated: {error}", code=error.name)


def no_words(error: CannotTranslate) -> Refusal:
    """Refuse an answer that came and has no words in the client's dialect."""
    return Refusal("midwatch_translation", untold(error).reason, 502, param=error.name)


def no_place(call: Carried) -> Refusal | None:
    """Refuse a call that none of its places could be asked; None when that is not why."""
    errors = passed_over(call)
    if not errors:
        return None
    listed = "; ".join(f"{name}: {error}" for name, error in errors.items())
    said = f"nobody can be asked in another dialect: {listed}"
    first = next(iter(errors.values()))
    return Refusal("midwatch_translation", said, 400, param=first.name)
