"""Forward-pass metrics as engines publish them, version 1: msgpack, a map for each forward pass, its fields by name.

NVIDIA Dynamo's scheduler in vLLM and SGLang's own publish the same map; fields that it lacks count as 0, as its makers
have it, and fields that are not known are passed over. Variances and sums of KV tokens are not read: nothing is made of
them here.

Sources: ``dynamo/common/forward_pass_metrics.py`` of ai-dynamo 1.6.1,
https://github.com/sgl-project/sglang/blob/main/python/sglang/srt/observability/forward_pass_metrics.py.
vLLM's own, with one field more, is proposed: https://github.com/vllm-project/vllm/pull/52061
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from agent.forward_passes import Pass

VERSION: Final = 1
_Count = Annotated[int, msgspec.Meta(ge=0, le=0x7FFFFFFF)]
_Rank = Annotated[int, msgspec.Meta(ge=0, le=0x7FFF)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, lt=86_400)]


class UnreadableError(ValueError):
    """A message that is no forward pass, or of a version that is not known."""


class _Scheduled(msgspec.Struct, frozen=True, gc=False):
    num_prefill_requests: _Count = 0
    sum_prefill_tokens: _Count = 0
    num_decode_requests: _Count = 0


class _Queued(msgspec.Struct, frozen=True, gc=False):
    num_prefill_requests: _Count = 0
    num_decode_requests: _Count = 0


class _Told(msgspec.Struct, frozen=True, gc=False):
    version: int = VERSION
    dp_rank: _Rank = 0
    wall_time: _Seconds = 0.0
    scheduled_requests: _Scheduled = _Scheduled()
    queued_requests: _Queued = _Queued()


_DECODER: Final = msgspec.msgpack.Decoder(_Told)


def read(body: bytes) -> Pass:
    """One message.

    Raises:
        UnreadableError: It is none.
    """
    try:
        told = _DECODER.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UnreadableError(str(error)) from None
    if told.version != VERSION:
        raise UnreadableError(f"version {told.version}")
    scheduled, queued = told.scheduled_requests, told.queued_requests
    return Pass(
        told.dp_rank,
        told.wall_time,
        scheduled.num_prefill_requests,
        scheduled.sum_prefill_tokens,
        scheduled.num_decode_requests,
        queued.num_prefill_requests + queued.num_decode_requests,
    )
