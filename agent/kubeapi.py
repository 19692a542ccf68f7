"""Pods as an API server of Kubernetes tells of them: a list, then every change of it.

The protocol: https://kubernetes.io/docs/reference/using-api/api-concepts/ (resource versions, chunks of a list, watch,
bookmarks, 410 Gone). Token and authority are read again for each request, since both are exchanged while pods run.
"""

from __future__ import annotations

import json
import os
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from agent.access import Access, KeyWantedError
from base.errors import ServescopeError
from base.redact import redacted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

EVERY_NAMESPACE: Final = "*"
IN_CLUSTER: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds token, authority and its own namespace."""
WATCH_SECONDS: Final = 240
"""When the server is asked to end a watch: by then a new token is used, and a dead connection noticed."""
_SPARE_SECONDS: Final = 15.0
_LIST_SECONDS: Final = 30.0
_CONNECT_SECONDS: Final = 10.0
_PODS_A_PAGE: Final = 100
_PAGES: Final = 1000
_PAGE_BYTES: Final = 64 << 20
_LINE_BYTES: Final = 4 << 20
"""More than etcd takes of one object (1.5 MiB)."""
_STATUS_BYTES: Final = 65_536
_TOLD: Final = 300
_GONE: Final = 410

Json = dict[str, Any]


class ApiError(ServescopeError):
    """The API server did not tell what it was asked."""


class AnewError(ApiError):
    """The version that was asked from leads no further: the list has to be read anew."""


class GoneError(AnewError):
    """It is too old (410), which is no fault."""


class GarbageError(AnewError):
    """What came is not what an API server sends."""


@dataclass(frozen=True, slots=True)
class Query:
    """Which pods.

    Args:
        namespace: Theirs; `EVERY_NAMESPACE` for all.
        labels: Label selector.
        fields: Field selector.
    """

    namespace: str
    labels: str = ""
    fields: str = ""

    @property
    def path(self) -> str:
        """Of the collection."""
        within = "" if self.namespace == EVERY_NAMESPACE else f"/namespaces/{quote(self.namespace, safe='')}"
        return f"/api/v1{within}/pods"

    @property
    def where(self) -> str:
        """In words."""
        return "all namespaces" if self.namespace == EVERY_NAMESPACE else f"the namespace {self.namespace}"

    def parameters(self, more: Mapping[str, str]) -> dict[str, str]:
        """Of the request, ``more`` beside the selectors."""
        chosen = {"labelSelector": self.labels, "fieldSelector": self.fields}
        return {**{name: value for name, value in chosen.items() if value}, **more}


class PodApi:
    """An API server.

    Args:
        url: Its base URL; empty: that of the cluster in which this process runs, by ``KUBERNETES_SERVICE_HOST``.
        token_file: File with a bearer token; None: none is sent, but for the cluster's own server that of this pod.
        ca_file: Authorities that its certificate is checked by; None: the system's, for the cluster's own this pod's.
        account: Folder in which a pod finds its own.
    """

    def __init__(
        self, url: str = "", token_file: Path | None = None, ca_file: Path | None = None, account: Path = IN_CLUSTER
    ) -> None:
        self._url, self._account = url.rstrip("/"), account
        self._token = Access(token_file or (None if url else account / "token"))
        self._authorities = ca_file or (None if url else account / "ca.crt")

    def own_namespace(self) -> str:
        """The namespace of this process's pod.

        Raises:
            ApiError: It runs in none.
        """
        try:
            name = (self._account / "namespace").read_text(encoding="utf-8")[:_STATUS_BYTES].strip()
        except (OSError, UnicodeDecodeError):
            name = ""
        if not name:
            raise ApiError("this agent has no service account that names a namespace", "Give namespaces")
        return name

    @staticmethod
    def session() -> aiohttp.ClientSession:
        """One that can read the longest line of a watch; close it."""
        return aiohttp.ClientSession(read_bufsize=_LINE_BYTES // 2, cookie_jar=aiohttp.DummyCookieJar())

    async def pods(self, session: aiohttp.ClientSession, query: Query) -> tuple[list[object], str]:
        """All pods as they came, not looked at, and the version from which their changes can be watched.

        Raises:
            ApiError: They can't be had.
        """
        found: list[object] = []
        more: dict[str, str] = {}
        for _ in range(_PAGES):
            page = await self._page(session, query, {"limit": str(_PODS_A_PAGE), **more})
            items, about = page.get("items"), page.get("metadata")
            items = [] if items is None else items
            if not isinstance(items, list) or not isinstance(about, dict):
                raise GarbageError("the API server's answer is no list of pods", "Check what api leads to")
            found += items
            following, version = about.get("continue"), about.get("resourceVersion")
            if not following:
                if not isinstance(version, str) or not version:
                    raise GarbageError("the API server's list has no resourceVersion", "Check what api leads to")
                return found, version
            more = {"continue": str(following)}
        raise ApiError(f"the list of pods in {query.where} has no end", "Narrow it by selector or namespaces")

    async def _page(self, session: aiohttp.ClientSession, query: Query, more: Mapping[str, str]) -> Json:
        timeout = aiohttp.ClientTimeout(total=_LIST_SECONDS, connect=_CONNECT_SECONDS)
        async with self._asked(session, query, "list", more, timeout) as reply:
            try:
                body = await _bounded(reply, _PAGE_BYTES)
            except _BROKEN as error:
                raise _broken(error) from None
        try:
            page = json.loads(body)
        except (ValueError, RecursionError):
            page = None
        if not isinstance(page, dict):
            raise GarbageError("the API server's answer is no JSON object", "Check what api leads to")
        return page

    @asynccontextmanager
    async def watch(
        self, session: aiohttp.ClientSession, query: Query, version: str
    ) -> AsyncIterator[AsyncIterator[tuple[str, Json]]]:
        """Changes since a version: each its type (``ADDED``, ``MODIFIED``, ``DELETED``, ``BOOKMARK``) and its object.

        They end when the server ends them, which is no fault.

        Raises:
            GoneError: The version is too old; also while they are read.
            AnewError: The server ended it with an error, or what came is no event.
            ApiError: They can't be had, or the connection broke.
        """
        asked = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        timeout = aiohttp.ClientTimeout(total=WATCH_SECONDS + _SPARE_SECONDS, connect=_CONNECT_SECONDS)
        async with self._asked(session, query, "watch", asked, timeout) as reply:
            yield _events(reply, query)

    @asynccontextmanager
    async def _asked(
        self,
        session: aiohttp.ClientSession,
        query: Query,
        verb: str,
        more: Mapping[str, str],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's, of the whole exchange
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        url = self._base() + query.path
        try:
            headers = {"accept": "application/json", **self._token.headers()}
            reply = await session.get(
                url,
                params=query.parameters(more),
                headers=headers,
                ssl=self._checked_by(),
                timeout=timeout,
                allow_redirects=False,
            )
        except KeyWantedError:
            raise ApiError(
                "the token of the service account can't be read",
                "Name it by token_file, or let the pod have it (automountServiceAccountToken)",
            ) from None
        except _BROKEN as error:
            raise _broken(error) from None
        try:
            if reply.status != 200:  # noqa: PLR2004 - HTTP
                raise await self._refused(reply, query, verb)
            yield reply
        finally:
            reply.close()

    def _base(self) -> str:
        host, port = (os.environ.get(f"KUBERNETES_SERVICE_{name}", "") for name in ("HOST", "PORT"))
        if not self._url and not host:
            raise ApiError("this agent does not run in a pod: KUBERNETES_SERVICE_HOST is not set", "Give api")
        return self._url or f"https://{f'[{host}]' if ':' in host else host}:{port or 443}"

    def _checked_by(self) -> ssl.SSLContext:
        if self._authorities is None:
            return ssl.create_default_context()
        try:
            return ssl.create_default_context(cafile=self._authorities)
        except OSError as error:
            why = error.strerror or "it holds no certificate"
            raise ApiError(f"the authorities in {self._authorities} can't be read: {why}", "Check ca_file") from None

    async def _refused(self, reply: aiohttp.ClientResponse, query: Query, verb: str) -> ApiError:
        try:
            told = json.loads(await _bounded(reply, _STATUS_BYTES))
        except (*_BROKEN, ValueError, RecursionError, ApiError):
            told = None
        said = _said(told)
        what = f"the API server answers {reply.status}{f': {said}' if said else ''}"
        if reply.status == _GONE:
            return GoneError(what, "The list is read anew")
        if reply.status == 401:  # noqa: PLR2004 - HTTP
            return ApiError(what, "Give a token that it knows: token_file, or the pod's service account")
        if reply.status == 403:  # noqa: PLR2004 - HTTP
            every = query.namespace == EVERY_NAMESPACE
            role = "ClusterRole and ClusterRoleBinding" if every else "Role and RoleBinding"
            return ApiError(
                what,
                f"Its service account may not {verb} pods in {query.where}: give it a {role} with the verbs get, list "
                'and watch on pods of the API group ""',
            )
        return ApiError(what, "It is asked again")


async def _events(reply: aiohttp.ClientResponse, query: Query) -> AsyncIterator[tuple[str, Json]]:
    while True:
        try:
            line = await reply.content.readline()
        except _BROKEN as error:
            raise _broken(error) from None
        except (ValueError, HttpProcessingError):
            raise GarbageError(f"a line of the watch is longer than {_LINE_BYTES} bytes", "Check api") from None
        if not line:
            return
        if line.strip():
            yield _event(line, query)


def _event(line: bytes, query: Query) -> tuple[str, Json]:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        event = None
    kind = event.get("type") if isinstance(event, dict) else None
    body = event.get("object") if isinstance(event, dict) else None
    if not isinstance(kind, str) or not isinstance(body, dict):
        raise GarbageError("a line of the watch is no event", "Check what api leads to")
    if kind == "ERROR":
        what = f"the watch of pods in {query.where} ended: {_said(body) or 'no reason given'}"
        raise (GoneError if body.get("code") == _GONE else AnewError)(what, "The list is read anew")
    return kind, body


async def _bounded(reply: aiohttp.ClientResponse, most: int) -> bytes:
    body = bytearray()
    async for part in reply.content.iter_any():
        body += part
        if len(body) > most:
            raise GarbageError(f"the API server's answer is longer than {most} bytes", "Check what api leads to")
    return bytes(body)


def _said(status: object) -> str:
    message = status.get("message") if isinstance(status, dict) else None
    return redacted(message)[:_TOLD] if isinstance(message, str) else ""


_BROKEN: Final = (aiohttp.ClientError, TimeoutError, OSError)
"""What may come of a connection; a TimeoutError and an ssl.SSLError are an OSError too."""


def _broken(error: Exception) -> ApiError:
    said = redacted(str(error))[:_TOLD]
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return ApiError(f"the API server's certificate is not to be trusted: {said}", "Give its authority by ca_file")
    if isinstance(error, TimeoutError):
        return ApiError("the API server does not answer in time", "Check that api can be reached from here")
    return ApiError(f"the connection to the API server broke: {said or type(error).__name__}", "It is asked again")
