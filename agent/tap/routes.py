"""What a path means: a route of low cardinality, an operation, and – where the path says so – the model.

Operations are OpenTelemetry's GenAI operation names where one exists (``chat``, ``text_completion``, ``embeddings``,
``generate_content``), else words of the same style. What runs no model – lists, tokenizers, preflights – has none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"})
_MAX_NAME: Final = 256
_MAX_KEPT: Final = 128
_MAX_PATH: Final = 1_024
"""A longer path is no route: looking for one must not cost more than the request."""
OTHER_ROUTE: Final = "/*"
REALTIME: Final = "realtime"
"""Operation of a WebSocket session: it has neither a time to first token nor a latency."""

_OPENAI: Final = {
    "chat/completions": "chat",
    "completions": "text_completion",
    "responses": "chat",
    "embeddings": "embeddings",
    "moderations": "moderation",
    "audio/transcriptions": "transcription",
    "audio/translations": "translation",
    "audio/speech": "speech",
    "images/generations": "image_generation",
    "images/edits": "image_generation",
    "images/variations": "image_generation",
    "messages": "chat",
    "chat": "chat",
    "rerank": "rerank",
    "reranking": "rerank",
    "score": "score",
    "classify": "classify",
}
"""By the end of the path after a version, whatever the version: ``/v1/…``, ``/openai/v1/…``, ``/v3/…``."""
_AZURE: Final = frozenset(ending for ending in _OPENAI if "/" in ending) | {"completions", "embeddings", "responses"}
"""What a path without a version may end in: ``/openai/deployments/NAME/chat/completions``."""
_OPERATIONS: Final = {
    **{f"/v1/{ending}": operation for ending, operation in _OPENAI.items()},
    "/v2/chat": "chat",
    "/v2/rerank": "rerank",
    "/v1/infill": "text_completion",
    "/inference/v1/generate": "text_completion",
    "/chat/completions": "chat",
    "/completions": "text_completion",
    "/completion": "text_completion",
    "/infill": "text_completion",
    "/responses": "chat",
    "/generate": "text_completion",
    "/generate_stream": "text_completion",
    "/embeddings": "embeddings",
    "/embedding": "embeddings",
    "/embed": "embeddings",
    "/embed_all": "embeddings",
    "/embed_sparse": "embeddings",
    "/encode": "embeddings",
    "/pooling": "pooling",
    "/rerank": "rerank",
    "/reranking": "rerank",
    "/score": "score",
    "/similarity": "score",
    "/classify": "classify",
    "/predict": "classify",
    "/invocations": "inference",
    "/vertex_generate": "text_completion",
    "/api/chat": "chat",
    "/api/generate": "text_completion",
    "/api/embed": "embeddings",
    "/api/embeddings": "embeddings",
}
_KNOWN: Final = frozenset(
    {
        "/v1/models",
        "/v1/realtime",
        "/v1/messages/count_tokens",
        "/tokenize",
        "/detokenize",
        "/v2",
        "/v2/repository/index",
        "/v2/models/stats",
        "/v2/trace/setting",
        "/v2/logging",
        "/version",
        "/props",
        "/slots",
    }
)
"""Routes that have a name and run no model."""
_PROBES: Final = frozenset(
    {"/health", "/healthz", "/livez", "/readyz", "/ping", "/metrics", "/v2/health/live", "/v2/health/ready"}
)
_BY_LAST_WORD: Final = {
    word: sorted((path for path in {*_OPERATIONS, *_KNOWN} if path.rpartition("/")[2] == word), key=len, reverse=True)
    for word in {path.rpartition("/")[2] for path in {*_OPERATIONS, *_KNOWN}}
}
_SLASHES: Final = re.compile(r"/{2,}")
_VERSIONED: Final = re.compile(r".*?/v\d+[a-z0-9]*/((?:[a-z]+/)?[a-z]+)")
_DEPLOYMENT: Final = re.compile(r".*?/(?:deployments|v1/engines)/([^/]+)/((?:[a-z]+/)?[a-z]+)")
_KSERVE_V2: Final = re.compile(r"(?:.*/)?v2/models/([^/]+)(/versions/[^/]+)?(?:/([a-z_/]+))?")
_KSERVE_V1: Final = re.compile(r"/v1/models/([^/:]+(?:/[^/:]+)?)(:predict|:explain)?")
_VERB: Final = re.compile(r"/.*?(v\d+[a-z0-9]*)/.*?(models|endpoints)/([^/:]+):([A-Za-z]+)")
_VERBS: Final = {
    "generateContent": "generate_content",
    "streamGenerateContent": "generate_content",
    "embedContent": "embeddings",
    "batchEmbedContents": "embeddings",
    "rawPredict": "inference",
    "streamRawPredict": "inference",
    "predict": "inference",
    "explain": "inference",
}
_BEDROCK: Final = re.compile(r"(?:/.*)?/model/([^/]+)/(invoke|invoke-with-response-stream|converse|converse-stream)")
_PREDICTIONS: Final = re.compile(r"(?:/.*)?/predictions/([^/]+)(/[^/]+)?")
_KSERVE_ACTIONS: Final = {
    "infer": "inference",
    "generate": "text_completion",
    "generate_stream": "text_completion",
    "infer_stream": "inference",
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
        template: The path with names and what stands before the API taken out; ``/*`` for a path that no table knows.
        operation: What is asked of the model; empty for anything else.
        model: The model that the path names, or empty.
        reads_body: Whether the body may name the model.
        probe: A liveness, readiness or metrics probe, not somebody's request.
    """

    method: str
    template: str
    operation: str = ""
    model: str = ""
    reads_body: bool = False
    probe: bool = False

    @property
    def generates(self) -> bool:
        """Whether an answer without a single piece can't be: KServe's decoupled models may answer so."""
        return self.operation in {"chat", "text_completion"} and "{model}" not in self.template


