"""The embedded store's sign of life: that the engine answers and takes whoever asks, without a statement of his own."""

from __future__ import annotations

from typing import Any, Final

PATH: Final = "/alive"
WORD: Final = "alive\n"


def ask(client: Any, url: str) -> str | None:
    """Ask for it; "" where it came, None where who answers knows of none and has to be asked by a statement.

    Args:
        client: The driver's client, whose connections and credentials are used.
        url: Of the store.

    Returns:
        Else what it said instead.

    Raises:
        HTTPError: urllib3's: it does not answer.
    """
    answer = client.http.request("GET", f"{url}{PATH}", headers=client.headers, timeout=client.timeout, retries=False)
    text: str = answer.data.decode(errors="replace")
    if answer.status == 200:  # noqa: PLR2004
        return "" if text == WORD else None
    return text if "X-ClickHouse-Exception-Code" in answer.headers else None
