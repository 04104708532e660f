"""All drills, found in `drills/failures`: one file each, named after the failure."""

from __future__ import annotations

import importlib
import pkgutil
from difflib import get_close_matches

from midwatch.core.errors import SetupError
from midwatch.drills import failures
from midwatch.drills.drill import Drill


def drills() -> dict[str, Drill]:
    """Return every drill by its name, in the order of the names."""
    found: dict[str, Drill] = {}
    for module in pkgutil.iter_modules(failures.__path__):
        drill = importlib.import_module(f"{failures.__name__}.{module.name}").DRILL
        if not isinstance(drill, Drill) or drill.name.replace("-", "_") != module.name:
            raise SetupError(
                f"drills/failures/{module.name}.py must define DRILL with its own name"
            )
        found[drill.name] = drill
    return found


def choose(names: list[str]) -> list[Drill]:
    """Return the drills with these names. Raises SetupError that names the nearest one."""
    known = drills()
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "see midwatch drill list"
            raise SetupError(f"no drill is called {name!r}; {hint}")
    return [known[name] for name in names]
