"""What a path means: a route of low cardinality, an operation, and – where the path says so – the model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"})
_MAX_NAME: Final = 256
OTHER_ROUTE: Final = "/*"

_OPERATIONS: Final = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "text_completion",
    "/v1/responses": "chat",
    "/v1/messages": "chat",
    "/v1/embeddings": "embeddings",
    "/v1/rerank": "rerank",
    "/v2/rerank": "rerank",
    "/rerank": "rerank",
    "/v1/score": "score",
    "/score": "score",
    "/classify": "classify",
    "/pooling": "pooling",
    "/v1/moderations": "moderation",
    "/v1/audio/transcriptions": "transcription",
    "/v1/audio/translations": "translation",
    "/v1/audio/speech": "speech",
    "/v1/images/generations": "image_generation",
    "/v1/realtime": "realtime",
    "/tokenize": "tokenize",
    "/detokenize": "detokenize",
    "/invocations": "invocation",
    "/generate": "text_completion",
    "/generate_stream": "text_completion",
    "/chat/completions": "chat",
    "/completions": "text_completion",
    "/completion": "text_completion",
    "/infill": "text_completion",
    "/embeddings": "embeddings",
    "/embedding": "embeddings",
    "/v1/models": "",
    "/v2": "",
    "/v2/repository/index": "",
    "/v2/models/stats": "",
    "/v2/trace/setting": "",
    "/v2/logging": "",
    "/version": "",
    "/props": "",
    "/slots": "",
}
_PROBES: Final = frozenset(
    {"/health", "/healthz", "/livez", "/readyz", "/ping", "/metrics", "/v2/health/live", "/v2/health/ready"}
)
_KSERVE_V2: Final = re.compile(r"/v2/models/([^/]+)(/versions/[^/]+)?(?:/([a-z_/]+))?")
_KSERVE_V1: Final = re.compile(r"/v1/models/([^/:]+(?:/[^/:]+)?)(:predict|:explain)?")
_KSERVE_ACTIONS: Final = {
    "infer": "infer",
    "generate": "generate",
    "generate_stream": "generate",
    "ready": "",
    "config": "",
    "stats": "",
    "trace/setting": "",
}


@dataclass(frozen=True, slots=True)
class Route:
    """What a request line says.

    Attributes:
        method: The method, ``_OTHER`` for one that isn't registered (OpenTelemetry's word).
        template: The path with names taken out; ``/*`` for a path that no table knows.
        operation: What is asked of the model; empty for anything else.
        model: The model that the path names, or empty.
        reads_json: Whether the body's JSON names the model.
        probe: A liveness, readiness or metrics probe, not somebody's request.
    """

    method: str
    template: str
    operation: str = ""
    model: str = ""
    reads_json: bool = False
    probe: bool = False


def find_route(method: bytes, path: str) -> Route:
    """Route of a request: ``method`` as sent, ``path`` without query."""
    name = method.decode("ascii", "replace")
    name = name if name in _METHODS else "_OTHER"
    path = path.rstrip("/") or "/"
    reads = name in {"GET", "HEAD"}
    operation = _OPERATIONS.get(path)
    if operation is not None:
        return Route(name, path, operation, reads_json=bool(operation))
    if path in _PROBES:
        return Route(name, path, probe=reads)
    if (match := _KSERVE_V2.fullmatch(path)) is not None:
        action = match[3] or ""
        if action == "" or action in _KSERVE_ACTIONS:
            version = "/versions/{version}" if match[2] else ""
            template = "/v2/models/{model}" + version + (f"/{action}" if action else "")
            model = unquote(match[1])[:_MAX_NAME]
            probe = reads and action == "ready"
            return Route(name, template, _KSERVE_ACTIONS.get(action, ""), model, probe=probe)
    if (match := _KSERVE_V1.fullmatch(path)) is not None:
        action = match[2] or ""
        model = unquote(match[1])[:_MAX_NAME]
        return Route(name, "/v1/models/{model}" + action, "infer" if action else "", model)
    return Route(name, OTHER_ROUTE, reads_json=True)
