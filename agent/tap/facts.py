"""What JSON from a model server says about the answer: tokens, finish, ids, errors – never the text itself.

Read: OpenAI (chat, completions, responses, embeddings; as vLLM, SGLang, llama.cpp and gateways speak it), Anthropic
messages, KServe v2 / Triton, llama.cpp's own ``/completion``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

_MAX_TEXT: Final = 256
_MAX_CHOICES: Final = 64
_MAX_COUNT: Final = 1 << 40
_WORD: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,64}")
_QUEUE_FULL: Final = re.compile(
    r"exceeds maximum queue size|queue is full|queue full|too many (?:pending |concurrent )?requests|at capacity",
    re.IGNORECASE,
)
_QUEUE_TIMEOUT: Final = re.compile(r"request timeout expired", re.IGNORECASE)
_TERMINAL: Final = frozenset({"message_stop", "response.completed", "response.incomplete", "response.failed"})


@dataclass(slots=True)
class Facts:
    """What is known of an answer so far.

    Attributes:
        model: Model that the answer names.
        response_id: Its id.
        finish: Finish reason by choice.
        prompt_tokens: From usage.
        completion_tokens: From usage.
        cached_tokens: From usage.
        content_chunks: Pieces of content counted, one for each choice that a chunk carries.
        error: The answer holds an error object.
        error_type: Its low-cardinality word, may be empty.
        queue_full: The error says that a queue is full.
        complete: An event said that the stream is over.
    """

    model: str = ""
    response_id: str = ""
    finish: dict[int, str] = field(default_factory=dict)
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    content_chunks: int = 0
    error: bool = False
    error_type: str = ""
    queue_full: bool = False
    complete: bool = False

    def read(self, message: Any) -> bool:
        """Take one JSON message (a whole answer, or one event of a stream).

        Returns:
            Whether it carries content that its user waited for.
        """
        if not isinstance(message, dict):
            return True
        if message.get("error"):
            self.read_error(message["error"])
            return False
        if message.get("object") == "error":  # older vLLM
            self.read_error(message)
            return False
        kind = message.get("type")
        if isinstance(kind, str) and "choices" not in message:
            self.complete = self.complete or kind in _TERMINAL
            if kind.startswith("response."):
                return self._read_responses_event(kind, message)
            if kind in {"message_start", "message_delta", "message_stop", "ping"} or kind.startswith("content_block"):
                return self._read_messages_event(kind, message)
        return self._read_plain(message)

    def read_error(self, error: Any) -> None:
        """Take an error object or text."""
        self.error = True
        text = error if isinstance(error, str) else ""
        if isinstance(error, dict):
            message = error.get("message")
            text = message if isinstance(message, str) else ""
            for key in ("type", "code"):
                word = error.get(key)
                if isinstance(word, str | int) and _WORD.fullmatch(str(word)):
                    self.error_type = str(word)
                    break
        if _QUEUE_FULL.search(text):
            self.queue_full = True
            self.error_type = "queue_full"
        elif _QUEUE_TIMEOUT.search(text):
            self.error_type = "queue_timeout"

    def _read_plain(self, message: dict[str, Any]) -> bool:
        if message.get("object") == "response":  # a whole OpenAI response reads like its last event
            return self._read_responses_event(f"response.{message.get('status')}", {"response": message})
        self._name(message)
        choices = message.get("choices")
        if isinstance(choices, list):
            self._read_usage(message.get("usage"))
            return sum(self._read_choice(n, choice) for n, choice in enumerate(choices[:_MAX_CHOICES])) > 0
        usage = message.get("usage")
        if isinstance(usage, dict):
            self._read_usage(usage)
        if "tokens_predicted" in message:  # llama.cpp's own answer; "stop" marks the last chunk
            self.prompt_tokens = _count(message.get("tokens_evaluated"), self.prompt_tokens)
            self.cached_tokens = _count(message.get("tokens_cached"), self.cached_tokens)
            if message.get("stop") is not False:
                self.completion_tokens = _count(message.get("tokens_predicted"), self.completion_tokens)
                self.finish[0] = "length" if message.get("stop_type") == "limit" else "stop"
            content = bool(message.get("content"))
        else:
            if isinstance(stop := message.get("stop_reason"), str):
                self.finish[0] = stop[:_MAX_TEXT]
            content = True
        self.content_chunks += content
        return content

    def _read_choice(self, position: int, choice: Any) -> bool:
        if not isinstance(choice, dict):
            return False
        index = choice.get("index")
        if isinstance(finish := choice.get("finish_reason"), str):
            self.finish[index if isinstance(index, int) else position] = finish[:_MAX_TEXT]
        delta = choice.get("delta")
        if isinstance(delta, dict):
            content = any(value for key, value in delta.items() if key != "role")
        else:
            content = bool(choice.get("text") or choice.get("message"))
        self.content_chunks += content
        return content

    def _read_responses_event(self, kind: str, message: dict[str, Any]) -> bool:
        response = message.get("response")
        if isinstance(response, dict):
            self._name(response)
            self._read_usage(response.get("usage"))
            if kind == "response.failed":
                self.read_error(response.get("error") or {})
            elif kind == "response.completed":
                self.finish[0] = "stop"
            elif kind == "response.incomplete":
                details = response.get("incomplete_details")
                reason = details.get("reason") if isinstance(details, dict) else None
                self.finish[0] = str(reason)[:_MAX_TEXT] if reason else "incomplete"
        content = kind.endswith(".delta")
        self.content_chunks += content
        return content

    def _read_messages_event(self, kind: str, message: dict[str, Any]) -> bool:
        if kind == "message_start" and isinstance(start := message.get("message"), dict):
            self._name(start)
            self._read_usage(start.get("usage"))
        elif kind == "message_delta":
            delta = message.get("delta")
            if isinstance(delta, dict) and isinstance(stop := delta.get("stop_reason"), str):
                self.finish[0] = stop[:_MAX_TEXT]
            self._read_usage(message.get("usage"))
        content = kind == "content_block_delta"
        self.content_chunks += content
        return content

    def _name(self, message: dict[str, Any]) -> None:
        if isinstance(name := message.get("id"), str):
            self.response_id = name[:_MAX_TEXT]
        for key in ("model", "model_name"):
            if isinstance(model := message.get(key), str):
                self.model = model[:_MAX_TEXT]

    def _read_usage(self, usage: Any) -> None:
        if not isinstance(usage, dict):
            return
        prompt = _count(usage.get("prompt_tokens"), _count(usage.get("input_tokens"), None))
        cache_read = _count(usage.get("cache_read_input_tokens"), None)
        cache_made = _count(usage.get("cache_creation_input_tokens"), None)
        if prompt is not None:  # Anthropic's input tokens leave out the cached ones
            prompt += (cache_read or 0) + (cache_made or 0)
            self.prompt_tokens = prompt
        self.completion_tokens = _count(
            usage.get("completion_tokens"), _count(usage.get("output_tokens"), self.completion_tokens)
        )
        for key in ("prompt_tokens_details", "input_tokens_details"):
            if isinstance(details := usage.get(key), dict):
                cache_read = _count(details.get("cached_tokens"), cache_read)
        if cache_read is not None:
            self.cached_tokens = cache_read


def _count(value: Any, default: int | None) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MAX_COUNT:
        return value
    return default
