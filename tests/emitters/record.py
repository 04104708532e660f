"""Runs real emitters against the rehearsal model and keeps what they send.

    python tests/emitters/record.py --home DIR [--out FOLDER] [NAME ...]

DIR holds what it takes: `.venv` with the packages of the group `emitters`, `js` with those of npm (`install.py`).
Without the latter the recording of Vercel's SDK stays the one that is there. The recordings of the checkout are
written anew, or those of FOLDER.

Each recording is the OTLP request that all bodies of one run make up (protobuf messages that follow
each other are one message), compressed, without paths and names of the machine, and beside it a JSON
file that says which versions sent it, and when.
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

sys.path.insert(0, str(Path(__file__).parent))

from capture import Capture
from install import older

from emitters import EMITTERS, Emitter

HERE = Path(__file__).parent
RECORDINGS = HERE / "recordings"
TIMEOUT_S = 300


@contextmanager
def rehearsal():
    """Start the rehearsal model on a free port and give its address."""
    command = [sys.executable, "-m", "midwatch.drills.rehearsal", "--listen", "127.0.0.1:0"]
    child = subprocess.Popen(
        [*command, "--script", str(HERE / "weather.yaml")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        yield child.stdout.readline().split()[-1]
    finally:
        child.terminate()
        child.wait(10)


def run(emitter: Emitter, url: str, python: Path, modules: Path) -> bytes:
    """Return the request that one emitter sends, redacted. Raises RuntimeError when it fails."""
    with Capture() as capture:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ["HOME"],
            "REHEARSAL_URL": url,
            "OTEL_EXPORTER_OTLP_ENDPOINT": capture.url,
            "OTEL_SERVICE_NAME": "emitter",
            "OTEL_METRICS_EXPORTER": "none",
            "OPENAI_API_KEY": "rehearsal",
            "LANGSMITH_TRACING": "false",
            "NO_PROXY": "127.0.0.1",
            **emitter.environment,
        }
        if emitter.older:
            environment["PYTHONPATH"] = str(older(python.parents[2], emitter))
        script = HERE / "agents" / emitter.script
        if script.suffix == ".mjs":
            # modules are looked for beside the script
            copy = modules.parent / script.name
            copy.write_text(script.read_text())
            command = ["node", str(copy)]
        elif emitter.own:
            command = [sys.executable, str(script), *emitter.arguments]
        else:
            command = [str(python), str(script), *emitter.arguments]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        if done.returncode or not capture.bodies:
            raise RuntimeError(f"{emitter.name}: exit {done.returncode}\n{done.stderr[-3000:]}")
        if any("json" in kind for kind in capture.types):
            from google.protobuf import json_format

            whole = ExportTraceServiceRequest()
            for body in capture.bodies:
                whole.MergeFrom(_from_json(json_format, body))
            return redacted(whole.SerializeToString())
        return redacted(b"".join(capture.bodies))


def _from_json(json_format, body: bytes) -> ExportTraceServiceRequest:
    """OTLP's JSON writes ids as hex, protobuf's JSON as base64."""
    import base64

    def turn(match: re.Match[str]) -> str:
        return f'"{match[1]}": "{base64.b64encode(bytes.fromhex(match[2])).decode()}"'

    text = re.sub(r'"(traceId|spanId|parentSpanId)":\s*"([0-9a-f]*)"', turn, body.decode())
    return json_format.Parse(text, ExportTraceServiceRequest(), ignore_unknown_fields=True)


def redacted(body: bytes) -> bytes:
    """Return the request without what tells about the machine that it was made on."""
    request = ExportTraceServiceRequest.FromString(body)
    paths = re.compile(r"(?:/[\w.@+-]+)+/(?=[\w.@+-]+)")
    home, host = str(Path.home()), socket.gethostname()

    def clean(values) -> None:
        for pair in list(values):
            if pair.key.startswith(("process.", "host.", "os.", "service.version")):
                values.remove(pair)
            elif pair.value.HasField("string_value"):
                text = pair.value.string_value
                if home in text or str(HERE) in text:
                    text = paths.sub("", text)
                if host and host in text:
                    text = text.replace(host, "host")
                # ports and addresses change from run to run and say nothing
                text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:8790", text)
                pair.value.string_value = text

    for group in request.resource_spans:
        clean(group.resource.attributes)
        for scoped in group.scope_spans:
            for span in scoped.spans:
                clean(span.attributes)
                for event in span.events:
                    clean(event.attributes)
    return request.SerializeToString()


def versions(emitter: Emitter, python: Path, modules: Path) -> dict[str, str]:
    """Return the versions of the packages that made a recording."""
    if emitter.script.endswith(".mjs"):
        return {
            name: json.loads((modules / name / "package.json").read_text())["version"]
            for name in emitter.packages
        }
    code = "import sys, json, importlib.metadata as m; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    interpreter = sys.executable if emitter.own else str(python)
    out = subprocess.run(
        [interpreter, "-c", code, *emitter.packages], capture_output=True, text=True, check=True
    )
    return json.loads(out.stdout)


def keep(folder: Path, emitter: Emitter, body: bytes, made_by: dict[str, str]) -> None:
    """Write a recording and what it is."""
    (folder / f"{emitter.name}.pb.gz").write_bytes(gzip.compress(body, 9, mtime=0))
    about = {
        "emitter": emitter.name,
        "script": emitter.script,
        "versions": made_by,
        "recorded": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    (folder / f"{emitter.name}.json").write_text(json.dumps(about, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=RECORDINGS)
    given = parser.parse_args()
    home, out = given.home.absolute(), given.out
    python, modules = home / ".venv/bin/python", home / "js/node_modules"
    if out != RECORDINGS:
        shutil.copytree(RECORDINGS, out, dirs_exist_ok=True)

    def record(emitter: Emitter) -> tuple[bool, str]:
        if emitter.script.endswith(".mjs") and not modules.exists():
            return True, f"not run, there is no {modules.name}; its recording is left as it is"
        with rehearsal() as url:
            try:
                body = run(emitter, url, python, modules)
            except (RuntimeError, subprocess.SubprocessError) as error:
                return False, str(error)
        keep(out, emitter, body, versions(emitter, python, modules))
        return True, f"{len(body)} bytes"

    wanted = [one for one in EMITTERS if not given.names or one.name in given.names]
    good = True
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for emitter, (well, said) in zip(wanted, pool.map(record, wanted), strict=True):
            print(f"{emitter.name}: {said}", flush=True)
            good = good and well
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
