from __future__ import annotations

import pytest

from agent.tap.routes import OTHER_ROUTE, REALTIME, find_route

CHAT = "/v1/chat/completions"
INFER = "/v2/models/{model}/infer"


@pytest.mark.parametrize(
    ("path", "template", "operation", "model"),
    [
        ("/v1/chat/completions", CHAT, "chat", ""),
        ("/v1/chat/completions/", CHAT, "chat", ""),
        ("//v1//chat/completions", CHAT, "chat", ""),
        ("/v3/chat/completions", CHAT, "chat", ""),
        ("/v1%2Fchat%2Fcompletions", CHAT, "chat", ""),
        ("/team/V1/Chat/Completions", CHAT, "chat", ""),
        ("/v1/chat/completions;session=3", CHAT, "chat", ""),
        ("/v1/ch%61t/completions/%20", CHAT, "chat", ""),
        ("/api/paas/v4/chat/completions", CHAT, "chat", ""),
        ("/openai/v1/chat/completions", CHAT, "chat", ""),
        ("/team/opt-125m/v1/chat/completions", CHAT, "chat", ""),
        ("/engines/v1/chat/completions", CHAT, "chat", ""),
        ("/engines/llama.cpp/v1/chat/completions", CHAT, "chat", ""),
        ("/openai/deployments/gpt-x/chat/completions", CHAT, "chat", "gpt-x"),
        ("/openai/deployments/emb/embeddings", "/v1/embeddings", "embeddings", "emb"),
        ("/v1/engines/m/completions", "/v1/completions", "text_completion", "m"),
        ("/chat/completions", "/chat/completions", "chat", ""),
        ("/openai/responses", "/v1/responses", "chat", ""),
        ("/v1/messages", "/v1/messages", "chat", ""),
        ("/anthropic/v1/messages", "/v1/messages", "chat", ""),
        ("/v1/embeddings", "/v1/embeddings", "embeddings", ""),
        ("/v1/rerank", "/v1/rerank", "rerank", ""),
        ("/v2/rerank", "/v2/rerank", "rerank", ""),
        ("/gateway/v2/rerank", "/v2/rerank", "rerank", ""),
        ("/score", "/score", "score", ""),
        ("/v1/audio/transcriptions", "/v1/audio/transcriptions", "transcription", ""),
        ("/asr/v1/audio/transcriptions", "/v1/audio/transcriptions", "transcription", ""),
        ("/v1/audio/speech", "/v1/audio/speech", "speech", ""),
        ("/completion", "/completion", "text_completion", ""),
        ("/llama/completion", "/completion", "text_completion", ""),
        ("/served/under/generate_stream", "/generate_stream", "text_completion", ""),
        ("/invocations", "/invocations", "inference", ""),
        ("/predictions/resnet", "/predictions/{model}", "inference", "resnet"),
        ("/ns/predictions/resnet/2.0", "/predictions/{model}/{version}", "inference", "resnet"),
        ("/v2/chat", "/v2/chat", "chat", ""),
        ("/gateway/v2/chat", "/v2/chat", "chat", ""),
        ("/v2/models/a%20b/infer", INFER, "inference", "a b"),
        ("/ns/name/v2/models/m/infer", INFER, "inference", "m"),
        ("/v2/models/m/versions/3/infer", "/v2/models/{model}/versions/{version}/infer", "inference", "m"),
        ("/v2/models/m/generate_stream", "/v2/models/{model}/generate_stream", "text_completion", "m"),
        ("/v1/models/m:predict", "/v1/models/{model}:predict", "inference", "m"),
        ("/v1/models/org/name:predict", "/v1/models/{model}:predict", "inference", "org/name"),
        (
            "/v1beta/models/g-2:streamGenerateContent",
            "/v1beta/models/{model}:streamGenerateContent",
            "generate_content",
            "g-2",
        ),
        (
            "/v1/projects/p/locations/l/publishers/q/models/m:rawPredict",
            "/v1/models/{model}:rawPredict",
            "inference",
            "m",
        ),
        ("/v2/models/m/infer_stream", "/v2/models/{model}/infer_stream", "inference", "m"),
        ("/model/vendor.m-v2%3A1/invoke", "/model/{model}/invoke", "inference", "vendor.m-v2:1"),
        ("/model/m/converse-stream", "/model/{model}/converse-stream", "chat", "m"),
    ],
)
def test_operations_behind_any_prefix(path: str, template: str, operation: str, model: str):
    route = find_route(b"POST", path)
    assert (route.template, route.operation, route.model, route.probe) == (template, operation, model, False)
    for method in (b"GET", b"HEAD", b"OPTIONS", b"DELETE", b"FETCH"):
        assert find_route(method, path).operation == ""  # a preflight, a list, a look: no model runs
        assert find_route(method, path).template == template


@pytest.mark.parametrize(
    ("method", "path", "template", "model"),
    [
        (b"GET", "/v1/models", "/v1/models", ""),
        (b"GET", "/v1/models/org/name", "/v1/models/{model}", "org/name"),
        (b"GET", "/v2/models/m", "/v2/models/{model}", "m"),
        (b"POST", "/v2/models/stats", "/v2/models/stats", ""),
        (b"POST", "/v2/models/m/secret", OTHER_ROUTE, ""),
        (b"POST", "/tokenize", "/tokenize", ""),
        (b"POST", "/v1/messages/count_tokens", "/v1/messages/count_tokens", ""),
        (b"POST", "/v1/messages/batches", OTHER_ROUTE, ""),
        (b"POST", "/v1/threads/t/messages", OTHER_ROUTE, ""),
        (b"POST", "/v1/responses/resp_1/cancel", OTHER_ROUTE, ""),
        (b"POST", "/users/42", OTHER_ROUTE, ""),
        (b"POST", "/", OTHER_ROUTE, ""),
        (b"POST", "/" + "v1/models/" * 7_000 + "x:y", OTHER_ROUTE, ""),
    ],
)
def test_what_runs_no_model_is_no_operation(method: bytes, path: str, template: str, model: str):
    route = find_route(method, path)
    assert (route.template, route.operation, route.model) == (template, "", model)


def test_a_websocket_session_is_an_operation_of_its_own():
    assert find_route(b"GET", "/v1/realtime", websocket=True).operation == REALTIME
    assert find_route(b"GET", "/v1/realtime").operation == ""
    assert find_route(b"GET", "/health", websocket=True).probe is False


def test_probes_are_reads_only():
    assert find_route(b"GET", "/health").probe
    assert find_route(b"HEAD", "/v2/models/m/ready").probe
    assert not find_route(b"POST", "/health").probe
    assert not find_route(b"GET", "/v1/models").probe


def test_a_body_is_looked_into_where_the_path_does_not_name_the_model():
    assert find_route(b"POST", "/v1/completions").reads_body
    assert find_route(b"POST", "/own/api").reads_body
    assert find_route(b"POST", "/openai/deployments/m/completions").reads_body
    assert not find_route(b"POST", "/v2/models/m/infer").reads_body
    assert not find_route(b"GET", "/v1/completions").reads_body
