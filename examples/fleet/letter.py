"""One mail of the maildir, read whatever state it is in, and answered as a draft."""

from __future__ import annotations

import email
import email.policy
from dataclasses import dataclass
from email.message import EmailMessage
from html.parser import HTMLParser
from pathlib import Path

MAX_BODY = 8_000
"""Characters of a mail that the model is shown: a longer one would cost more than it tells."""

SHOWN = ("Reply-To", "Date", "Auto-Submitted", "List-Unsubscribe")
"""Headers that help to judge a mail, besides From and Subject."""


@dataclass(frozen=True)
class Letter:
    """What the agent works with. `key` is the mail's name in the maildir, without flags."""

    path: Path
    key: str
    sender: str
    reply_to: str
    subject: str
    message_id: str
    prompt: str


def read(path: Path) -> Letter:
    """Read a mail. No mail is so broken that this fails: what cannot be read is left out."""
    message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    sender, subject = _header(message, "From"), _header(message, "Subject")
    lines = [f"From: {sender or '(nobody)'}", f"Subject: {subject or '(none)'}"]
    headers = {name: _header(message, name) for name in SHOWN}
    lines += [f"{name}: {value}" for name, value in headers.items() if value]
    attachments = (
        [a.get_filename() or a.get_content_type() for a in message.iter_attachments()]
        if message.is_multipart()
        else []
    )
    if attachments:
        lines.append("Attachments: " + ", ".join(attachments))
    body = _body(message).strip()
    if len(body) > MAX_BODY:
        body = f"{body[:MAX_BODY]}\n[… {len(body) - MAX_BODY} more characters]"
    # The marks tell the model where the stranger's text begins and ends; the text cannot close them.
    body = body.replace("<mail>", "(mail)").replace("</mail>", "(/mail)")
    lines.append(f"\n<mail>\n{body or '(empty)'}\n</mail>")
    return Letter(
        path=path,
        key=path.name.partition(":")[0],
        sender=sender,
        reply_to=_header(message, "Reply-To") or sender,
        subject=subject,
        message_id=_header(message, "Message-ID"),
        prompt=_clean("\n".join(lines)),
    )


def answer(letter: Letter, text: str) -> str:
    """Return a reply as a mail that a person can open, change and send."""
    reply = EmailMessage()
    if letter.reply_to:
        reply["To"] = letter.reply_to
    subject = letter.subject or "your mail"
    reply["Subject"] = subject if subject.lower().startswith("re:") else f"Re: {subject}"
    if letter.message_id:
        reply["In-Reply-To"] = letter.message_id
    reply["X-Unsent"] = "1"
    reply.set_content(_clean(text))
    return reply.as_string()


def _header(message: EmailMessage, name: str) -> str:
    try:
        value = str(message.get(name, ""))
    except (
        ValueError,
        IndexError,
        LookupError,
    ):  # the parser's own words for a header it gives up on
        return ""
    return " ".join(_clean(value).split())


def _clean(text: str) -> str:
    """Return text that is safe to encode: bytes of an undeclared charset become replacement marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _body(message: EmailMessage) -> str:
    part = message.get_body(preferencelist=("plain", "html"))
    if part is None:  # multipart in name only: take what is there as text
        raw = message.get_payload()
        return raw if isinstance(raw, str) else ""
    try:
        text = part.get_content()
    except LookupError:  # a charset that nobody knows
        text = (part.get_payload(decode=True) or b"").decode("utf-8", "replace")
    return _visible(text) if part.get_content_type() == "text/html" else text


class _Visible(HTMLParser):
    """Collects what a reader would see: no comments, no scripts, no styles."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        self._hidden += tag in {"script", "style", "title"}
        if tag in {"p", "br", "tr", "h1", "h2", "h3", "li", "div"}:
            self.texts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in {"script", "style", "title"}

    def handle_data(self, data: str) -> None:
        if self._hidden <= 0:
            self.texts.append(" ".join(data.split()) + " ")


def _visible(html: str) -> str:
    reader = _Visible()
    reader.feed(html)
    reader.close()
    return "".join(reader.texts)
