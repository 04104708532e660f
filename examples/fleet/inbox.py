"""inbox: triages a maildir. One mail is one cycle; the model classifies, drafts and files by tool calls.

Killed at any moment and started again, it loses nothing and drafts nothing twice: a mail stays in `new`
until it is filed, filing is one rename, and a draft has the name of the mail that it answers.
"""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import letter
import openai
from letter import Letter
from place import HERE, OUT, pause, stop_on_signals, stopping, write_whole

import midwatch as mw

MODEL = "gpt-4o-mini"
MAX_TURNS = 8  # a model that has not filed a mail by then never will: a person takes over
FOLDERS = ["orders", "complaints", "invoices", "newsletters", "spam", "suspicious", "people"]
MAILDIR = OUT / "mail"


# --- the tools -------------------------------------------------------------------------------------


@mw.tool
def classify(mail: Letter, folder: str, urgency: str, summary: str, needs_reply: bool) -> str:
    record = {
        "mail": mail.key,
        "from": mail.sender,
        "subject": mail.subject,
        "folder": folder,
        "urgency": urgency,
        "summary": summary,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_whole(
        OUT / "triage" / f"{mail.key}.json", json.dumps(record, ensure_ascii=False, indent=1)
    )
    then = "now draft a reply" if needs_reply else f"now file it under {folder}"
    return json.dumps({"folder": folder, "needs_reply": needs_reply, "next": then})


@mw.tool(side_effect=True)
def draft(mail: Letter, text: str) -> str:
    path = OUT / "drafts" / f"{mail.key}.eml"
    if path.exists():  # from a run that was killed before the mail was filed
        return "there is a draft already; now file the mail"
    write_whole(path, letter.answer(mail, text))
    return "draft written; now file the mail"


@mw.tool(side_effect=True)
def file(mail: Letter, folder: str) -> str:
    if folder not in [*FOLDERS, "review"]:
        return f"there is no folder {folder!r}; choose one of {', '.join(FOLDERS)}"
    target = MAILDIR / f".{folder}" / "cur" / f"{mail.key}:2,S"
    target.parent.mkdir(parents=True, exist_ok=True)
    mail.path.rename(target)
    return f"filed under {folder}"


def describe(name: str, about: str, **properties: Any) -> Any:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {
        "type": "function",
        "function": {"name": name, "description": about, "parameters": schema},
    }


TOOLS = [
    describe(
        "classify",
        "Say what kind of mail this is.",
        folder={"type": "string", "enum": FOLDERS},
        urgency={"type": "string", "enum": ["low", "normal", "high"]},
        summary={"type": "string", "description": "one line of at most twelve words, in English"},
        needs_reply={"type": "boolean"},
    ),
    describe("draft", "Write a reply for Nora to check. Nothing is sent.", text={"type": "string"}),
    describe("file", "Put the mail into its folder.", folder={"type": "string", "enum": FOLDERS}),
]
RUN = {"classify": classify, "draft": draft, "file": file}


# --- one mail --------------------------------------------------------------------------------------


def use_tool(mail: Letter, name: str, arguments: str) -> str:
    """Run a tool that the model asked for. What the model got wrong it is told, so that it can mend it."""
    if name not in RUN:
        return f"there is no tool {name!r}; there are {', '.join(RUN)}"
    try:
        return RUN[name](mail, **json.loads(arguments))
    except (ValueError, TypeError) as error:
        return f"these arguments do not fit: {error}"


def triage(client: openai.OpenAI, mail: Letter) -> str:
    """Let the model work on a mail until it is filed. Returns the folder."""
    messages: list[Any] = [
        {"role": "system", "content": HANDBOOK},
        {"role": "user", "content": mail.prompt},
    ]
    for _ in range(MAX_TURNS):
        with mw.turn():
            reply = client.chat.completions.create(
                model=MODEL, messages=messages, tools=TOOLS, tool_choice="required", temperature=0
            )
            message = reply.choices[0].message
            messages.append(message)
            for call in message.tool_calls or []:
                result = use_tool(mail, call.function.name, call.function.arguments)
                messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
                if not mail.path.exists():
                    return result.removeprefix("filed under ")
    file(mail, "review")
    mw.event("inbox.gave-up", {"mail": mail.key, "turns": MAX_TURNS})
    return "review"


# --- the loop --------------------------------------------------------------------------------------


def prepare() -> None:
    """Copy the sample's maildir once, so that the sample itself stays as it is."""
    if not MAILDIR.exists():
        part = OUT / "mail.part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(HERE / "mail", part)
        part.rename(MAILDIR)  # all of it or nothing: a kill during the copy starts it again
    (MAILDIR / "new").mkdir(exist_ok=True)


def waiting() -> list[Path]:
    return sorted(p for p in (MAILDIR / "new").iterdir() if not p.name.startswith("."))


def work(client: openai.OpenAI, path: Path) -> bool:
    """Do one mail: one cycle. Returns False when the provider would not answer."""
    with mw.cycle() as cycle:
        mail = letter.read(path)
        try:
            with mw.session(mail.key):
                folder = triage(client, mail)
        except (
            openai.APIConnectionError,
            openai.RateLimitError,
            openai.InternalServerError,
        ) as error:
            # the client has retried already; the mail stays where it is and has its turn again
            cycle.fail(error)
            print(f"{mail.key}: the model does not answer ({error})", flush=True)
            return False
        cycle.done(items=1, unit="mails")
        print(f"{mail.key}: {folder}", flush=True)
    return True


def main() -> None:
    stop_on_signals()
    mw.init(track=("openai",))
    client = openai.OpenAI(max_retries=3, timeout=60)
    prepare()
    done = 0
    while not stopping.is_set():
        mails = waiting()
        if not mails:
            mw.beat()  # nothing to do is a pass of the loop, too
            pause(5)
            continue
        answered = work(client, mails[0])
        done += answered
        mw.progress(done=done, total=done + len(mails) - 1)
        pause(3 if answered else 20)
    mw.draining()
    print(f"asked to stop: {done} mails done, {len(waiting())} left for the next run", flush=True)


HANDBOOK = (HERE / "handbook.md").read_text(encoding="utf-8")

if __name__ == "__main__":
    main()
