"""The process in which one query of a stranger runs, and ends. A program of its own: it imports nothing of ours.

It reads one line (what is asked, which tables there are, limits), says which of them the query reads and by which
names, is given the views and the files they read, and answers in lines. Three walls stand around it, each of which
would be enough: the statement must be one SELECT over those tables alone, by its parsed form; DuckDB reads only the
files that it was given, with its configuration locked; and the process has bounds of memory and of processor time,
because some functions (`repeat`) heed neither an interrupt nor DuckDB's own limit of memory.
"""

from __future__ import annotations

import contextlib
import json
import re
import resource
import signal
import sys
from pathlib import Path
from typing import Any, cast

import duckdb

# what reads a table in another way than by its name
TABLE_FUNCTIONS = frozenset({"range", "generate_series", "unnest", "repeat_row"})
# what tells of the machine, of the configuration or of the catalogue
FORBIDDEN = frozenset(
    {"current_setting", "getenv", "getvariable", "write_log", "nextval", "currval", "set_config", "query", "query_table",
     "json_serialize_plan"}
)  # fmt: skip
OWN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
REFERENCES = frozenset(
    {"BASE_TABLE", "SUBQUERY", "JOIN", "TABLE_FUNCTION", "EXPRESSION_LIST", "EMPTY", "EMPTY_FROM", "CTE", "PIVOT", "COLUMN_DATA"}
)  # fmt: skip
OVERHEAD_BYTES = 96 * 1024 * 1024
CHUNK = 512


class Refused(Exception):
    """The query is none that is answered."""


def say(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def hear() -> dict[str, Any]:
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)  # nobody asks any more
    return cast("dict[str, Any]", json.loads(line))


def reads(base: duckdb.DuckDBPyConnection, text: str, tables: list[str]) -> dict[str, Any]:
    """Return the tables and the names that a query uses. Raises Refused."""
    statements = base.extract_statements(text)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise Refused("expected one SELECT; nothing else is answered")
    row = base.execute("SELECT json_serialize_sql(?::VARCHAR)", [text]).fetchone()
    parsed: dict[str, Any] = json.loads(row[0]) if row else {"error": True}
    if parsed.get("error"):
        raise Refused(f"expected one SELECT: {parsed.get('error_message')}")
    found: dict[str, Any] = {
        "tables": set(),
        "names": set(),
        "star": False,
        "alone": set(),
        "aliases": set(),
    }
    own: set[str] = set()
    asked: set[str] = set()
    waiting: list[object] = [parsed]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting += cast("list[object]", one)
        elif isinstance(one, dict):
            part = cast("dict[str, Any]", one)
            _look(part, found, own, asked)
            waiting += part.values()
    known = {name.lower() for name in tables}
    strange = sorted(asked - known - own)
    if strange:
        raise Refused(f"there is no table {strange[0]!r}; there are {', '.join(tables)}")
    _check_own(base, own)
    # a name of the query's own may hide a table of ours: it is read all the same, which costs time and nothing else
    found["tables"] = asked & known
    whole = found.pop("alone") & (found.pop("aliases") | asked)
    found["star"] = found["star"] or bool(whole)
    return {**found, "tables": sorted(found["tables"]), "names": sorted(found["names"])}


def _check_own(base: duckdb.DuckDBPyConnection, own: set[str]) -> None:
    """Refuse names of the query's own that mean something else where the query does not see them: a file, by its
    path, or what DuckDB knows of itself. Raises Refused."""
    known = base.execute(
        "SELECT lower(view_name) FROM duckdb_views() WHERE schema_name <> 'information_schema'"
    ).fetchall()
    for name in sorted(own):
        if OWN_NAME.fullmatch(name) is None or (name,) in known:
            raise Refused(f"WITH {name[:80]!r}: use another name, of letters, digits and _")


