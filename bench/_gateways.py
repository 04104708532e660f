"""The gateways that ours is measured beside: each is started in front of one upstream, at a free port.

Every one is a context manager `(upstream, folder)` that yields a `Gateway` to send calls to. nginx is the
limit: a plain proxy that does none of the work.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _peers import CACHE, Skipped, child, installed

HERE = Path(__file__).resolve().parent
MODEL = "gpt-4o-mini"


@dataclass(frozen=True)
class Gateway:
    """Where calls go, with which key and headers, and which process carries them."""

    port: int
    pid: int
    key: str = "sk-bench"
    headers: str = ""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def answers(port: int, path: str, timeout_s: float, pid: int | None = None) -> None:
    """Wait until a server answers there. Raises Skipped."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            connection.request("GET", path)
            connection.getresponse().read()
            connection.close()
            return
        if pid is not None and not Path(f"/proc/{pid}").exists():
            break
        time.sleep(0.05)
    raise Skipped(f"no answer on port {port} within {timeout_s:.0f} s")


@contextlib.contextmanager
def upstream(folder: Path, events: int = 100, gap_ms: float = 50.0) -> Iterator[Gateway]:
    port = free_port()
    command = [sys.executable, str(HERE / "_upstream.py"), "--listen", f"127.0.0.1:{port}", "--events", str(events), "--gap-ms", str(gap_ms)]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    with child(command, folder) as pid:
        answers(port, "/billed", 20, pid)
        yield Gateway(port, pid)


def data_directory(
    folder: Path, budget: Mapping[str, str], models: Mapping[str, Any] | None = None
) -> tuple[Path, str]:
    """Return a data directory as the supervisor leaves it, and the key of a run in it."""
    from midwatch.core.access import mint_key
    from midwatch.core.fleet import Fleet
    from midwatch.core.quantities import READING

    data = folder / "data"
    data.mkdir(parents=True, mode=0o700)
    fleet = Fleet.model_validate(
        {
            "agents": {"bench": {"command": ["true"], "budget": budget}},
            "models": models or {},
        },
        context=READING,
    )  # fmt: skip
    (data / "fleet.json").write_text(json.dumps(fleet.resolved().model_dump(mode="json")))
    secret = os.urandom(32)
    (data / "secret").write_bytes(secret)
    (data / "secret").chmod(0o600)
    return data, mint_key(secret, "bench", "0192f3f0-0000-7000-8000-000000000000")


@contextlib.contextmanager
def serving(data: Path, key: str, behind: Gateway | None, folder: Path) -> Iterator[Gateway]:
    """Run ours on an existing data directory, with a hub that takes its spans; `behind` stands in for all
    providers, if given."""
    port, hub = free_port(), free_port()
    taking = [sys.executable, str(HERE / "_hub.py"), "--listen", f"127.0.0.1:{hub}"]
    (folder / "hub").mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "midwatch.gateway", "--data", str(data), "--listen", f"127.0.0.1:{port}"]  # fmt: skip
    command += ["--hub", f"http://127.0.0.1:{hub}"]
    if behind is not None:
        command += ["--rehearsal", f"http://127.0.0.1:{behind.port}"]
    with child(taking, folder / "hub"), child(command, folder) as pid:
        answers(port, "/readyz", 20, pid)
        yield Gateway(port, pid, key)


@contextlib.contextmanager
def midwatch(behind: Gateway, folder: Path) -> Iterator[Gateway]:
    """Ours, with ledger, budgets, spans and durable settlement on."""
    folder.mkdir(parents=True, exist_ok=True)
    budget = {"per_day": "$100000", "per_hour": "$50000", "per_run": "$100000", "per_call": "$5"}
    data, key = data_directory(folder, budget)
    with serving(data, key, behind, folder) as gateway:
        yield gateway


@contextlib.contextmanager
def nginx(behind: Gateway, folder: Path) -> Iterator[Gateway]:
    tool = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if tool is None:
        raise Skipped("nginx is not installed (Debian: apt-get install nginx-light)")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    (folder / "nginx.conf").write_text(
        f"""daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream up {{ server 127.0.0.1:{behind.port}; keepalive 64; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; client_max_body_size 64m;
    }}
  }}
}}
"""
    )
    with child([tool, "-p", str(folder), "-c", str(folder / "nginx.conf")], folder) as pid:
        answers(port, "/billed", 20, pid)
        yield Gateway(port, pid)


@contextlib.contextmanager
def portkey(behind: Gateway, folder: Path) -> Iterator[Gateway]:
    home = CACHE / "portkey"
    package = home / "node_modules" / "@portkey-ai" / "gateway"
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise Skipped("node and npm are not installed")
    if not package.exists():
        home.mkdir(parents=True, exist_ok=True)
        npm = ["npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix", str(home), "@portkey-ai/gateway"]  # fmt: skip
        try:
            subprocess.run(npm, check=True, capture_output=True, text=True, timeout=300)
        except (subprocess.SubprocessError, OSError) as error:
            raise Skipped(f"cannot install portkey: {error}") from error
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    start = package / "build" / "start-server.js"
    command = ["node", str(start), "--headless", f"--port={port}"]
    env = {**os.environ, "NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost"}
    with child(command, folder, env) as pid:
        answers(port, "/", 30, pid)
        headers = f"x-portkey-provider: openai\r\nx-portkey-custom-host: http://127.0.0.1:{behind.port}/v1\r\n"  # fmt: skip
        yield Gateway(port, pid, headers=headers)


@contextlib.contextmanager
def litellm(behind: Gateway, folder: Path) -> Iterator[Gateway]:
    tool = installed("litellm", "litellm[proxy]") / "litellm"
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    (folder / "config.yaml").write_text(
        json.dumps(
            {
                "model_list": [
                    {
                        "model_name": MODEL,
                        "litellm_params": {
                            "model": f"openai/{MODEL}",
                            "api_base": f"http://127.0.0.1:{behind.port}/v1",
                            "api_key": "sk-bench",
                        },
                    }
                ],
                "general_settings": {"master_key": "sk-bench"},
            }
        )
    )
    command = [str(tool), "--config", str(folder / "config.yaml"), "--host", "127.0.0.1", "--port", str(port)]  # fmt: skip
    env = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    with child(command, folder, env) as pid:
        answers(port, "/health/liveliness", 120, pid)
        yield Gateway(port, pid)


PEERS: tuple[Callable[..., contextlib.AbstractContextManager[Gateway]], ...] = (
    nginx,
    portkey,
    litellm,
)
