"""What the flows show in Prefect's pages."""

from __future__ import annotations

from flows.artifacts import _failure


def test_an_offending_row_is_shown_as_text() -> None:
    row = {"id": "a|b\nc", "text": "![x](http://host/y) <img> `q` *b* _i_ &amp; \\"}
    violated = {"name": "expect_one", "table": "steps", "column": "id", "meaning": "one", "observed": None}
    shown = _failure("steps", [{**violated, "rows": [row], "violations": 1, "of": 2}])
    assert shown.splitlines()[-3:] == [
        "| id | text |",
        "|---|---|",
        r"| a\|b c | \!\[x\](http://host/y) &lt;img> \`q\` \*b\* \_i\_ &amp;amp; \\ |",
    ]