def find_route(method: bytes, path: str, *, websocket: bool = False) -> Route:
    """Route of a request.

    Args:
        method: As sent.
        path: Without its query.
        websocket: Whether the request asks to become a WebSocket.
    """
    if len(path) <= _MAX_KEPT and len(method) <= _MAX_KEPT:
        return _find_again(method, path, websocket)
    return _find_route(method, path, websocket)


def _find_route(method: bytes, path: str, websocket: bool) -> Route:
    name = method.decode("ascii", "replace")
    name = name if name in _METHODS else "_OTHER"
    path = _SLASHES.sub("/", path.partition(";")[0]).rstrip("/") or "/"
    if path in _PROBES:
        return Route(name, path, probe=name in {"GET", "HEAD"} and not websocket)
    template, operation, model = _find(path)
    if template == OTHER_ROUTE and (plain := _plain(path)) != path:
        template, operation, model = _find(plain)
    if websocket:
        return Route(name, template, REALTIME, model)
    if name != "POST":
        operation = ""
    reads = name == "POST" and "{model}" not in template
    probe = name in {"GET", "HEAD"} and template.startswith("/v2/models/") and template.endswith("/ready")
    return Route(name, template, operation, model, reads_body=reads, probe=probe)


_find_again: Final = lru_cache(maxsize=1_024)(_find_route)


def _plain(path: str) -> str:
    """A path as a server that is generous reads it: escapes undone, in lower case."""
    return _SLASHES.sub("/", unquote(path).lower()).rstrip("/ ") or "/" if len(path) <= _MAX_PATH else path


def _find(path: str) -> tuple[str, str, str]:
    """Template, operation of a POST, and model of a path."""
    if len(path) > _MAX_PATH:
        return OTHER_ROUTE, "", ""
    if path in _OPERATIONS or path in _KNOWN:
        return path, _OPERATIONS.get(path, ""), ""
    return _find_kserve(path) or _find_named(path) or _find_ending(path)


def _find_kserve(path: str) -> tuple[str, str, str] | None:
    if (match := _KSERVE_V2.fullmatch(path)) is not None and (match[3] is None or match[3] in _KSERVE_ACTIONS):
        version = "/versions/{version}" if match[2] else ""
        template = "/v2/models/{model}" + version + (f"/{match[3]}" if match[3] else "")
        return template, _KSERVE_ACTIONS.get(match[3] or "", ""), _model(match[1])
    if (match := _KSERVE_V1.fullmatch(path)) is not None:
        return "/v1/models/{model}" + (match[2] or ""), "inference" if match[2] else "", _model(match[1])
    return None


def _find_named(path: str) -> tuple[str, str, str] | None:
    """APIs of clouds and of TorchServe, whose paths name the model."""
    if (match := _VERB.fullmatch(path)) is not None and match[4] in _VERBS:
        model = _model(match[3]) if match[2] == "models" else ""
        return f"/{match[1][:8]}/{match[2]}/{{model}}:{match[4]}", _VERBS[match[4]], model
    if (match := _BEDROCK.fullmatch(path)) is not None:
        return f"/model/{{model}}/{match[2]}", "chat" if "converse" in match[2] else "inference", _model(match[1])
    if (match := _PREDICTIONS.fullmatch(path)) is not None:
        return "/predictions/{model}" + ("/{version}" if match[2] else ""), "inference", _model(match[1])
    if (match := _DEPLOYMENT.fullmatch(path)) is not None and match[2] in _AZURE:
        return f"/v1/{match[2]}", _OPENAI[match[2]], _model(match[1])
    return None


def _find_ending(path: str) -> tuple[str, str, str]:
    """A known path behind a prefix: a namespace, a service, a gateway's route."""
    found = next((known for known in _BY_LAST_WORD.get(path.rpartition("/")[2], ()) if path.endswith(known)), "")
    if found.count("/") > 1 and found[1:] not in _AZURE:
        return found, _OPERATIONS.get(found, ""), ""
    if (match := _VERSIONED.fullmatch(path)) is not None and match[1] in _OPENAI:
        return f"/v1/{match[1]}", _OPENAI[match[1]], ""
    if found:
        return f"/v1{found}" if found[1:] in _AZURE else found, _OPERATIONS.get(found, ""), ""
    return OTHER_ROUTE, "", ""


def _model(segment: str) -> str:
    return unquote(segment)[:_MAX_NAME]