def _look(one: dict[str, Any], found: dict[str, Any], own: set[str], asked: set[str]) -> None:
    kind = one.get("type")
    if "table_name" in one and kind == "BASE_TABLE":
        if one.get("schema_name") or one.get("catalog_name"):
            raise Refused("a table is named without a schema or a database")
        asked.add(str(one["table_name"]).lower())
        found["aliases"].add(str(one.get("alias")).lower())
    elif kind == "TABLE_FUNCTION" and "function" in one:
        name = str(one["function"].get("function_name")).lower()
        if name not in TABLE_FUNCTIONS:
            raise Refused(f"the table function {name!r} is not answered")
    elif "query_location" in one and "sample" in one and kind not in REFERENCES:
        raise Refused(f"{kind} is not answered; use a SELECT from the tables")
    if one.get("class") == "FUNCTION":
        name = str(one.get("function_name")).lower()
        if name in FORBIDDEN or name.startswith(("duckdb_", "pragma_", "pg_read", "pg_get")):
            raise Refused(f"the function {name!r} is not answered")
    if one.get("class") == "STAR" or kind == "PIVOT" or one.get("ref_type") == "NATURAL":
        found["star"] = True
    if one.get("class") == "COLUMN_REF":
        names = [str(name).lower() for name in one.get("column_names", ())]
        found["names"].update(names)
        if len(names) == 1:
            # the name of a table alone is all of its columns
            found["alone"].add(names[0])
    if isinstance(one.get("cte_map"), dict):
        own.update(str(entry["key"]).lower() for entry in one["cte_map"].get("map", ()))
    for using in one.get("using_columns") or ():
        found["names"].add(str(using).lower())


def shown(value: object) -> object:
    """Return a value as JSON has it; what it has no form for is text."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if isinstance(value, list | tuple):
        return [shown(one) for one in cast("list[object]", value)]
    if isinstance(value, dict):
        return {str(name): shown(one) for name, one in cast("dict[object, object]", value).items()}
    if isinstance(value, bytes | bytearray):
        return value.hex()
    return str(value)


def answer(base: duckdb.DuckDBPyConnection, text: str, limits: dict[str, Any]) -> None:
    cursor = base.execute(text)
    say(columns=[column[0] for column in cursor.description or ()])
    count = size = 0
    while rows := cursor.fetchmany(CHUNK):
        for row in rows:
            line = json.dumps(shown(row))
            size += len(line)
            if count >= limits["rows"] or size > limits["result_bytes"]:
                say(end="truncated")
                return
            count += 1
            sys.stdout.write(line + "\n")
    say(end="whole")


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def data_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()


def bound(limits: dict[str, Any]) -> None:
    seconds = int(limits["timeout_s"]) + 2
    signal.alarm(seconds)  # whoever started this may be gone
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # elsewhere than on Linux there is no such file, and DuckDB's own limit is what is left
    with contextlib.suppress(OSError, ValueError):
        most = data_bytes() + limits["memory_bytes"] + OVERHEAD_BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def main() -> None:
    asked = hear()
    limits = asked["limits"]
    bound(limits)
    base = duckdb.connect(
        ":memory:",
        config={
            "memory_limit": f"{limits['memory_bytes']}B",
            "threads": 1,
            "temp_directory": "",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "python_enable_replacements": False,
        },
    )
    try:
        say(reads=reads(base, asked["text"], asked["tables"]))
        given = hear()
        base.execute("SET allowed_paths = [" + ", ".join(_quoted(p) for p in given["files"]) + "]")
        for name, view in given["views"].items():
            base.execute(f'CREATE VIEW "{name}" AS {view}')
        base.execute("SET enable_external_access = false")
        base.execute("SET lock_configuration = true")
        answer(base, asked["text"], limits)
    except Refused as why:
        say(refused=str(why))
    except (duckdb.OutOfMemoryException, MemoryError):
        say(refused=f"it needs more memory than {limits['memory_bytes'] >> 20} MiB; ask for less")
    except RecursionError:
        say(refused="it is nested too deeply")
    except duckdb.Error as error:
        say(refused=first_line(error))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


if __name__ == "__main__":
    main()
