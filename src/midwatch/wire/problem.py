"""RFC 9457 problem documents: what every refusal of the hub looks like.

`type` stays `about:blank`, so `title` is the status in words; `detail` says what, the value, and what
to do next. Further members (`path`, `errors`, `nearest`) are the extension members of the RFC.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any, Final

MEDIA_TYPE: Final = "application/problem+json"


class Refusal(Exception):
    """A request that is answered with a problem document."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        reason: str,
        headers: dict[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.reason = reason
        self.headers = headers or {}
        self.members = members

    def body(self) -> bytes:
        """Return the document."""
        return document(self.status, self.detail, reason=self.reason, **self.members)


def document(status: int, detail: str, **members: Any) -> bytes:
    """Return a problem document as JSON."""
    fields = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **members,
    }
    return json.dumps(fields, ensure_ascii=False, default=str).encode("utf-8", "replace")
