"""The files for containers say what they should, as far as reading them tells: no container engine runs here."""

from __future__ import annotations

import re
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import yaml

from midwatch.core.fleetfile.reader import load

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "docker-compose.yml").read_text())
HUBS = [name for name in COMPOSE["services"] if name.startswith("hub")]


def test_every_file_that_is_mounted_is_there_or_is_told_how_to_make() -> None:
    said = (DEPLOY / "docker-compose.yml").read_text()
    for service in COMPOSE["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./"):
                made = f"> deploy/{source[2:]}" in said
                assert made or (DEPLOY / source).is_file(), source
            else:
                assert source in COMPOSE["volumes"], source


def test_three_hubs_share_their_stores_and_nothing_else() -> None:
    assert len(HUBS) == 3
    own = [COMPOSE["services"][hub]["volumes"][-1] for hub in HUBS]
    assert len(set(own)) == 3
    for hub in HUBS:
        service = COMPOSE["services"][hub]
        assert service["environment"]["MIDWATCH_STATE"].startswith("postgresql://")
        assert service["environment"]["MIDWATCH_TELEMETRY"].startswith("http://")
        assert set(service["depends_on"]) == {"postgres", "clickhouse"}
        assert "/readyz" in " ".join(service["healthcheck"]["test"])


def test_no_store_can_be_reached_from_outside() -> None:
    outside = {n for n, s in COMPOSE["services"].items() if "outside" in s["networks"]}
    assert outside == {"balancer"}
    assert {n for n, s in COMPOSE["services"].items() if "ports" in s} == {"balancer"}
    assert COMPOSE["networks"]["inside"]["internal"] is True


def test_the_fleet_file_of_the_hubs_is_one() -> None:
    text = (DEPLOY / "midwatch.yaml").read_text()
    fleet = load(text, file="f", root="/", env={}, read_file=lambda path: path)
    stores = fleet.hub.stores
    assert (stores.state, stores.telemetry) == ("env:MIDWATCH_STATE", "env:MIDWATCH_TELEMETRY")
    assert fleet.hub.listen == "0.0.0.0:8700"


def test_the_image_starts_what_the_package_installs() -> None:
    said = (DEPLOY / "Dockerfile").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert 'ENTRYPOINT ["midwatch"]' in said
    assert "midwatch" in project["scripts"]
    assert set(re.findall(r"\[([a-z,]+)\]\"", said)[0].split(",")) <= set(
        project["optional-dependencies"]
    )
    copied = {name for line in re.findall(r"^COPY (?!--from)(.*) \S+$", said, re.M) for name in line.split()}  # fmt: skip
    assert all((ROOT / name).exists() for name in copied)
    assert "USER watch" in said


def test_secrets_that_are_made_beside_the_compose_file_stay_there() -> None:
    made = set(re.findall(r"> (deploy/\S+)", (DEPLOY / "docker-compose.yml").read_text()))
    assert made == {"deploy/secret", "deploy/token", "deploy/.env"}
    assert {f"/{name}" for name in made} <= set((ROOT / ".gitignore").read_text().splitlines())
    sent = (ROOT / ".dockerignore").read_text().splitlines()
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", (DEPLOY / "Dockerfile").read_text(), re.M)
    wanted = {f"!{name}" for line in copied for name in line.split()}
    assert sent[1] == "*"
    assert {line for line in sent if line.startswith("!")} == wanted


def test_the_balancer_knows_every_hub_and_keeps_nodes_and_streams_with_one() -> None:
    said = (DEPLOY / "nginx.conf").read_text()
    assert said.count("{") == said.count("}")
    for upstream in ("any", "same"):
        line = re.search(rf"upstream {upstream} {{(.*)}}", said)
        assert line is not None
        assert set(re.findall(r"server (\w+):8700", line[1])) == set(HUBS)
    for path in ("/api/stream", "/api/nodes/"):
        assert re.search(rf"location {path} {{ proxy_pass http://same;", said)
    # what is taken once however often it is sent may go to another hub
    assert re.search(r"location /v1/ { proxy_pass http://any;", said)


def test_clickhouse_keeps_little_about_itself() -> None:
    root = ElementTree.parse(DEPLOY / "clickhouse.xml").getroot()
    assert root.tag == "clickhouse"
    bounded = {
        each.tag for each in root if each.get("remove") == "1" or each.find("ttl") is not None
    }
    assert {"query_log", "part_log", "trace_log", "text_log", "metric_log"} <= bounded
