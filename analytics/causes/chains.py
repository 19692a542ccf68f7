"""Chains of causes: which of an account's causes brought about which, and what the first of them began with.

A link is told where a mechanism is known (`mechanisms`), both ends are charged at one instance (or the first is an
event on record), the first begins no later than the second and not long before it, and most of what the second took
lies in the first's time or soon after. Charges stay what they are: a chain says how many of them it stands for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from analytics.causes.advice import NAMES, ONSETS
from analytics.causes.mechanisms import BEGINNINGS, LEADS, WORK, depths
from analytics.causes.place import AFTER_SECONDS, SLACK_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from analytics.causes.arrays import Floats
    from analytics.causes.onset import Onset

ONSET_SHARE: Final = 0.02
"""Share of an episode's seconds by which it has begun, and that is left when it is over: single requests are noise."""
BEND: Final = 0.1
"""Share of an episode's seconds by which their sum lies below a straight line where work began to grow."""
MOST_OF: Final = 0.5
"""Share of an episode's seconds that has to lie in the time of what brought it about."""
MOST: Final = 20
"""Chains that are told, those of most seconds."""
PLACES: Final = 3
"""Instances of a chain that a sentence names."""
_DEPTHS: Final = depths()


@dataclass(frozen=True)
class Episode:
    """A stretch in which a cause was charged at an instance.

    Args:
        cause, instance, deployment: Of what, where.
        at: Begin of each bin, seconds since the origin.
        whole: Seconds charged in each bin, of all requests of the account.
        asked: Of these, of the requests that are asked about.
    """

    cause: str
    instance: str
    deployment: str
    at: Floats
    whole: Floats
    asked: Floats

    @cached_property
    def since(self) -> float:
        """When it began.

        Work that is asked for varies, so that some is charged at all times: it began where its sum bends most, by that
        over a straight line (Page's CUSUM, *Biometrika* 41, 1954), if it bends.
        """
        done = np.cumsum(self.whole) / self.whole.sum()
        if self.cause in WORK:
            below = np.arange(1, len(done) + 1) / len(done) - done
            if below.max() >= BEND:
                return float(self.at[min(int(below.argmax()) + 1, len(done) - 1)])
        return self._when(ONSET_SHARE)

    @cached_property
    def until(self) -> float:
        """Begin of the bin in which it was over."""
        return self._when(1 - ONSET_SHARE)

    @property
    def middle(self) -> float:
        """Begin of the bin in which half of its seconds were charged."""
        return self._when(0.5)

    def seconds(self, until: float = np.inf) -> float:
        """Seconds of the requests asked about in bins that begin by a time."""
        return float(self.asked[self.at <= until].sum())

    def share(self, until: float) -> float:
        """Share of everybody's seconds in bins that begin by a time."""
        return float(self.whole[self.at <= until].sum() / self.whole.sum())

    def _when(self, share: float) -> float:
        place = int(np.searchsorted(np.cumsum(self.whole), share * self.whole.sum()))
        return float(self.at[min(place, len(self.at) - 1)])


@dataclass(frozen=True)
class Beginning:
    """An event on record that a chain may begin with.

    Args:
        onset: Which, in words; its seconds are since the origin.
        until: When it was over, seconds since the origin.
        instances: Where it happened.
        slack: Seconds by which it may be told too late.
    """

    onset: Onset
    until: float
    instances: frozenset[str]
    slack: float = 0.0


@dataclass(frozen=True, slots=True)
class Step:
    """A cause in a chain.

    Attributes:
        cause: Its name.
        after: The cause that brought it about; None for the first, or the first after an event.
        because: The mechanism, a sentence; empty for a first cause without an event.
        since_seconds: When it began, seconds after the window's start.
        seconds: Its charge that stands in this chain: never more than the cause's own.
    """

    cause: str
    after: str | None
    because: str
    since_seconds: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Chain:
    """Causes of which one brought about the next.

    Attributes:
        began: The event that it began with; None where none is on record.
        instances: Where.
        deployment: Of which deployment.
        since_seconds: When it began, seconds after the window's start.
        seconds: Those of its steps in sum.
        share: Of the excess seconds; 0 without an excess.
        steps: In order of what brought about what; the first is charged first, or right after the event.
        told: The chain in words (`in_words`).
        advice: What to turn: of what it began with, since what that brought about comes again else.
    """

    began: Onset | None
    instances: list[str]
    deployment: str
    since_seconds: float
    seconds: float
    share: float
    steps: list[Step]
    told: str = ""
    advice: str = ""


