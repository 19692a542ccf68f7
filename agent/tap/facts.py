"""What JSON from a model server says about the answer: tokens, finish, ids, errors – never the text itself.

Read: OpenAI (chat, completions, responses, embeddings; as vLLM, SGLang, TensorRT-LLM, llama.cpp and gateways speak
it), Anthropic messages, Gemini, KServe v2 / Triton, and the own APIs of llama.cpp, TGI, SGLang and Ollama.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from agent.tap.failures import gives_up, is_fault
from agent.tap.usage import Usage, together

_MAX_TEXT: Final = 256
_MAX_CHOICES: Final = 64
_WORD: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,64}")
_QUEUE_FULL: Final = re.compile(
    r"exceeds maximum queue size|queue is full|queue full|too many (?:pending |concurrent )?requests|at capacity",
    re.IGNORECASE,
)
_QUEUE_TIMEOUT: Final = re.compile(r"request timeout expired", re.IGNORECASE)
_FINISHES: Final = ("finish_reason", "stop_reason", "stopReason")
_USAGES: Final = ("usage", "usageMetadata", "timings", "meta", "x_groq")
_SHORTENED: Final = frozenset({"max_output_tokens", "max_tokens", "length", "content_filter"})
"""Why an incomplete response is as its client asked for."""
_TERMINAL: Final = {
    "response.completed": "",
    "response.incomplete": "incomplete",
    "response.failed": "failed",
    "response.cancelled": "cancelled",
    "response.canceled": "cancelled",
}
_UNSPOKEN: Final = frozenset(
    """role id index type name format signature expires_at provider_specific_fields annotations obfuscation
    finish_reason extra_content phase thought thoughtSignature thought_signature""".split()  # noqa: SIM905 - a page of words, not a column
)
"""Fields of a delta that are no piece of an answer."""
_SEVERAL: Final = frozenset({"meta_info", "generated_text", "candidates"})
_FRAME: Final = frozenset(
    """id object created created_at model model_name model_version usage usageMetadata type system_fingerprint
    service_tier provider timings prompt_progress progress sequence_id sequence_start sequence_end index stop
    finish_reason stop_reason meta_info parameters request_id trace_id timestamp time ping keepalive
    keep_alive heartbeat event event_type status details obfuscation tokens_predicted tokens_evaluated done
    done_reason seq metadata message_id responseId modelVersion base_resp generation_settings ts n queue
    queue_position position queue_size eta eta_seconds estimated_time estimated_wait estimated_wait_seconds
    wait_seconds elapsed latency_ms warning warnings""".split()  # noqa: SIM905 - a page of words, not a column
)
"""Fields of a message that are no piece of an answer, whatever they hold."""


@dataclass(slots=True, init=False)
class Facts:
    """What is known of an answer so far.

    Attributes:
        model: Model that the answer names.
        response_id: Its id, the first that its client saw.
        finish: Finish reason by choice.
        usage: Tokens as reported.
        content_chunks: Pieces of content counted, one for each choice that a chunk carries.
        error: The answer holds an error object.
        error_type: Its low-cardinality word, may be empty.
        queue_full: The error says that a queue is full.
        complete: An event said that the stream is over.
        begun: Choices that began in a dialect whose streams say how they end.
        strict: The answer is in a dialect that has a place for each of its pieces: nothing else is one.
    """

    model: str
    response_id: str
    finish: dict[int, str]
    usage: Usage
    content_chunks: int
    error: bool
    error_type: str
    queue_full: bool
    complete: bool
    begun: set[int]
    _each: dict[int, Usage]
    strict: bool

    def __init__(self) -> None:  # by hand: the one made of defaults asks of each what it is
        self.model = self.response_id = self.error_type = ""
        self.finish = {}
        self.usage = Usage()
        self.content_chunks = 0
        self.error = self.queue_full = self.complete = self.strict = False
        self.begun = set()
        self._each = {}

    @property
    def given_up(self) -> str:
        """Finish reason by which the engine gave the request up; empty when it did not."""
        for reason in self.finish.values():
            if gives_up(reason):
                return reason.lower()
        return ""

    @property
    def unfinished(self) -> bool:
        """Whether a stream began in a dialect that has an end, and the end never came."""
        return not self.complete and not self.begun <= self.finish.keys()

    def read(self, message: Any) -> bool:
        """Take one JSON message (a whole answer, or one event of a stream).

        Returns:
            Whether it carries content that its user waited for.
        """
        if not isinstance(message, dict):
            if isinstance(message, list) and any(map(_is_one_of_several, message)):
                before = self.content_chunks
                self.read_whole(message)
                return self.content_chunks > before
            said = _holds(message) if isinstance(message, list) else bool(message) and message is not True
            return self._count(said and not self.strict)
        if self._read_failure(message):
            return False
        kind = message.get("type")
        if isinstance(kind, str) and "choices" not in message:
            known = self._read_event(kind, message)
            if known is not None:
                return known
        if message.get("object") == "response":  # a whole OpenAI response reads like its last event
            return self._read_responses_event(f"response.{message.get('status')}", {"response": message})
        return self._read_plain(message)

    def read_whole(self, answer: Any) -> None:
        """Take a whole answer: one message, or a list of those that belong to it."""
        if isinstance(answer, dict):
            self.read(answer)
        elif isinstance(answer, list):
            for index, one in enumerate(answer):  # SGLang's to several prompts; Gemini's stream as one JSON text
                if _is_one_of_several(one):
                    self.read({"index": index, **one})

    def read_error(self, error: Any, around: dict[str, Any] | None = None) -> None:
        """Take an error object or text, and the message that it stands in."""
        self.error = True
        text = error if isinstance(error, str) else ""
        if isinstance(error, dict):
            message = error.get("message")
            text = message if isinstance(message, str) else ""
        for holder, key in (
            (error, "type"),
            (error, "code"),
            (error, "status"),
            (error, "__type"),
            (around, "error_type"),
            (around, "code"),
        ):
            word = holder.get(key) if isinstance(holder, dict) else None
            if isinstance(word, str | int) and word != "error" and _WORD.fullmatch(str(word)):
                self.error_type = str(word)
                break
        if _QUEUE_FULL.search(text):
            self.queue_full = True
            self.error_type = "queue_full"
        elif _QUEUE_TIMEOUT.search(text):
            self.error_type = "queue_timeout"

    def _read_failure(self, message: dict[str, Any]) -> bool:
        """Whether the message tells of an error; then it is taken."""
        if error := message.get("error") or message.get("Error"):
            self.read_error(error, message)
        elif message.get("object") == "error" or message.get("type") == "error":  # vLLM of old, TensorRT-LLM; responses
            self.read_error(message)
        elif isinstance(base := message.get("base_resp"), dict) and base.get("status_code"):
            self.read_error({"code": base["status_code"], "message": base.get("status_msg")})
        elif message.get("choices") or not is_fault(message):
            return False
        else:
            self.read_error(message, message)
        if isinstance(choices := message.get("choices"), list):  # a chunk that fails still says what it has
            for position, choice in enumerate(choices[:_MAX_CHOICES]):
                self._read_choice(position, choice)
        self.usage.read(message.get("usage"))
        return True

    def _read_event(self, kind: str, message: dict[str, Any]) -> bool | None:
        """An event that names its type; ``None`` when it is of no dialect that does."""
        if kind.startswith("response."):
            return self._read_responses_event(kind, message)
        if kind.startswith(("message_", "content_block")) or kind == "ping":
            return self._read_messages_event(kind, message)
        if kind.startswith(("message-", "content-", "tool-call-", "tool-plan-", "citation-")):
            return self._read_cohere_event(kind, message)
        if "." in kind:  # transcript.text.delta, speech.audio.delta and their kin
            self.usage.read(message.get("usage"))
            return self._count(kind.endswith(".delta") and bool(message.get("delta") or message.get("audio")))
        return None

    def _read_plain(self, message: dict[str, Any]) -> bool:
        self._name(message)
        for name in _USAGES:
            if name in message:
                self.usage.read(message[name])
        if "choices" in message:
            choices = message["choices"]
            if not isinstance(choices, list):
                return False
            said = False
            self.strict = self.strict or bool(choices)
            for position, choice in enumerate(choices[:_MAX_CHOICES]):
                said = self._read_choice(position, choice) or said
            return said
        if isinstance(candidates := message.get("candidates"), list):
            self.strict = True
            return sum(self._read_candidate(n, one) for n, one in enumerate(candidates[:_MAX_CHOICES])) > 0
        return self._read_own(message)

    def _read_own(self, message: dict[str, Any]) -> bool:
        """A message of an engine's own API, or of nobody's that is known."""
        if "tokens_predicted" in message:
            return self._read_llamacpp(message)
        if isinstance(token := message.get("token"), dict):
            return self._read_tgi(token, message)
        done = message.get("done")
        if isinstance(meta := message.get("meta_info"), dict):
            self._read_meta(meta, message.get("index"))
        elif isinstance(done, bool):  # Ollama
            self._begin(0)
            self.usage.read(message)
            self._end(0, (message.get("done_reason") or "stop") if done else None)
        else:
            self._end(0, next(filter(None, map(message.get, _FINISHES)), None))
            if "generated_text" in message and isinstance(details := message.get("details"), dict):  # TGI's whole one
                self._read_meta(details, message.get("index"))
            if self.strict:
                return False
        if done is True:
            return self._count(_said(message.get("message")) or bool(message.get("response")))
        return self._count(any(_holds(value) for key, value in message.items() if _speaks(key, value)))

    def _read_meta(self, meta: dict[str, Any], index: Any) -> None:
        number = index if type(index) is int else 0
        self._begin(number)
        self._name({"id": meta.get("id")})
        self._end(number, meta.get("finish_reason"))
        if index is None:
            self.usage.read(meta)
        elif number in self._each or len(self._each) < _MAX_CHOICES:  # of several prompts each tells its own tokens
            self._each.setdefault(number, Usage()).read(meta)
            self.usage = together(self._each.values())

    def _read_llamacpp(self, message: dict[str, Any]) -> bool:
        self._begin(0)
        self.usage.read({"prompt_tokens": message.get("tokens_evaluated")})
        if message.get("stop") is not False:  # the last chunk; only its count is the whole's
            self.usage.read({"completion_tokens": message.get("tokens_predicted")})
            self._end(0, "length" if message.get("stop_type") == "limit" else "stop")
        return self._count(bool(message.get("content")))

    def _read_tgi(self, token: dict[str, Any], message: dict[str, Any]) -> bool:
        self._begin(0)
        details = message.get("details")
        self.usage.read(details)
        if message.get("generated_text") is not None or isinstance(details, dict):
            self._end(0, (details.get("finish_reason") if isinstance(details, dict) else None) or "stop")
        return self._count(bool(token.get("text")) and token.get("special") is not True)

    def _read_choice(self, position: int, choice: Any) -> bool:
        if not isinstance(choice, dict):
            return False
        index = choice.get("index")
        number = index if isinstance(index, int) else position
        if len(self.begun) < _MAX_CHOICES:
            self.begun.add(number)
        if (reason := choice.get("finish_reason")) is not None:
            self._end(number, reason)
        delta = choice.get("delta")
        if error := choice.get("error") or (delta.get("error") if isinstance(delta, dict) else None):
            self.read_error(error)
            return False
        if "usage" in choice:
            self.usage.read(choice["usage"])
        said = _said(delta) if isinstance(delta, dict) else bool(choice.get("text")) or _said(choice.get("message"))
        self.content_chunks += said
        return said

    def _read_candidate(self, position: int, candidate: Any) -> bool:
        if not isinstance(candidate, dict):
            return False
        self._begin(position)
        self._end(position, candidate.get("finishReason"))
        content = candidate.get("content")
        parts = content.get("parts") if isinstance(content, dict) else None
        said = isinstance(parts, list) and any(isinstance(part, dict) and _holds(part) for part in parts)
        return self._count(said)

    def _read_responses_event(self, kind: str, message: dict[str, Any]) -> bool:
        response = message.get("response")
        self.strict = True
        self._begin(0)
        if isinstance(response, dict):
            self._name(response)
            self.usage.read(response.get("usage"))
        if kind in {"response.queued", "response.in_progress"} and "type" not in message:
            self._end(0, kind.removeprefix("response."))  # a whole answer: the work goes on behind it, as asked
        if (bad := _TERMINAL.get(kind)) is not None:
            self.complete = True
            details = response.get("incomplete_details") if isinstance(response, dict) else None
            reason = details.get("reason") if isinstance(details, dict) else None
            self._end(0, reason if reason in _SHORTENED else bad or "stop")
            if kind == "response.failed":
                self.read_error((response.get("error") if isinstance(response, dict) else None) or {})
        return self._count(kind.endswith(".delta") and bool(message.get("delta")))

    def _read_messages_event(self, kind: str, message: dict[str, Any]) -> bool:
        self.strict = self.strict or kind != "ping"
        if kind == "message_start" and isinstance(start := message.get("message"), dict):
            self._begin(0)
            self._name(start)
            self.usage.read(start.get("usage"))
        elif kind == "message_delta":
            delta = message.get("delta")
            self._end(0, delta.get("stop_reason") if isinstance(delta, dict) else None)
            self.usage.read(message.get("usage"))
        elif kind == "message_stop":
            self.complete = True
        elif kind == "content_block_start":
            block = message.get("content_block")
            return self._count(isinstance(block, dict) and block.get("type") == "tool_use")
        elif kind == "content_block_delta" and isinstance(delta := message.get("delta"), dict):
            spoken = (value for key, value in delta.items() if key not in {"type", "signature", "citation"})
            return self._count(any(map(_holds, spoken)))
        return False

    def _read_cohere_event(self, kind: str, message: dict[str, Any]) -> bool:
        self.strict = True
        delta = message.get("delta")
        if not isinstance(delta, dict):
            return False
        if kind == "message-start":
            self._begin(0)
            self._name(message)
        elif kind == "message-end":
            self.usage.read(delta.get("usage"))
            self._end(0, delta.get("finish_reason"))
            if error := delta.get("error"):
                self.read_error(error)
        return self._count(kind.endswith("-delta") and _holds(delta))

    def _count(self, content: bool) -> bool:
        self.content_chunks += content
        return content

    def _begin(self, choice: int) -> None:
        if len(self.begun) < _MAX_CHOICES:
            self.begun.add(choice)

    def _end(self, choice: int, reason: Any) -> None:
        if isinstance(reason, dict):  # SGLang's own
            reason = reason.get("type")
        if isinstance(reason, str) and reason and (choice in self.finish or len(self.finish) < _MAX_CHOICES):
            self.finish[choice] = reason[:_MAX_TEXT]

    def _name(self, message: dict[str, Any]) -> None:
        for key in ("id", "responseId"):
            if key in message and not self.response_id and isinstance(name := message[key], str):
                self.response_id = name[:_MAX_TEXT]
        for key in ("model", "model_name", "modelVersion"):
            if key in message and isinstance(model := message[key], str) and model:
                self.model = model[:_MAX_TEXT]


def _is_one_of_several(message: Any) -> bool:
    """Whether a member of a list is a message: its own answer's, or a piece of one."""
    return isinstance(message, dict) and (not _SEVERAL.isdisjoint(message) or message.keys() == {"error"})


def _speaks(key: str, value: Any) -> bool:
    if key in _FRAME or (isinstance(value, str) and key.endswith(("_id", "Id"))):
        return False
    return not (key == "message" and isinstance(value, str))  # what a server says of itself


def _said(delta: Any) -> bool:
    """Whether a delta or a message holds a piece of an answer: text, reasoning, a refusal, a call, audio."""
    return isinstance(delta, dict) and any(_holds(value) for key, value in delta.items() if key not in _UNSPOKEN)


def _holds(value: Any) -> bool:
    """Whether there is anything in a value; an object of names and empty texts holds nothing."""
    if isinstance(value, dict):
        return any(_holds(inner) for key, inner in value.items() if key not in _UNSPOKEN - {"name"})
    if isinstance(value, list):
        return any(map(_holds, value))
    return value is not None and value != "" and value is not False
