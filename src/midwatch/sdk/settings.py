"""What the SDK reads from its environment: a table, and how it becomes settings.

Arguments of `init` win over the environment. A token may also come from a file
(`MIDWATCH_TOKEN_FILE`), so that it need not stand in the environment.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from midwatch.sdk.lineage import Place

TABLE: tuple[tuple[str, str], ...] = (
    ("MIDWATCH_AGENT", "the agent's name in the fleet file"),
    ("MIDWATCH_RUN_ID", "the run that this process belongs to"),
    ("MIDWATCH_PARENT_RUN_ID", "the run that started this sub-agent"),
    ("MIDWATCH_URL", "the hub's address; without it nothing is sent"),
    ("MIDWATCH_TOKEN", "what the hub knows the agent by; MIDWATCH_TOKEN_FILE names a file"),
    ("MIDWATCH_SPOOL", "directory for what could not be sent yet"),
    ("NOTIFY_SOCKET", "the supervisor's socket, as with systemd"),
    ("MIDWATCH_FAMILY_SOCKET", "where a sub-agent tells of those that it starts itself"),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "full address for spans"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "base address for spans; by default the hub"),
    ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "headers for spans: k=v,k=v"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "headers for spans: k=v,k=v"),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc makes the SDK send spans to the hub instead"),
    ("OTEL_RESOURCE_ATTRIBUTES", "attributes of every span's resource: k=v,k=v"),
    ("OTEL_SERVICE_NAME", "service.name of the spans; by default the agent's name"),
    ("OTEL_TRACES_EXPORTER", "none turns spans off"),
    ("OTEL_SDK_DISABLED", "true turns spans off"),
    ("XDG_STATE_HOME", "where the spool is when MIDWATCH_SPOOL is not set"),
)


MAX_AGENT = 128
"""Characters of an agent's name: what the hub accepts."""


class Settings:
    """What `init` found."""

    __slots__ = (
        "agent",
        "family_socket",
        "introduction",
        "notify_socket",
        "resource",
        "run_id",
        "spool_dir",
        "token",
        "traces",
        "traces_headers",
        "traces_url",
        "url",
    )

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        agent: str | None = None,
        url: str | None = None,
        token: str | None = None,
        spool: str | None = None,
        run_id: str | None = None,
    ) -> None:
        self.url = url or environ.get("MIDWATCH_URL") or None
        self.token = token or _secret(environ, "MIDWATCH_TOKEN")
        self.agent = (
            agent
            or environ.get("MIDWATCH_AGENT")
            or environ.get("OTEL_SERVICE_NAME")
            or _program_name()
        )[:MAX_AGENT]
        self.run_id = run_id or environ.get("MIDWATCH_RUN_ID") or None
        self.spool_dir = spool or environ.get("MIDWATCH_SPOOL") or _spool_dir(environ, self.agent)
        self.notify_socket = environ.get("NOTIFY_SOCKET") or None
        self.family_socket = environ.get("MIDWATCH_FAMILY_SOCKET") or self.notify_socket
        self.introduction: Place | None = None
        """Which sub-agent this process says it is, where its parent did not tell."""
        self.traces = not (
            environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
            or environ.get("OTEL_TRACES_EXPORTER", "").lower() == "none"
        )
        self.traces_url = _traces_url(environ) if self.url else None
        self.traces_headers = _pairs(
            environ.get("OTEL_EXPORTER_OTLP_TRACES_HEADERS")
            or environ.get("OTEL_EXPORTER_OTLP_HEADERS")
            or ""
        )
        self.resource = {
            **_pairs(environ.get("OTEL_RESOURCE_ATTRIBUTES", "")),
            "service.name": environ.get("OTEL_SERVICE_NAME") or self.agent,
            "midwatch.agent": self.agent,
        }
        if self.run_id is not None and run_id is None and (agent or ":" in self.agent):
            self._introduce(environ, agent)

    def _introduce(self, environ: Mapping[str, str], agent: str | None) -> None:
        """Be a sub-agent, where this process says that it is one."""
        from midwatch.sdk.lineage import find, is_called

        place = find(environ, agent)
        if place is None:
            if agent and is_called(environ, agent):
                self.agent = self.resource["midwatch.agent"] = environ["MIDWATCH_AGENT"]
            return
        self.introduction = place
        self.agent, self.run_id = place.agent[:MAX_AGENT], place.run_id
        self.notify_socket = None  # its beats must not stand in for its parent's
        if self.spool_dir is not None and environ.get("MIDWATCH_SPOOL") == self.spool_dir:
            self.spool_dir += "/" + self.agent.rpartition(":")[2]
        self.resource["service.name"] = self.resource["midwatch.agent"] = self.agent
        for name in ("midwatch.run_id", "service.instance.id"):
            self.resource[name] = self.run_id


def _secret(environ: Mapping[str, str], name: str) -> str | None:
    if environ.get(name):
        return environ[name].strip()
    path = environ.get(name + "_FILE")
    if not path:
        return None
    try:
        with open(path, encoding="utf-8") as source:  # noqa: PTH123  # pathlib is 20 modules
            return source.read(4096).strip() or None
    except (OSError, ValueError):
        from midwatch.sdk.shield import complain

        complain(f"cannot read the token from {path!r}, which {name}_FILE names")
        return None


def _program_name() -> str:
    import sys

    name = os.path.basename(sys.argv[0]) if sys.argv else ""  # noqa: PTH119
    return name.removesuffix(".py") or "agent"


def _spool_dir(environ: Mapping[str, str], agent: str) -> str | None:
    state = environ.get("XDG_STATE_HOME")
    if not state:
        home = os.path.expanduser("~")  # noqa: PTH111
        if home == "~":
            return None  # no home: what cannot be sent waits in memory
        state = f"{home}/.local/state"
    safe = "".join(sign if sign.isalnum() or sign in "-_." else "_" for sign in agent)
    return f"{state}/midwatch/spool/{safe.lstrip('.') or 'agent'}"


def _traces_url(environ: Mapping[str, str]) -> str | None:
    full = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if full:
        return full
    base = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    protocol = environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "")
    if not base or protocol == "grpc":
        return None
    return base.rstrip("/") + "/v1/traces"


def _pairs(text: str) -> dict[str, str]:
    """Read `k=v,k=v` with percent-encoded values, as OpenTelemetry writes it."""
    if not text:
        return {}
    from urllib.parse import unquote

    pairs = (part.split("=", 1) for part in text.split(",") if "=" in part)
    return {name.strip(): unquote(value.strip()) for name, value in pairs if name.strip()}
