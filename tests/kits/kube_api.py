"""An API server of Kubernetes on loopback, over TLS: it tells of pods by the real wire, and fails as it is told."""

from __future__ import annotations

import asyncio
import copy
import json
import ssl
from typing import TYPE_CHECKING, Any, Self

import trustme
from aiohttp import web

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "eyJhbGciOiJSUzI1NiJ9.first.of-many"
Body = dict[str, Any]


def pod(name: str, ip: str = "10.4.1.7", namespace: str = "models", **more: Any) -> Body:
    """A pod as a Deployment's is, annotated; ``more`` are annotations (``port``), labels, status and metadata."""
    hashed = "5d9f8c7b6d"
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"chat-{hashed}", "uid": "r", "controller": True}
    ports = more.get("ports", [{"containerPort": 8000, "name": "http"}])
    told = {"prometheus.io/scrape": "true", "prometheus.io/port": "8000"} | more.get("annotations", {})
    return {
        "metadata": {
            "name": name,
            "generateName": f"chat-{hashed}-",
            "namespace": namespace,
            "uid": f"uid-{namespace}-{name}",
            "creationTimestamp": "2026-05-01T10:00:00Z",
            "labels": {"app": "vllm", "pod-template-hash": hashed} | more.get("labels", {}),
            "annotations": {key: value for key, value in told.items() if value is not None},
            "ownerReferences": [owner],
            "managedFields": [{"manager": "kubelet", "operation": "Update", "fieldsV1": {"f:status": {}}}],
        }
        | more.get("metadata", {}),
        "spec": {
            "nodeName": "gpu-7",
            "containers": [{"name": "server", "image": "vllm", "ports": ports}],
        },
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]} | more.get("status", {}),
    }


class KubeApi:
    """``async with KubeApi(folder) as api``: listens at ``api.url``; its authority is ``api.ca_file``.

    Attributes:
        asked: Path and query of each request that was let in.
        tokens: Bearer tokens that are taken.
        refuse: Status to answer with, by verb (``list``, ``watch``), and the message of it.
        oldest: Versions below it are gone: 410, as a list's answer or as an ERROR of the watch.
        page: Pods of one answer at most, whatever limit is asked for.
        raw: What a list answers instead of pods.
    """

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.ca_file, self.token_file = folder / "ca.crt", folder / "token"
        authority.cert_pem.write_to_path(self.ca_file)
        self.token_file.write_text(TOKEN)
        (folder / "namespace").write_text("models\n")
        self.account = folder
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(self._tls)
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.tokens = {TOKEN}
        self.refuse: dict[str, tuple[int, str]] = {}
        self.oldest = 0
        self.page = 500
        self.raw: bytes | None = None
        self.version = 100
        self._pods: dict[str, Body] = {}
        self._history: list[tuple[int, str, Body]] = []
        self._watches: dict[asyncio.Queue[bytes | None], web.Request] = {}

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/api/v1/pods", self._answer)
        app.router.add_get("/api/v1/namespaces/{namespace}/pods", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls).start()
        self.url = f"https://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.end()
        await self._runner.cleanup()

    def verbs(self) -> list[str]:
        """``list`` or ``watch`` of each request."""
        return ["watch" if "watch" in query else "list" for _, query in self.asked]

    @property
    def watched(self) -> int:
        """Watches that are open."""
        return len(self._watches)

    def put(self, body: Body) -> None:
        """A pod is there, or is changed."""
        uid = body["metadata"]["uid"]
        self._happened("MODIFIED" if uid in self._pods else "ADDED", body)
        self._pods[uid] = body

    def delete(self, name: str, namespace: str = "models") -> None:
        self._happened("DELETED", self._pods.pop(f"uid-{namespace}-{name}"))

    def quietly(self, *bodies: Body) -> None:
        """These are all pods; no watch is told, as while it was cut."""
        self.version += 1
        self._pods = {body["metadata"]["uid"]: body for body in bodies}

    def bookmark(self) -> None:
        self.version += 10
        about = {"resourceVersion": str(self.version), "creationTimestamp": None}
        self.say({"type": "BOOKMARK", "object": {"kind": "Pod", "apiVersion": "v1", "metadata": about}})

    def expire(self) -> None:
        """What was watched from is too old: each watch is told, as an API server does."""
        self.version += 1
        self.oldest = self.version
        self.say(_gone())
        self.end()

    def say(self, event: Body | bytes) -> None:
        """Send a line, whatever it is, to all watches."""
        line = event if isinstance(event, bytes) else json.dumps(event).encode() + b"\n"
        for queue in self._watches:
            queue.put_nowait(line)

    def end(self) -> None:
        """Each watch ends as at its timeout."""
        for queue in self._watches:
            queue.put_nowait(None)

    def cut(self) -> None:
        """Each watch's connection breaks."""
        for request in self._watches.values():
            assert request.transport is not None
            request.transport.abort()

    def _happened(self, kind: str, body: Body) -> None:
        self.version += 1
        seen = copy.deepcopy(body)
        seen["metadata"]["resourceVersion"] = str(self.version)
        self._history.append((self.version, kind, seen))
        self.say({"type": kind, "object": {"kind": "Pod", "apiVersion": "v1", **seen}})

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        query = dict(request.query)
        verb = "watch" if "watch" in query else "list"
        if request.headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
            return _status(401, "Unauthorized")
        self.asked.append((request.path, query))
        if verb in self.refuse:
            return _status(*self.refuse[verb])
        namespace = request.match_info.get("namespace")
        if verb == "watch":
            return await self._watch(request, namespace)
        if self.raw is not None:
            return web.Response(body=self.raw, content_type="application/json")
        return self._list(query, namespace)

    def _list(self, query: dict[str, str], namespace: str | None) -> web.Response:
        begin, version = (int(part) for part in query.get("continue", f"0:{self.version}").split(":"))
        if version < self.oldest:
            return _status(410, "The provided continue parameter is too old")
        there = [one for one in self._pods.values() if namespace in {None, one["metadata"]["namespace"]}]
        upto = begin + min(self.page, int(query["limit"]))
        about = {"resourceVersion": str(version)}
        if upto < len(there):
            about |= {"continue": f"{upto}:{version}"}
        return web.json_response({"kind": "PodList", "apiVersion": "v1", "metadata": about, "items": there[begin:upto]})

    async def _watch(self, request: web.Request, namespace: str | None) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        since = int(request.query["resourceVersion"])
        if since < self.oldest:
            await response.write(json.dumps(_gone()).encode() + b"\n")
            return response
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        for version, kind, body in self._history:
            if version > since:
                queue.put_nowait(json.dumps({"type": kind, "object": body}).encode() + b"\n")
        self._watches[queue] = request
        try:
            while (line := await queue.get()) is not None:
                if namespace is None or b'"namespace": "' not in line or f'"namespace": "{namespace}"'.encode() in line:
                    await response.write(line)
        finally:
            del self._watches[queue]
        return response


def _gone() -> Body:
    status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Expired",
              "message": "too old resource version: 7 (9)", "code": 410}  # fmt: skip
    return {"type": "ERROR", "object": status}


def _status(code: int, message: str) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "code": code}
    return web.json_response(body, status=code)
