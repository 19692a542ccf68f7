"""Forward passes of an engine as its steps.

A forward pass tells how long it took and not when; when it ended is when it was heard of. Between two of them the
engine may have been idle or may have stood still: the only witness is the second one's own time. Where that is the time
since the first, it was at work all along, and where the publisher told meanwhile that nothing ran, it had been idle.
"""

from __future__ import annotations

from math import nan
from typing import Final, NamedTuple

from agent.probe.datagram import Step

_NS: Final = 1_000_000_000
_JITTER_SECONDS: Final = 0.002
_JITTER_SHARE: Final = 0.05
"""Of the time between two, by which hearing of them may be late."""
_UNKNOWN: Final = Step._make([0, 0, 0, *[-1] * 4, nan, *[-1] * 20, nan])


class Pass(NamedTuple):
    """One forward pass, or a heartbeat: then all is 0.

    Attributes:
        rank: Data-parallel rank.
        seconds: What it took, as its engine measures it: the time since the pass before (Dynamo's scheduler in vLLM),
            or the GPU's (SGLang).
        prefill_requests: Requests of the batch in prefill.
        prefill_tokens: Prompt tokens that were computed for them.
        decode_requests: Requests of the batch in decoding.
        waiting: Requests in the queue when it ended, preempted ones among them.
    """

    rank: int
    seconds: float
    prefill_requests: int
    prefill_tokens: int
    decode_requests: int
    waiting: int

    @property
    def is_heartbeat(self) -> bool:
        """Whether nothing ran."""
        return not (self.seconds or self.prefill_requests or self.decode_requests)


class Passes:
    """The passes of one publisher, in the order in which they came.

    Attributes:
        lost: Messages that were missed.
    """

    def __init__(self) -> None:
        self.lost = 0
        self._next: int | None = None
        self._counter = 0
        self._ended_ns = 0
        self._rested = False
        self._broken = False

    def add(self, number: int, one: Pass, now_ns: int) -> list[Step]:
        """The steps that a message makes known.

        Args:
            number: Of the message; one that falls is a publisher's that was started again.
            one: What it tells.
            now_ns: When it came, Unix ns.
        """
        self._note(number)
        if one.is_heartbeat:
            self._rested = True
            return []
        steps = []
        if not self._ended_ns or self._broken:
            self._counter += 2  # one that follows none
        elif self._was_at_work(one, now_ns):
            self._counter += 1
        elif self._rested:
            steps.append(self._rest())
            self._counter += 1
        else:
            self._counter += 2
        self._ended_ns, self._rested, self._broken = max(now_ns, self._ended_ns), False, False
        steps.append(self._step(one))
        return steps

    def pass_over(self, number: int) -> None:
        """A message that can't be read; what follows it follows nothing."""
        self._note(number)
        self._broken = True

    def _note(self, number: int) -> None:
        if self._next is not None and number != self._next:
            self.lost += max(0, number - self._next)
            self._broken = True
        self._next = number + 1

    def _was_at_work(self, one: Pass, now_ns: int) -> bool:
        passed = (now_ns - self._ended_ns) / _NS
        return abs(passed - one.seconds) <= max(_JITTER_SECONDS, _JITTER_SHARE * passed)

    def _rest(self) -> Step:
        """That nothing was left to do after the pass before."""
        self._counter += 1
        return _UNKNOWN._replace(
            counter=self._counter, completed_ns=self._ended_ns + 1_000, running=0, waiting=0, prefill_requests=0,
            prefill_tokens=0, decode_requests=0, decode_tokens=0,
        )  # fmt: skip

    def _step(self, one: Pass) -> Step:
        return _UNKNOWN._replace(
            counter=self._counter,
            scheduled_ns=self._ended_ns - int(one.seconds * _NS),
            completed_ns=self._ended_ns,
            running=one.prefill_requests + one.decode_requests,
            waiting=one.waiting,
            prefill_requests=one.prefill_requests,
            prefill_tokens=one.prefill_tokens,
            decode_requests=one.decode_requests,
            elapsed_seconds=one.seconds,
        )