@dataclass(frozen=True)
class Link:
    """An episode and what brought it about: another episode, an event, or nothing that is known."""

    episode: Episode
    cause: Episode | None = None
    event: Beginning | None = None


def links(
    episodes: Iterable[Episode], events: Sequence[Beginning], holds: Callable[[Episode | Beginning, Episode], bool]
) -> list[Link]:
    """What brought about each episode: one thing at most, the latest of those that may have.

    Args:
        episodes: Of all causes at all instances.
        events: On record.
        holds: Whether nothing speaks against one having brought about the other, beyond mechanism, place and time.
    """
    ordered = sorted(episodes, key=_order)
    found = []
    for one in ordered:
        causes = [other for other in ordered if _leads(other, one) and holds(other, one)]
        begun = [
            event
            for event in events
            if _begins(event, one) and not any(_was_there(other, event, one) for other in ordered) and holds(event, one)
        ]
        cause = max(causes, key=_order, default=None)
        # of a deploy and the restart that it brings, the deploy
        event = min(begun, key=lambda each: (each.onset.seconds, each.onset.event, each.onset.what), default=None)
        if cause is not None and event is not None and event.onset.seconds > cause.since:
            cause = None
        found.append(Link(one, cause, event if cause is None else None))
    return found


def chained(found: Sequence[Link], from_seconds: float, excess: float, scale: float = 1.0) -> list[Chain]:
    """Chains of links, most seconds first; what leads to nothing and began with nothing is none.

    Args:
        found: Of all episodes.
        from_seconds: When the window begins, seconds since the origin.
        excess: Seconds above the reference of the requests asked about.
        scale: Requests that each stands for.
    """
    by_episode = {id(link.episode): link for link in found}
    groups: list[_Group] = []
    for link in sorted(found, key=lambda one: _order(one.episode)):
        path = [link]
        while (cause := path[-1].cause) is not None:
            path.append(by_episode[id(cause)])
        root = path[-1]
        group = next((one for one in groups if one.takes(root)), None)
        if group is None:
            group = _Group(root, [])
            groups.append(group)
        group.links.append(link)
    told = [group.told(from_seconds, excess, scale) for group in groups if group.is_chain]
    return sorted(told, key=lambda one: (-one.seconds, one.deployment, one.instances, one.since_seconds))[:MOST]


def way_of(steps: Sequence[Step]) -> tuple[list[str], list[str]]:
    """The causes along which a chain's most seconds lie, from the first on; and those that branch off."""
    below = {one.cause: [other for other in steps if other.after == one.cause] for one in steps}

    def weight(one: Step) -> float:
        return one.seconds + sum(weight(other) for other in below[one.cause])

    way: list[str] = []
    next_ = [one for one in steps if one.after is None]
    while next_:
        way.append(max(next_, key=weight).cause)
        next_ = below[way[-1]]
    return way, [one.cause for one in steps if one.cause not in way]


def in_words(chain: Chain, when: str) -> str:
    """``began with a deploy at 06:54 (v2 goes out): cold prefix cache → KV cache full on vllm-0 (62 % of the excess)``.

    Args:
        chain: The chain.
        when: The time at which it began.
    """
    way, besides = ([NAMES.get(cause, cause) for cause in part] for part in way_of(chain.steps))
    also = f", and {', '.join(besides)}" if besides else ""
    where = f" on {', '.join(chain.instances[:PLACES])}" if chain.instances else ""
    more = f" and {len(chain.instances) - PLACES} more" if len(chain.instances) > PLACES else ""
    began = (
        f"began with {ONSETS[chain.began.event]} at {when} ({chain.began.what})" if chain.began else f"began at {when}"
    )
    share = f" ({min(chain.share, 1.0):.0%} of the excess)".replace("%", " %") if chain.share > 0 else ""
    return f"{began}: {' → '.join(way)}{also}{where}{more}{share}"


