"""From vLLM's configuration to a record: the limits of a step and what else changes how an engine works.

Numbers and short words alone: a path, a key or a prompt that stands in the configuration has no place in the record.
The classes are vLLM's own (``vllm/config``) and declared unstable: every field is read as if it might not be there.
"""

from __future__ import annotations

import re
import sys
from typing import Any

from servescope_probe import wire

_UNKNOWN = -1
_MOST = 0x7FFFFFFF
_WORD = re.compile(r"[A-Za-z0-9_.+-]{1,64}")
_MISSING = object()
_PLACES = {
    "max_num_seqs": ("scheduler_config.max_num_seqs",),
    "max_num_batched_tokens": ("scheduler_config.max_num_batched_tokens",),
    "max_num_scheduled_tokens": ("scheduler_config.max_num_scheduled_tokens",),
    "max_model_len": ("model_config.max_model_len", "scheduler_config.max_model_len"),
    "block_size": ("cache_config.block_size",),
    "num_gpu_blocks": ("cache_config.num_gpu_blocks",),
    "enable_prefix_caching": ("cache_config.enable_prefix_caching",),
    "enable_chunked_prefill": ("scheduler_config.enable_chunked_prefill", "scheduler_config.chunked_prefill_enabled"),
    "tensor_parallel_size": ("parallel_config.tensor_parallel_size",),
    "pipeline_parallel_size": ("parallel_config.pipeline_parallel_size",),
    "data_parallel_size": ("parallel_config.data_parallel_size",),
    "num_speculative_tokens": ("speculative_config.num_speculative_tokens",),
    "max_loras": ("lora_config.max_loras",),
    "cache_dtype": ("cache_config.cache_dtype",),
    "speculative_method": ("speculative_config.method",),
}
"""Where each field stands, under the names of several versions."""
_OFF = ("num_speculative_tokens", "max_loras")
"""Of parts that vLLM leaves None where they are switched off: 0 then."""


def pack(config: Any) -> bytes:
    """The record of a configuration.

    Args:
        config: vLLM's ``VllmConfig``, of whatever version.

    Raises:
        ValueError: It has no field that is known: another interface than this was written for.
    """
    numbers = [_number(config, name) for name in wire.CONFIG_FIELDS]
    words = [_word(_find(config, name)) for name in wire.CONFIG_WORDS[:-1]]
    if all(number in (_UNKNOWN, 0) for number in numbers):
        raise ValueError("no limit is told")
    version = _word(getattr(sys.modules.get("vllm"), "__version__", ""))
    return wire.CONFIG_BODY.pack(*numbers) + b"".join(wire.text(word) for word in (*words, version))


def _number(config: Any, name: str) -> int:
    value = _find(config, name)
    if isinstance(value, bool):
        return int(value)
    if value is None and name in _OFF:
        return 0
    return value if isinstance(value, int) and 0 <= value <= _MOST else _UNKNOWN


def _find(config: Any, name: str) -> Any:
    """The field's value; None where its part is switched off, a stand-in where there is none."""
    for place in _PLACES[name]:
        value = config
        try:
            for part in place.split("."):
                value = getattr(value, part)
                if value is None:
                    break
        except Exception:  # noqa: BLE001, S112 - a field that can't be read is unknown, as one that is not there
            continue
        if value is not None or name in _OFF:
            return value
    return _MISSING


def _word(value: Any) -> str:
    return value if isinstance(value, str) and _WORD.fullmatch(value) else ""
