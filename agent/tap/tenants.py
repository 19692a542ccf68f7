"""Who asked: by a key that the server took, as a salted hash, or by what a header says; never without bound."""

from __future__ import annotations

import math
import re
import time
import unicodedata
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from agent.tap.credentials import KEY_FIELDS, KeyNames, query_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.tap.head import RequestHead

OTHER: Final = "other"
"""Name of all names past the bound."""
_NAME: Final = re.compile(rb"[\x20-\x7e\x80-\xff]{1,128}")
_OURS: Final = re.compile(r"v\d+:|header:|other$", re.IGNORECASE)
"""Names that a header could pass off as something that only the tap says."""
_DECLARED: Final = "header:"
_HALF_LIFE_SECONDS: Final = 600.0
_FRESH_SECONDS: Final = 1.0
_IDLE_SECONDS: Final = 3_600.0
_LOOK_AGAIN_SECONDS: Final = 1.0
_WAITING: Final = 16


class BoundedNames:
    """At most ``limit`` distinct names at a time, the rest become ``other``; the budget ages.

    A name that came once holds no place against one that comes again and again: uses are counted and halve every ten
    minutes, and a newcomer takes the place of the least used name as soon as it has been used twice as much, or of one
    that was idle for an hour. So names that somebody makes up can't keep others out. In an hour at most ``limit``
    places change hands (a tenth of it at once), which bounds the names of a day too.

    Args:
        limit: Distinct names kept.
        overflow: Called for each request whose name becomes ``other``.
        clock: Seconds.
    """

    def __init__(
        self, limit: int, overflow: Callable[[], object] = lambda: None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = limit
        self._overflow = overflow
        self._clock = clock
        self._known: dict[str, tuple[float, float]] = {}  # uses, as they counted when it was last seen, to a second
        self._waiting: OrderedDict[str, int] = OrderedDict()
        self._burst = max(1.0, limit / 10)
        self._changes = self._burst
        self._changes_at = clock()
        self._look_at = 0.0

    def __call__(self, name: str, *, trusted: bool = True) -> str:
        """The name to record.

        Args:
            name: As it came; an empty one stays empty.
            trusted: Whether whoever bears it was served: names of refused requests take half the places at most and
                nobody's.
        """
        if not name:
            return name
        now = self._clock()
        if (known := self._known.get(name)) is not None:
            uses, seen = known
            fresh = now - seen < _FRESH_SECONDS  # then it is not worth working out by how little its uses have aged
            self._known[name] = (uses + 1, seen) if fresh else (self._uses(name, now) + 1, now)
            return name
        room = self._limit if trusted else self._limit // 2
        if len(self._known) < room or (trusted and self._take_place(name, now)):
            self._known[name] = (1.0, now)
            return name
        self._overflow()
        return OTHER

    @property
    def distinct(self) -> int:
        """Distinct names kept."""
        return len(self._known)

    def _uses(self, name: str, now: float) -> float:
        uses, seen = self._known[name]
        return uses * math.exp2((seen - now) / _HALF_LIFE_SECONDS)

    def _take_place(self, name: str, now: float) -> bool:
        uses = self._waiting.pop(name, 0) + 1
        self._waiting[name] = uses
        if len(self._waiting) > _WAITING * self._limit:
            self._waiting.popitem(last=False)
        per_second = self._limit / _IDLE_SECONDS
        self._changes = min(self._burst, self._changes + (now - self._changes_at) * per_second)
        self._changes_at = now
        if self._changes < 1 or now < self._look_at:
            return False
        least = min(self._known, key=lambda known: self._uses(known, now))
        idle = now - self._known[least][1] > _IDLE_SECONDS
        if not idle and (uses == 1 or uses < 2 * self._uses(least, now)):
            self._look_at = now + _LOOK_AGAIN_SECONDS if uses > 1 else self._look_at
            return False
        del self._known[least]
        del self._waiting[name]
        self._changes -= 1
        return True


def _as_it_looks(name: str) -> str:
    """A name without what nobody sees, and in plain forms of its letters; alphabets that look alike stay apart."""
    plain = unicodedata.normalize("NFKC", name)
    return "".join(letter for letter in plain if unicodedata.category(letter) != "Cf").strip()


class Bound(Protocol):
    """What ``Tenants`` needs of ``BoundedNames``."""

    def __call__(self, name: str, *, trusted: bool = True) -> str:
        """The name to record."""
        ...


class Who(NamedTuple):
    """What a request says of who asks.

    Attributes:
        declared: As the header names the tenant; empty if none does.
        key: Hash of its key's subject, or that one's display name; empty if it has no key.
    """

    declared: str = ""
    key: str = ""


class Tenants:
    """Finds the tenant of a request.

    Args:
        salt: ``Keys.tenant_salt``.
        header: Field that names the tenant; empty to take none.
        key_header: Field that holds the client's key; the usual ones (``credentials.KEY_FIELDS``) and the query are
            looked at after it; empty to hash none.
        names: Display names by hash (``v1:…``) or by header value.
        bound: Bounds the distinct names.
        header_wins: Whether the header beats a key that the server took.
        claim: Claim of a JWT that names its subject.
    """

    def __init__(
        self,
        salt: bytes,
        *,
        header: str,
        key_header: str,
        names: Mapping[str, str],
        bound: Bound,
        header_wins: bool = False,
        claim: str = "sub",
    ) -> None:
        self._key_names = KeyNames(salt, claim)
        self._header = header.lower().encode()
        self._key_headers = tuple(dict.fromkeys((key_header.lower().encode(), *KEY_FIELDS))) if key_header else ()
        self._names = dict(names)
        self._of_keys = frozenset(name for key, name in names.items() if _OURS.match(key))
        self._bound = bound
        self._header_wins = header_wins

    def look(self, head: RequestHead, *, query: bool = True) -> Who:
        """What a request says of who asks.

        Args:
            head: Its head.
            query: Whether a key may stand in its query.
        """
        declared = ""
        named = self._header and head.get(self._header) is not None
        if named and _NAME.fullmatch(value := b", ".join(head.all(self._header))):
            declared = value.decode("utf-8", "replace")
            looks = declared if declared.isascii() else _as_it_looks(declared)
            if _OURS.match(looks) or looks in self._of_keys:
                declared = _DECLARED + declared
            else:
                declared = self._names.get(declared, declared)
        key = self._key(head, query=query)
        if self._names:
            key = self._names.get(key, key)
        return Who(declared, key)

    def _key(self, head: RequestHead, *, query: bool) -> str:
        bears = False
        for field in self._key_headers:
            if held := head.get(field):
                bears = True
                if name := self._key_names.of(held):
                    return name
        return self._key_names.of(query_key(head)) if query and not bears and self._key_headers else ""

    def name(self, who: Who, *, refused: bool) -> str:
        """Tenant to record, empty when nothing names one.

        Args:
            who: What the request says.
            refused: Whether the server refused its key (401, 403): then that key says nothing against the header.
        """
        by_header = who.declared and (self._header_wins or refused or not who.key)
        return self._bound(who.declared if by_header else who.key, trusted=not refused)
