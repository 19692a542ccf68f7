"""Tokens of an answer as its server reports them, in whichever dialect, put together field by field.

Dialects differ in one thing that matters: OpenAI's ``prompt_tokens`` hold the cached ones, Anthropic's
``input_tokens`` do not, and gateways answer in one dialect with fields of the other beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAX_COUNT: Final = 1 << 40
_FIELDS: Final = {
    "prompt_tokens": "prompt",
    "promptTokenCount": "prompt",
    "prompt_eval_count": "prompt",
    "input_tokens": "input",
    "inputTokens": "input",
    "completion_tokens": "completion",
    "output_tokens": "completion",
    "outputTokens": "completion",
    "eval_count": "completion",
    "generated_tokens": "completion",
    "candidatesTokenCount": "candidates",
    "thoughtsTokenCount": "thoughts",
    "reasoning_tokens": "reasoning",
    "total_tokens": "total",
    "totalTokens": "total",
    "totalTokenCount": "total",
    "cached_tokens": "hit",
    "num_cached_tokens": "hit",
    "cached_prompt_tokens": "hit",
    "prompt_cache_hit_tokens": "hit",
    "cachedContentTokenCount": "hit",
    "cache_n": "hit",
    "prompt_cache_miss_tokens": "miss",
    "cache_read_input_tokens": "read",
    "cacheReadInputTokens": "read",
    "cache_creation_input_tokens": "made",
    "cacheWriteInputTokens": "made",
}
_NESTED: Final = frozenset({"tokens", "billed_units", "usage", "completion_tokens_details", "output_tokens_details"})
"""Objects in a report that are reports themselves."""
_DETAILS: Final = frozenset({"prompt_tokens_details", "input_tokens_details"})


@dataclass(slots=True, init=False)
class Usage:
    """What was reported so far: of each field the greatest value, since servers count up or send placeholders first.

    A server that reports again and again counts up, one that has nothing to report yet sends zeros, and a stream that
    is cut keeps what it had.
    """

    _known: dict[str, int]
    _inclusive: bool

    def __init__(self) -> None:
        self._known = {}
        self._inclusive = False

    def read(self, report: Any) -> None:
        """Take one report; anything that isn't a count of a known field is passed over."""
        if not isinstance(report, dict):
            return
        known = self._known
        for key, value in report.items():
            if (name := _FIELDS.get(key)) is not None:
                if type(value) is int and known.get(name, 0) <= value < _MAX_COUNT:  # as nearly all are
                    known[name] = value
                else:
                    self._raise(name, value)
            elif key in _DETAILS and isinstance(value, dict):
                for name in ("cached_tokens", "cache_read_tokens"):
                    self._raise("hit", value.get(name))
                self._inclusive = self._inclusive or key == "input_tokens_details"
            elif key == "cache_creation" and isinstance(value, dict):
                self._raise("made", sum(count for count in value.values() if _is_count(count)))
            elif key in _NESTED and isinstance(value, dict):
                self.read(value)

    def _raise(self, name: str, value: Any) -> None:
        if isinstance(value, float) and value.is_integer():  # a gateway whose numbers are all floats
            value = int(value)
        if _is_count(value) and value >= self._known.get(name, 0):
            self._known[name] = value

    @property
    def prompt(self) -> int | None:
        """Tokens of the prompt, those from a cache included; ``None`` when no report says."""
        known = self._known
        base = known.get("prompt", known.get("input"))
        if base is None:
            if "hit" in known and "miss" in known:
                return known["hit"] + known["miss"]
            return known.get("total") if self.completion is None else None
        if "read" not in known and "made" not in known:
            return base  # there is nothing that it could have left out
        read, made = known.get("read", 0), known.get("made", 0)
        rest = known.get("total", 0) - (self.completion or 0)
        if rest >= read and rest in {base, base + read, base + read + made}:
            return rest  # the sum tells whether they are in
        inclusive = "prompt" in known or self._inclusive
        return base if inclusive and base >= read else base + read + made

    @property
    def completion(self) -> int | None:
        """Tokens generated, reasoning included; ``None`` when no report says."""
        known = self._known
        if (said := known.get("completion")) is not None:
            with_reasoning = said + known.get("reasoning", 0)
            # xAI leaves reasoning out; the sum tells
            return with_reasoning if known.get("prompt", 0) + with_reasoning == known.get("total") else said
        if "candidates" in known or "thoughts" in known:
            return known.get("candidates", 0) + known.get("thoughts", 0)
        return None

    @property
    def cached(self) -> int | None:
        """Tokens of the prompt that came from a cache; ``None`` when no report says."""
        known = self._known
        if "hit" not in known and "read" not in known:
            return None
        cached = max(known.get("hit", 0), known.get("read", 0))
        prompt = self.prompt
        return cached if prompt is None else min(cached, prompt)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MAX_COUNT


def together(parts: Iterable[Usage]) -> Usage:
    """Tokens of several answers that came as one."""
    told = [(one.prompt, one.completion, one.cached) for one in parts]
    names = ("prompt_tokens", "completion_tokens", "cached_tokens")
    total = Usage()
    total.read({name: sum(n or 0 for n in each) for name, each in zip(names, zip(*told, strict=True), strict=True)
                if any(n is not None for n in each)})  # fmt: skip
    return total