@dataclass
class _Group:
    """Links of one chain: those that began with one event, or at about one time with the same cause."""

    root: Link
    links: list[Link]

    def takes(self, root: Link) -> bool:
        if root.event is not None or self.root.event is not None:
            mine, theirs = self.root.event, root.event
            same = mine is not None and theirs is not None and mine.onset == theirs.onset
            return same and root.episode.deployment == self.root.episode.deployment
        mine_, theirs_ = self.root.episode, root.episode
        return (
            (mine_.cause, mine_.deployment) == (theirs_.cause, theirs_.deployment)
            and abs(theirs_.since - mine_.since) <= AFTER_SECONDS
        )  # fmt: skip

    @property
    def is_chain(self) -> bool:
        return self.root.event is not None or any(link.cause is not None for link in self.links)

    def told(self, from_seconds: float, excess: float, scale: float) -> Chain:
        event = self.root.event
        # beside an instance where one led to the next, another where it led to nothing tells nothing
        telling = self.links if event is not None else [one for one in self.links if self._in_a_chain(one)]
        steps: dict[str, list[tuple[Link, float]]] = {}
        for link in telling:
            until = link.cause.until + AFTER_SECONDS if link.cause is not None else np.inf
            steps.setdefault(link.episode.cause, []).append((link, link.episode.seconds(until) * scale))
        made = [_step(cause, behind, from_seconds) for cause, behind in steps.items()]
        made.sort(key=lambda one: (_DEPTHS[one.cause], one.cause))
        seconds = sum(one.seconds for one in made)
        since = event.onset.seconds if event is not None else min(link.episode.since for link in telling)
        began = replace(event.onset, seconds=since - from_seconds) if event is not None else None
        return Chain(
            began=began,
            instances=sorted({link.episode.instance for link in telling}),
            deployment=self.root.episode.deployment,
            since_seconds=since - from_seconds,
            seconds=seconds,
            share=seconds / excess if excess > 0 else 0.0,
            steps=made,
        )

    def _in_a_chain(self, link: Link) -> bool:
        return link.cause is not None or any(other.cause is link.episode for other in self.links)


def _step(cause: str, behind: Sequence[tuple[Link, float]], from_seconds: float) -> Step:
    most = max(behind, key=lambda one: (one[1], -one[0].episode.since, one[0].episode.instance))[0]
    after = most.cause.cause if most.cause is not None else None
    because = ""
    if after is not None:
        because = LEADS[after][cause]
    elif most.event is not None:
        because = BEGINNINGS[most.event.onset.event][cause]
    since = min(link.episode.since for link, _ in behind)
    return Step(cause, after, because, since - from_seconds, sum(seconds for _, seconds in behind))


def _order(one: Episode) -> tuple[float, int, str, float]:
    """Time, then what brings others about, so that of two that began together the nearer one is the later."""
    return one.since, _DEPTHS[one.cause], one.instance, one.until


def _leads(one: Episode, other: Episode) -> bool:
    return (
        other.cause in LEADS.get(one.cause, {})
        and one.instance == other.instance
        and one.since <= other.since <= min(one.since + AFTER_SECONDS, one.until + SLACK_SECONDS)
        and other.share(one.until + AFTER_SECONDS) >= MOST_OF
        and other.seconds(one.until + AFTER_SECONDS) > 0
    )


def _begins(event: Beginning, other: Episode) -> bool:
    step = float(other.at[1] - other.at[0]) if len(other.at) > 1 else 1.0
    return (
        other.cause in BEGINNINGS.get(event.onset.event, {})
        and other.instance in event.instances
        and event.onset.seconds - event.slack < other.since + step
        and other.since <= event.until + AFTER_SECONDS
    )


def _was_there(other: Episode, event: Beginning, one: Episode) -> bool:
    """Whether there was trouble already when an event came, no smaller than what came after."""
    at = event.onset.seconds - event.slack
    return (
        other.instance == one.instance
        and other.since < at <= other.until + SLACK_SECONDS
        and other.whole.sum() >= one.whole.sum()
    )
