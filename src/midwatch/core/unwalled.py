"""Why walls cannot be built on a machine, and what a person can do about it. Pure.

bubblewrap says in the kernel's words what failed; the reason behind it is a setting or a container.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

INSTALL: Final = "install it: apt install bubblewrap, dnf install bubblewrap or apk add bubblewrap"

APPARMOR: Final = "kernel.apparmor_restrict_unprivileged_userns"
CLONE: Final = "kernel.unprivileged_userns_clone"
MOST: Final = "user.max_user_namespaces"
SETTINGS: Final = (APPARMOR, CLONE, MOST)
"""What is read of /proc/sys to find the reason."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is known of a machine where bubblewrap failed."""

    settings: dict[str, str]
    container: bool = False
    root: bool = False


_NAMESPACE: Final = re.compile(
    r"(?i)namespace|uid map|gid map|setting up ?uid|RTM_NEWADDR|No permissions|capabilit|clone"
)
_MOUNT: Final = re.compile(r"(?i)mount|pivot_root|remount|newroot")


def explain(said: str, here: Circumstances) -> str:
    """Return why bubblewrap failed and what to do, from what it said."""
    line = next((text for text in reversed(said.splitlines()) if text.strip()), "")
    words = line.removeprefix("bwrap: ").strip()[:200] or "it said nothing"
    if _NAMESPACE.search(words):
        return f"bubblewrap may not make namespaces here ({words}); {_namespaces(here)}"
    if _MOUNT.search(words):
        return f"bubblewrap may not mount here ({words}); {_mounts(here)}"
    return f"bubblewrap does not work here ({words}); try: bwrap --ro-bind / / --unshare-all true"


def _namespaces(here: Circumstances) -> str:
    if here.settings.get(MOST) == "0":
        return f"allow them: sysctl {MOST}=10000"
    if here.container:
        return _IN_CONTAINER
    if here.settings.get(APPARMOR) == "1" and not here.root:
        return f"AppArmor forbids it to users: give bwrap a profile with `userns,`, or sysctl {APPARMOR}=0"
    if here.settings.get(CLONE) == "0" and not here.root:
        return f"allow them to users: sysctl {CLONE}=1"
    return "look for what forbids them: sysctl -a | grep userns"


def _mounts(here: Circumstances) -> str:
    return (
        _IN_CONTAINER if here.container else "look for what forbids it in the kernel's log: dmesg"
    )


_IN_CONTAINER: Final = (
    "in a container that takes --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
    " --security-opt systempaths=unconfined, or let the container be the wall, one agent in each"
)
