"""A tiny Llama with random weights, written as GGUF in a second: real enough for a real llama.cpp server to serve."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gguf
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

_WIDTH, _LAYERS, _HEADS, _FEED_FORWARD, _CONTEXT = 128, 2, 4, 256, 4096
_WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "for",
    "on",
    "with",
    "as",
    "by",
    "at",
    "from",
    "or",
    "are",
    "was",
    "be",
    "this",
    "that",
    "it",
    "an",
    "not",
    "have",
    "which",
    "but",
    "they",
    "one",
    "all",
    "their",
    "more",
    "when",
    "can",
    "there",
    "queue",
    "cache",
    "token",
    "batch",
    "request",
    "model",
    "server",
    "engine",
    "prefill",
    "decode",
    "latency",
    "memory",
    "block",
    "fast",
    "slow",
    "wait",
    "run",
    "stop",
    "start",
    "step",
    "page",
    "tenant",
    "answer",
    "question",
    "text",
    "word",
    "line",
]
_CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message.role + ': ' + message.content + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def write_tiny_llama(path: Path, *, name: str = "tiny-llama", seed: int = 5) -> Path:
    """Write the model file and return its path; the same seed gives the same bytes."""
    draw = np.random.default_rng(seed)
    tokens, scores, kinds = _vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(name)
    writer.add_context_length(_CONTEXT)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(_FEED_FORWARD)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_rope_dimension_count(_WIDTH // _HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(_CHAT_TEMPLATE)

    def add(tensor: str, *shape: int) -> None:
        writer.add_tensor(tensor, (draw.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32))

    def add_norm(tensor: str) -> None:
        writer.add_tensor(tensor, np.ones(_WIDTH, dtype=np.float32))

    add("token_embd.weight", len(tokens), _WIDTH)
    add_norm("output_norm.weight")
    add("output.weight", len(tokens), _WIDTH)
    for layer in range(_LAYERS):
        block = f"blk.{layer}"
        add_norm(f"{block}.attn_norm.weight")
        add_norm(f"{block}.ffn_norm.weight")
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"{block}.{part}.weight", _WIDTH, _WIDTH)
        add(f"{block}.ffn_gate.weight", _FEED_FORWARD, _WIDTH)
        add(f"{block}.ffn_up.weight", _FEED_FORWARD, _WIDTH)
        add(f"{block}.ffn_down.weight", _WIDTH, _FEED_FORWARD)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _vocabulary() -> tuple[list[str], list[float], list[int]]:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL, *([gguf.TokenType.BYTE] * 256)]
    scores = [0.0] * len(tokens)
    pieces = list(dict.fromkeys([
        *(f"▁{word}" for word in _WORDS), *_WORDS, "▁", *(chr(code) for code in range(33, 127)),
    ]))  # fmt: skip
    tokens += pieces
    kinds += [gguf.TokenType.NORMAL] * len(pieces)
    scores += [-float(rank) for rank in range(len(pieces))]
    return tokens, scores, [int(kind) for kind in kinds]
