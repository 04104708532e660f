"""From terms to walls: which mounts, in which order, and what is refused. No file is looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.errors import SetupError
from midwatch.core.sandbox import Deed, Plan, Scene, Spot, Tools, allowed, inside, plan
from midwatch.core.terms import Sandbox
from midwatch.core.unwalled import APPARMOR, CLONE, MOST, Circumstances, explain

TOOLS = Tools(
    "/usr/bin/bwrap", (0, 8, 0), user_namespace=True, machine="x86_64", nothing="/d/run/nothing"
)
SCENE = Scene(
    "inbox", "/srv/fleet", "/d", "/d/spool/inbox", "/d/run/inbox.sock", homes=("/home/u",)
)

FOLDERS = (
    "/",
    "/srv/fleet",
    "/d",
    "/d/spool/inbox",
    "/home/u",
    "/home/u/.ssh",
    "/tmp",
    "/run",
    "/srv/fleet/conf",
    "/srv/other",
)
FILES = (
    "/d/run/inbox.sock",
    "/home/u/.netrc",
    "/etc/shadow",
    "/srv/fleet/conf/key",
    "/srv/fleet/midwatch.yaml",
)


def machine(links: Mapping[str, Spot] | None = None) -> Any:
    def look(path: str) -> Spot:
        normal = "/" + "/".join(part for part in path.split("/") if part not in ("", "."))
        if links and normal in links:
            return links[normal]
        kind = "directory" if normal in FOLDERS else "file" if normal in FILES else "missing"
        return Spot(normal, kind)

    return look


def build(
    terms: Mapping[str, Any] | None = None,
    scene: Scene = SCENE,
    tools: Tools = TOOLS,
    links: Mapping[str, Spot] | None = None,
) -> Plan:
    return plan(Sandbox.model_validate(terms or {}), scene, tools, machine(links))


def deeds(made: Plan) -> dict[str, str]:
    return {mount.path: mount.deed.value for mount in made.mounts}


def test_the_whole_of_it() -> None:
    assert " ".join(build().arguments) == (
        "--unshare-pid --unshare-ipc --unshare-uts --unshare-cgroup-try --die-with-parent --unshare-user"
        " --new-session --ro-bind / / --proc /proc --dev /dev"
        " --perms 0755 --tmpfs /d --ro-bind /d/run/inbox.sock /d/run/inbox.sock"
        " --bind /d/spool/inbox /d/spool/inbox --perms 1777 --size 536870912 --tmpfs /dev/shm"
        " --ro-bind /d/run/nothing /etc/shadow"
        " --ro-bind /d/run/nothing /home/u/.netrc --perms 0755 --tmpfs /home/u/.ssh"
        " --perms 0755 --tmpfs /run --bind /srv/fleet /srv/fleet"
        " --perms 1777 --size 536870912 --tmpfs /tmp"
        " --remount-ro /dev --remount-ro /proc --remount-ro /d --remount-ro /home/u/.ssh --remount-ro /run"
        " --chdir /srv/fleet"
    )


def test_what_contains_comes_before_what_it_contains() -> None:
    paths = [mount.path for mount in build({"hide": ["conf/key"], "read": ["~/.ssh"]}).mounts]
    for index, path in enumerate(paths):
        assert not any(inside(before, path) for before in paths[:index] if before != path)


@pytest.mark.parametrize(
    ("terms", "path", "deed"),
    [
        ({}, "/home/u/.ssh", "hide"),
        ({"read": ["~/.ssh"]}, "/home/u/.ssh", None),
        ({"write": ["~/.ssh"]}, "/home/u/.ssh", "write"),
        ({"write": ["conf"], "hide": ["conf"]}, "/srv/fleet/conf", "hide"),
        ({"write": ["conf"], "read": ["conf"]}, "/srv/fleet/conf", "write"),
        ({"read": ["conf"]}, "/srv/fleet/conf", "read"),
        ({"write": ["~"]}, "/home/u/.ssh", "hide"),
        ({"write": ["/"]}, "/d", "hide"),
        ({"write": ["/"]}, "/", "write"),
        ({"write": []}, "/srv/fleet", None),
        ({"hide": ["nowhere"]}, "/srv/fleet/nowhere", None),
    ],
)
def test_which_of_two_words_about_a_path_holds(
    terms: dict[str, Any], path: str, deed: str | None
) -> None:
    assert deeds(build(terms)).get(path) == deed


def test_a_parent_of_what_is_hidden_in_writable_ground_is_pinned() -> None:
    made = build({"hide": ["conf/key"]})
    assert deeds(made)["/srv/fleet/conf"] == "write"
    assert [m.why for m in made.mounts if m.path == "/srv/fleet/conf"] == ["pinned"]


def test_files_that_decide_on_walls_are_read_only_in_writable_ground() -> None:
    scene = replace(SCENE, guarded=("/srv/fleet/midwatch.yaml", "/srv/fleet/none"))
    made = deeds(build({"write": ["."], "read": []}, scene))
    assert (made["/srv/fleet/midwatch.yaml"], made.get("/srv/fleet/none")) == ("read", None)
    opened = {"write": ["midwatch.yaml"]}
    assert deeds(build(opened, scene)).get("/srv/fleet/midwatch.yaml") is None, (
        "and stay so when named"
    )


def test_keys_of_providers_are_hidden_whatever_the_terms_say() -> None:
    scene = replace(SCENE, keys=("/srv/fleet/conf/key",))
    for terms in ({}, {"read": ["conf/key"]}, {"write": [".", "conf", "conf/key"]}):
        made = build(terms, scene)
        assert (deeds(made)["/srv/fleet/conf/key"], deeds(made)["/srv/fleet/conf"]) == (
            "hide",
            "write",
        )


def test_a_key_that_an_agent_could_put_there_itself_is_not_waited_for() -> None:
    with pytest.raises(SetupError, match="'/srv/fleet/none', is missing and lies where this agent"):
        build({}, replace(SCENE, keys=("/srv/fleet/none",)))
    scene = replace(SCENE, keys=("/srv/fleet/none", "/srv/none"))
    assert deeds(build({"write": ["conf"]}, scene)).get("/srv/fleet/none") is None


def test_the_agents_directory_is_seen_also_in_what_is_private() -> None:
    scene = replace(SCENE, cwd="/tmp")
    assert deeds(build({"write": []}, scene))["/tmp"] == "room"
    assert deeds(build({"write": ["."]}, scene))["/tmp"] == "write"


def test_missing_places_are_made_inside_its_directory_and_refused_elsewhere() -> None:
    assert build({"write": [".", "out/deep"]}).make == ("/srv/fleet/out/deep",)
    for terms in ({"write": ["/srv/none"]}, {"read": ["none"]}, {"write": ["~/none"]}):
        with pytest.raises(SetupError, match="does not exist"):
            build(terms)


LINK = {"/srv/fleet/out": Spot("/srv/other", "directory", ("/srv/fleet/out",))}


def test_a_link_that_nobody_inside_can_lay_is_followed() -> None:
    assert deeds(build({"write": ["out"]}, links=LINK))["/srv/other"] == "write"


@pytest.mark.parametrize("key", ["write", "read", "hide"])
def test_a_link_in_its_own_writable_ground_is_not_followed(key: str) -> None:
    terms = {"write": ["."], key: [*(["."] if key == "write" else []), "out"]}
    with pytest.raises(SetupError, match=r"symbolic link '/srv/fleet/out'"):
        build(terms, links=LINK)


def test_a_link_where_another_agent_may_write_is_not_followed() -> None:
    with pytest.raises(SetupError, match="where an agent may write"):
        build({"write": ["out"]}, replace(SCENE, ground=("/srv/fleet",)), links=LINK)


@pytest.mark.parametrize("path", ["/d/token", "/d/spool/other", "/d/hub/state.db", "/d/run"])
@pytest.mark.parametrize("key", ["write", "read"])
def test_midwatchs_own_data_is_given_to_nobody(key: str, path: str) -> None:
    with pytest.raises(SetupError, match="Midwatch's own data"):
        build({key: [path]}, links={path: Spot(path, "file")})


@pytest.mark.parametrize("cwd", ["/d", "/d/logs/inbox"])
def test_an_agent_that_lives_in_the_data_directory_is_refused(cwd: str) -> None:
    with pytest.raises(SetupError, match="give it a cwd of its own"):
        build({"write": []}, replace(SCENE, cwd=cwd))


def test_an_agent_beside_midwatchs_data_keeps_its_place() -> None:
    scene = replace(SCENE, cwd="/d/agents")
    made = deeds(build({}, scene, links={"/d/agents": Spot("/d/agents")}))
    assert (made["/d"], made["/d/agents"]) == ("hide", "write")


def test_the_proxy_comes_later() -> None:
    with pytest.raises(
        SetupError, match=r"agents.inbox.sandbox.network: 'proxy' comes with the guard"
    ):
        build({"network": "proxy"})


@pytest.mark.parametrize(
    ("terms", "scene", "tools", "has", "lacks"),
    [
        ({"network": "off"}, SCENE, TOOLS, "--unshare-net", None),
        ({"network": "on"}, SCENE, TOOLS, None, "--unshare-net"),
        ({}, replace(SCENE, tty=True), TOOLS, None, "--new-session"),
        (
            {},
            SCENE,
            replace(TOOLS, privileged=True, user_namespace=False),
            "--cap-drop",
            "--unshare-user",
        ),
        ({}, SCENE, replace(TOOLS, version=(0, 6, 1)), None, "--size"),
        ({}, SCENE, replace(TOOLS, devices="/d/run/devices"), "/d/run/devices/null", None),
    ],
)
def test_options(
    terms: dict[str, Any], scene: Scene, tools: Tools, has: str | None, lacks: str | None
) -> None:
    arguments = build(terms, scene, tools).arguments
    assert has is None or has in arguments
    assert lacks not in arguments


def test_what_is_not_kept_is_said() -> None:
    assert build().short == ()
    made = build(tools=replace(TOOLS, filtered=False, machine="riscv64", version=(0, 6, 1)))
    assert made.short == (
        "system calls are not filtered: there is no filter for riscv64",
        "the size of /tmp is not bounded: bubblewrap 0.6.1 cannot do that, 0.7.0 can",
    )


def test_names_are_found_where_resolv_conf_lies_in_run() -> None:
    resolver = Spot("/run/systemd/resolve/stub-resolv.conf", "file", ("/etc/resolv.conf",))
    links = {"/etc/resolv.conf": resolver}
    assert deeds(build(links=links))["/run/systemd/resolve"] == "read"
    assert "/run/systemd/resolve" not in deeds(build({"network": "off"}, links=links))


def test_the_environment_is_an_allow_list_of_what_is_inherited() -> None:
    env = {
        "PATH": "/bin",
        "HOME": "/h",
        "LC_ALL": "C",
        "AWS_KEY": "k",
        "AWS_REGION": "r",
        "SECRET": "s",
    }
    assert allowed(None, env) == env
    assert set(allowed([], env)) == {"PATH", "HOME", "LC_ALL"}
    assert set(allowed(["AWS_R*"], env)) == {"PATH", "HOME", "LC_ALL", "AWS_REGION"}


PLACES = st.sampled_from(
    [".", "conf", "conf/key", "~", "~/.ssh", "/srv/other", "/tmp", "/", "midwatch.yaml"]
)


@given(
    write=st.lists(PLACES, max_size=4),
    read=st.lists(PLACES, max_size=4),
    hide=st.lists(PLACES, max_size=4),
)
def test_whatever_the_terms_say_midwatchs_data_stays_hidden(
    write: list[str], read: list[str], hide: list[str]
) -> None:
    made = build(
        {"write": write, "read": read, "hide": hide},
        replace(SCENE, guarded=("/srv/fleet/midwatch.yaml",)),
    )
    found = {m.path: m.deed for m in made.mounts}

    def effect(path: str) -> Deed:
        return found[max((p for p in found if inside(path, p)), key=len)]

    assert effect("/d/token") is Deed.HIDE
    assert effect("/d/spool/inbox/1") is Deed.WRITE
    assert effect("/d/spool/other") is Deed.HIDE
    assert effect("/srv/fleet/midwatch.yaml") is not Deed.WRITE
    if "~/.ssh" not in {*write, *read}:
        assert effect("/home/u/.ssh/id") is Deed.HIDE
    assert [*made.arguments].count("--tmpfs") == len(
        {made.arguments[i + 1] for i, a in enumerate(made.arguments) if a == "--tmpfs"}
    )


@pytest.mark.parametrize(
    ("said", "here", "why"),
    [
        (
            "bwrap: setting up uid map: Permission denied",
            Circumstances({APPARMOR: "1"}),
            f"AppArmor forbids it to users: give bwrap a profile with `userns,`, or sysctl {APPARMOR}=0",
        ),
        (
            "bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted",
            Circumstances({APPARMOR: "1"}),
            "AppArmor forbids",
        ),
        (
            "bwrap: No permissions to create a new namespace, likely because the kernel does not allow non-privileged user namespaces.",
            Circumstances({CLONE: "0"}),
            f"sysctl {CLONE}=1",
        ),
        (
            "bwrap: Creating new namespace failed: No space left on device",
            Circumstances({MOST: "0"}),
            f"sysctl {MOST}=10000",
        ),
        (
            "bwrap: Creating new namespace failed: Operation not permitted",
            Circumstances({}, container=True, root=True),
            "--security-opt seccomp=unconfined",
        ),
        (
            "bwrap: Can't mount proc on /newroot/proc: Operation not permitted",
            Circumstances({}, container=True),
            "systempaths=unconfined",
        ),
        (
            "it took longer than 5 s",
            Circumstances({}),
            "does not work here (it took longer than 5 s)",
        ),
        ("", Circumstances({}), "it said nothing"),
    ],
    ids=["apparmor", "loopback", "clone", "none", "docker", "proc", "slow", "silent"],
)
def test_why_walls_cannot_be_built_says_what_to_do(
    said: str, here: Circumstances, why: str
) -> None:
    assert why in explain(said, here)
