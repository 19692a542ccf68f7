"""What went wrong, as ClickHouse and its driver say it."""

from __future__ import annotations

import re


def plain(text: str) -> str:
    """The same without the driver's and the server's wrapping."""
    text = re.sub(r"^.*?Code: \d+\. (?:DB::Exception: )?", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r"\s*\(version [^()]*(?:\([^()]*\))?[^()]*\).*$", "", text, flags=re.DOTALL)
    return re.sub(r"\s*\([A-Z][A-Z0-9_]+\)\s*$", "", text).strip()
