"""Which pods have which GPUs and since when, whoever tells: a kubelet, or a page that names pods.

Both become the same rows, so that who asks whose a GPU is need not know who told. A kubelet's word is first hand: a
page has it of the same kubelet and shows it half a minute later, so that it is not believed about GPUs of which a
kubelet told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from agent.otlp.encode import resource
from base.vocabulary import Resource

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

PATIENCE_SECONDS: Final = 67.5
"""Time without a word of a teller after which what it told is forgotten: of a kubelet, three looks and a half."""
MOST_HOLDINGS: Final = 4096
"""Of one teller: 16 GPUs in 7 parts, each handed out 36 times."""


class Holding(NamedTuple):
    """A pod has a GPU, or a part of one.

    Attributes:
        gpu: UUID, or what stands for one.
        namespace, pod: Whose.
    """

    gpu: str
    namespace: str
    pod: str


class _Word(NamedTuple):
    """What one teller told last.

    Attributes:
        at_ms: When.
        since: What pods have, and since when without a break (Unix ms).
        gpus: All GPUs that it told of, where its word is first hand.
    """

    at_ms: int
    since: Mapping[Holding, int]
    gpus: frozenset[str]


class GpuPods:
    """How long each pod has had each GPU without a break, by several tellers.

    Args:
        patience_seconds: Time without a word of a teller after which what it told is forgotten.
    """

    def __init__(self, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._patience_ms = patience_seconds * 1000
        self._words: dict[str, _Word] = {}

    def fork(self) -> GpuPods:
        """Another one that was told the same."""
        twin = GpuPods(self._patience_ms / 1000)
        twin._words = dict(self._words)
        return twin

    def tell(
        self, teller: str, holdings: Collection[Holding], time_ms: int, *, first_hand: bool = False
    ) -> dict[Holding, float]:
        """All that one teller sees at a time.

        Args:
            teller: Who.
            holdings: What it sees.
            time_ms: When (Unix ms).
            first_hand: No other teller is believed about these GPUs any more, until this one is silent.

        Returns:
            Seconds that each pod has had each GPU, of those that this teller is believed about.
        """
        words = {who: word for who, word in self._words.items() if time_ms - word.at_ms <= self._patience_ms}
        gpus: frozenset[str] = frozenset()
        if first_hand:
            before = words[teller].gpus if teller in words else gpus
            now = frozenset(one.gpu for one in holdings)
            gpus = now | before if len(before) < MOST_HOLDINGS else now
        else:
            firsts = {gpu for who, word in words.items() if who != teller for gpu in word.gpus}
            holdings = [one for one in holdings if one.gpu not in firsts]
        known: dict[Holding, int] = {}
        for word in words.values():
            for one, since in word.since.items():
                known[one] = min(known.get(one, since), since)
        told = {one: min(known.get(one, time_ms), time_ms) for one in sorted(holdings)[:MOST_HOLDINGS]}
        if first_hand:
            words = {who: _less(word, gpus) for who, word in words.items()}
        self._words = {**words, teller: _Word(time_ms, told, gpus)}
        return {one: (time_ms - since) / 1000 for one, since in told.items()}


def held_rows(
    held: Mapping[Holding, float], place: Mapping[str, str], nodes: Mapping[str, str] | None = None
) -> list[tuple[bytes, dict[str, float]]]:
    """Rows as they are sent: resource, and the seconds that a pod has had a GPU.

    Args:
        held: Seconds.
        place: Attributes of where the teller is; pod and namespace in it are not whose the GPU is.
        nodes: Machines of GPUs, where they are others than the teller's.
    """
    made = []
    for one, seconds in held.items():
        node = (nodes or {}).get(one.gpu) or place.get(Resource.NODE, "")
        its_own = {
            "hw.type": "gpu",
            "hw.id": one.gpu,
            Resource.NODE: node,
            Resource.POD: one.pod,
            Resource.NAMESPACE: one.namespace,
            Resource.POD_NODE: node,
        }
        whose = {name: value for name, value in {**place, **its_own}.items() if value}
        made.append((resource(whose), {"pod_held_seconds": seconds}))
    return made


def _less(word: _Word, gpus: Collection[str]) -> _Word:
    """A word without these GPUs."""
    left = {one: since for one, since in word.since.items() if one.gpu not in gpus}
    return word._replace(since=left)
