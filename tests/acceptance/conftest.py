"""What a user has: a browser, the installed command, and a client for the hub.

One Chromium for a module, a fresh context for each page. Here a missing browser fails instead
of skipping: a page test that did not run has shown nothing.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from midwatch.drills.instance import Instance

sys.path.insert(0, str(Path(__file__).parents[1] / "demo"))

OpenPage = Callable[..., Page]

PAGE_S = 30
"""How long a page may take to show what it is expected to."""


@pytest.fixture(scope="session")
def chromium() -> str:
    """Return the path of a Chromium."""
    wanted = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    for name in (os.environ.get("PYTEST_HOUSE_CHROMIUM"), *wanted):
        path = shutil.which(name) if name else None
        if path is not None:
            return path
    pytest.fail(
        "the page tests need Chromium: apt-get update && apt-get install -y chromium"
        " (make test does it when root on Debian), or set MIDWATCH_CHROMIUM to its path",
        pytrace=False,
    )


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """Return a headless Chromium.

    No longer than for one module: as long as Playwright is there its event loop runs, and no test that needs one of
    its own could come after it on the same worker.
    """
    # Chromium refuses its sandbox to root, and containers give it little shared memory
    arguments = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield started
        started.close()


@pytest.fixture
def patience() -> Iterator[None]:
    """What is expected of a page may take its time on a machine under load."""
    expect.set_options(timeout=PAGE_S * 1000)
    yield
    expect.set_options(timeout=5_000)  # Playwright's own


@pytest.fixture
def open_page(browser: Browser, patience: None) -> Iterator[OpenPage]:
    """Return a function that opens an address in a context of its own: `open_page(url, width=390)`.

    Whatever a page reports as an error, a refused resource included, fails the test at its end,
    unless `quiet` is False. `first` is a script that runs before the page's own.
    """
    contexts: list[Any] = []
    errors: list[str] = []

    def opened(
        url: str,
        *,
        width: int = 1280,
        height: int = 800,
        quiet: bool = True,
        first: str | None = None,
        **how: Any,
    ) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height}, reduced_motion="reduce", **how
        )
        contexts.append(context)
        context.set_default_timeout(PAGE_S * 1000)
        if first is not None:
            context.add_init_script(first)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        if quiet:
            page.on("console", lambda m: m.type == "error" and errors.append(m.text))
        page.goto(url, wait_until="domcontentloaded")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert errors == [], "the browser reported errors"


# -- the installed program, and its hub, from outside -------------------------------------------------


COMMAND_S = 60
"""How long a command may take on a machine under load before it counts as one that never ends."""


PATIENT = """
import sys
from midwatch.cli.__main__ import main
from midwatch.supervisor import supervisor
sys.argv[0] = "midwatch"
supervisor.HEAD_START_S["hub"] = 600.0
main()
"""
"""The command, on a machine where a hub may take longer to say that it cannot work than agents wait for it."""


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def midwatch() -> Callable[..., Said]:
    """Return a function that runs the installed command: `midwatch("check", "-f", file)`.

    `under` is what it is run under (`setpriv …`). `patient`: its agents wait for the hub for as long as it takes.
    Its attribute `program` is the command's path.
    """
    program = Path(sys.executable).with_name("midwatch")
    assert program.exists(), f"{program} is missing; make dev installs it"

    def run(
        *arguments: object,
        under: Sequence[str] = (),
        cwd: Path | None = None,
        patient: bool = False,
    ) -> Said:
        command = [sys.executable, "-c", PATIENT] if patient else [str(program)]
        with subprocess.Popen(
            [*under, *command, *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, "NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                out, err = process.communicate(timeout=COMMAND_S)
            except subprocess.TimeoutExpired:
                process.terminate()
                out, err = process.communicate()
                pytest.fail(f"it still ran after {COMMAND_S} s, and had said:\n{out}{err}")
        return Said(process.returncode, out, err)

    run.program = program  # type: ignore[attr-defined]
    return run


@dataclass(frozen=True)
class Answer:
    """What a hub answered; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Asks a hub over a plain socket: any method, header and body, also what no client would send."""

    def __init__(self, url: str, token: str | None) -> None:
        self.port = urlsplit(url).port
        self.token = token

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        token: str | None = "",
    ) -> Answer:
        """Return the answer. `body` is sent as it is when it is bytes, else as JSON.

        `token` is the client's own unless told otherwise; None sends none.
        """
        sent = {name.lower(): value for name, value in (headers or {}).items()}
        bearer = self.token if token == "" else token
        if bearer is not None:
            sent.setdefault("authorization", f"Bearer {bearer}")
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        if body is None:
            content = b""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.putrequest(method, path, skip_host="host" in sent, skip_accept_encoding=True)
            for name, value in {"content-length": str(len(content)), **sent}.items():
                connection.putheader(name, value)
            # a hub may refuse before it has read all: its answer counts, not our broken pipe
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.endheaders(content)
            answer = connection.getresponse()
            headers_got = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, headers_got, answer.read())
        finally:
            connection.close()

    def stored(self, instance: Instance) -> dict[str, Any]:
        """Return all that no refused request may change: what is stored, and which processes run."""
        listed = {
            name: sorted(item[key] for item in self.get(f"/api/{name}?limit=500").json["items"])
            for name, key in (
                ("agents", "agent"),
                ("beats", "id"),
                ("runs", "run_id"),
                ("traces", "trace_id"),
                ("incidents", "id"),
                ("tokens", "id"),
            )
        }
        agents = self.get("/api/agents").json["items"]
        states = {agent["agent"]: (agent["state"], agent["pid"]) for agent in agents}
        return {**listed, "states": states, "children": instance.children()}

    def get(self, path: str, **more: Any) -> Answer:
        return self.ask("GET", path, **more)

    def post(self, path: str, body: Any = None, **more: Any) -> Answer:
        return self.ask("POST", path, body, **more)


@pytest.fixture(scope="session")
def client_of() -> Callable[..., Client]:
    """Return a function that gives a client of an instance, with the admin's token by default."""

    def make(instance: Instance, token: str | None = "") -> Client:
        admin = (instance.data / "token").read_text().strip()
        return Client(instance.url, admin if token == "" else token)

    return make


@pytest.fixture(scope="session")
def is_problem() -> Callable[..., dict[str, Any]]:
    """Return a function that proves an answer to be a problem document (RFC 9457) and returns it."""

    def check(answer: Answer, status: int, *says: str) -> dict[str, Any]:
        assert answer.status == status, answer.body[:500]
        assert answer.headers["content-type"] == "application/problem+json"
        document = answer.json
        assert document["type"] == "about:blank"
        assert document["title"] == HTTPStatus(status).phrase
        assert document["status"] == status
        missing = [words for words in says if words not in document["detail"]]
        assert not missing, document["detail"]
        assert "Traceback" not in answer.body.decode()
        # what was sent is quoted in part, never sent back as a whole
        assert len(answer.body) < 20_000
        return document

    return check
