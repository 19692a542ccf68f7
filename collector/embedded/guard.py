"""What may run: for everyone one statement a request, for a reader only what can't reach beyond the tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from collector.embedded.errors import SYNTAX_ERROR, refused
from collector.embedded.statement import output_clause

if TYPE_CHECKING:
    from collector.embedded.engine import Handle
    from collector.embedded.request import Ask, Plan


def admit(handle: Handle, ask: Ask, plan: Plan) -> tuple[str | None, bool]:
    """Check a statement and tell its answer's format (None: no result set) and whether it writes.

    Raises:
        QueryError: Refused.
    """
    if plan.insert is not None:
        return None, True
    kind, count = handle.classify(plan.sql)
    if count > 1:
        raise refused(SYNTAX_ERROR, "SYNTAX_ERROR", "Syntax error (Multi-statements are not allowed)")
    if kind == "READ_ONLY" and count == 1:
        _, form = output_clause(plan.sql)
        return form or ask.default_format, False
    return None, kind == "MUTATING"
