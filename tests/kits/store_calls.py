"""Plain HTTP calls to an embedded store, with headers and bytes as they came."""

from __future__ import annotations

import base64
import http.client
import urllib.parse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.kits.store_process import StoreServer


class Answer:
    """An answer; ``broken`` where its end never came."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes, *, broken: bool = False) -> None:
        self.status, self.headers, self.body, self.broken = status, headers, body, broken

    @property
    def text(self) -> str:
        return self.body.decode()


def call(
    server: StoreServer,
    body: bytes | str = b"",
    *,
    owner: bool = True,
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
    path: str = "/",
    **query: str | int,
) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=90)
    sent = dict(headers or {})
    if owner:
        secret = base64.b64encode(f"owner:{server.owner_password}".encode()).decode()
        sent.setdefault("Authorization", f"Basic {secret}")
    data = body.encode() if isinstance(body, str) else body
    try:
        connection.request(method, f"{path}?{urllib.parse.urlencode(query)}", data or None, sent)
        answer = connection.getresponse()
        try:
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        except http.client.IncompleteRead as part:
            return Answer(answer.status, dict(answer.getheaders()), part.partial, broken=True)
    finally:
        connection.close()
