"""Templates, static files and the headers that every page carries.

Static files are read once and named by their content's hash, so that they are cached for ever
and a new version is seen at once. Nothing is loaded from elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final

from fastapi import Request
from fastapi.responses import HTMLResponse, Response
from markupsafe import Markup, escape

from midwatch.core.detection import MIDWATCH
from midwatch.web import words

if TYPE_CHECKING:
    from jinja2 import Environment

HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
        " object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class Asset:
    body: bytes
    media_type: str
    version: str


def _read_assets() -> dict[str, Asset]:
    found: dict[str, Asset] = {}
    for entry in files("midwatch.web").joinpath("static").iterdir():
        kind = _TYPES.get("." + entry.name.rpartition(".")[2])
        if kind is not None:
            body = entry.read_bytes()
            found[entry.name] = Asset(body, kind, hashlib.sha256(body).hexdigest()[:12])
    return found


ASSETS: Final = _read_assets()


def asset_url(name: str) -> str:
    """Return a static file's address, its version included."""
    return f"/static/{name}?v={ASSETS[name].version}"


def asset_response(name: str, version: str | None) -> Response | None:
    """Return a static file, cached for ever when the address names its version; None: no such file."""
    asset = ASSETS.get(name)
    if asset is None:
        return None
    lasting = "public, max-age=31536000, immutable" if version == asset.version else "no-cache"
    headers = {**HEADERS, "Cache-Control": lasting}
    return Response(asset.body, media_type=asset.media_type, headers=headers)


class Times:
    """Shows times as `<time>` in the fleet's zone, as seen from `now`."""

    def __init__(self, now: float, tz: tzinfo) -> None:
        self.now = now
        self.tz = tz

    def _tag(self, at: datetime, text: str, more: str) -> Markup:
        return Markup('<time datetime="{}" title="{}"{}>{}</time>').format(
            at.isoformat(timespec="seconds").replace("+00:00", "Z"),
            words.full_time(at, self.tz),
            Markup(more),  # noqa: S704 - a literal of this class
            text,
        )

    def ago(self, value: object) -> Markup:
        """Return `8 minutes ago`; watch.js keeps it true."""
        at = value if isinstance(value, datetime) else words.moment(value)
        return self._tag(at, words.ago(at, self.now), " data-age") if at else escape(words.NO_DATA)

    def for_(self, value: object) -> Markup:
        """Return `8 minutes`: how long something has lasted."""
        at = value if isinstance(value, datetime) else words.moment(value)
        if at is None:
            return escape(words.NO_DATA)
        text = words.ago(at, self.now).removesuffix(" ago")
        return self._tag(at, text, ' data-age="span"')

    def at(self, value: object) -> Markup:
        """Return `02:14`, with the day when it was not today."""
        at = value if isinstance(value, datetime) else words.moment(value)
        return (
            self._tag(at, words.clock_time(at, self.now, self.tz), "")
            if at
            else escape(words.NO_DATA)
        )

    def exact(self, value: object) -> Markup:
        """Return `02:14:09`, with the day when it was not today."""
        at = value if isinstance(value, datetime) else words.moment(value)
        if at is None:
            return escape(words.NO_DATA)
        seconds = f":{at.astimezone(self.tz):%S}"
        return self._tag(at, words.clock_time(at, self.now, self.tz) + seconds, "")


@cache
def _environment() -> Environment:
    # here, because most hubs are never looked at
    from jinja2 import Environment, PackageLoader, StrictUndefined

    env = Environment(
        loader=PackageLoader("midwatch.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shared: dict[str, Any] = {"asset": asset_url, "words": words, "MIDWATCH": MIDWATCH}
    env.globals.update(shared)
    env.filters.update(
        plain=words.plain, money=words.money, count=words.count, size=words.size, span=words.span
    )
    return env


def html(template: str, code: int = 200, **values: Any) -> HTMLResponse:
    """Render a template under the headers that every page carries."""
    return HTMLResponse(_environment().get_template(template).render(**values), code, HEADERS)


def wants_page(request: Request) -> bool:
    """Tell whether who asks is a person with a browser, and not a program that asks the API."""
    path = request.url.path
    return not path.startswith(("/api/", "/v1/", "/ping/")) and "text/html" in request.headers.get(
        "accept", ""
    )


_PROBLEMS: Final = {
    403: ("Not allowed", "Your token does not hold the scope that this needs."),
    404: (
        "Not on the watch list",
        "Nothing by this name is known here. It may have been renamed or removed.",
    ),
    500: (
        "Something broke on our side",
        "The agents are not affected; the supervisor looks after them. The hub's log says more.",
    ),
}


def problem_page(status: int, detail: str | None = None) -> HTMLResponse:
    """Return the page for an error: what happened, and where to go from here.

    For 401 that is the page that tells how to sign in, whatever the detail: it is for programs.
    """
    if status == 401:
        return html("login.html", 401)
    title, advice = _PROBLEMS.get(status, ("That did not work", "Go back and try again."))
    return html("problem.html", status, status=status, headline=title, advice=detail or advice)
