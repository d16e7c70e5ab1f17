"""An own tool: SQL over a small SQLite database, read only, with limits on time and rows."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

from swirl.core.errors import ToolError


class StaffDatabase:
    """Answers one SELECT over the staff table. `rows` and `seconds` are set in `tools.options` of params.yaml."""

    name = "sql"
    kind = "sql"
    tag = "sql_query"
    description = "answers one SELECT over table staff: name, office, department, started (a year), manager (a name)"
    output_limit = 400

    def __init__(self, rows: int = 5, seconds: float = 1.0, database: str = "staff.db") -> None:
        """`database` is a file beside this module; `rows` are shown at most, and a query may run `seconds`."""
        self._path = Path(__file__).with_name(database)
        self._rows, self._seconds = rows, seconds
        self.time_limit_s = seconds + 1.0
        if not self._path.is_file():
            raise FileNotFoundError(f"{self._path} does not exist; the staff tool needs it")

    def run(self, query: str) -> str:
        """The rows, cells joined by ", " and rows by "; ". Raises `ToolError` for what is no answerable SELECT."""
        end = time.monotonic() + self._seconds
        connection = sqlite3.connect(f"{self._path.as_uri()}?mode=ro", uri=True)
        try:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 100_000)  # bytes of a value, so that none fills memory
            connection.set_authorizer(_reading_only)
            connection.set_progress_handler(lambda: time.monotonic() > end, 10_000)
            found = connection.execute(query).fetchmany(self._rows + 1)
        except sqlite3.Error as error:
            late = time.monotonic() > end
            raise ToolError(f"the query took longer than {self._seconds:g} s" if late else str(error)) from None
        finally:
            connection.close()
        if not found:
            return "no rows"
        shown = "; ".join(", ".join(map(str, row)) for row in found[: self._rows])
        return f"{shown}; ..." if len(found) > self._rows else shown


_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}


def _reading_only(action: int, first: str | None, second: str | None, *_: object) -> int:
    """Nothing but reading tables; no attached files, no pragmas, no loaded code."""
    loads_code = action == sqlite3.SQLITE_FUNCTION and second == "load_extension"
    return sqlite3.SQLITE_OK if action in _ALLOWED and not loads_code else sqlite3.SQLITE_DENY
