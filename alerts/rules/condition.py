"""What a rule of the file may say under ``when``: one of the kinds that are files of ``kinds/``."""

from __future__ import annotations

from functools import lru_cache, reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, TypeAdapter

from alerts.rules import kinds
from alerts.rules.scope import Strict
from alerts.state import NoData  # noqa: TC001 pydantic reads it at run time
from base import found

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alerts.measure.measured import Measured
    from alerts.measure.needs import Needs
    from alerts.rules.blind import Blind
    from alerts.rules.reading import Reading
    from alerts.rules.scope import Scope


class Condition(Strict):
    """What every kind of condition must tell.

    A file ``kinds/<kind>.py`` has the class ``When``, a `Condition` whose field ``kind`` is the word itself.

    Attributes:
        silence: What no data means where the rule does not say.
    """

    silence: ClassVar[NoData] = "keep"
    kind: str

    @property
    def patience(self) -> float:
        """Seconds that it must hold at least, whatever the rule's ``for``."""
        return 0.0

    def needs(self, scope: Scope) -> Needs:
        """What it must know of what lies in a scope."""
        raise NotImplementedError

    def identity(self) -> tuple[str, ...]:
        """Labels that tell its alerts apart."""
        raise NotImplementedError

    def judge(self, scope: Scope, measured: Measured, now: float) -> list[Reading]:
        """What it sees of each set of labels; pure."""
        raise NotImplementedError

    def blind(self, scope: Scope, held: float) -> Iterator[Blind]:
        """Fields for which it can never hold, or always does.

        Args:
            scope: The rule's filter.
            held: Seconds of the rule's ``for``.
        """
        raise NotImplementedError


@lru_cache(maxsize=8)
def _adapter(there: tuple[type[Condition], ...]) -> TypeAdapter[Any]:
    one_of: Any = Annotated[reduce(or_, there), Field(discriminator="kind")]
    return TypeAdapter(one_of)


def _of_its_kind(value: object) -> object:
    there = found.members(kinds, "When")
    return value if isinstance(value, Condition) else _adapter(tuple(there.values())).validate_python(value)


OneOfItsKind = Annotated[Condition, BeforeValidator(_of_its_kind)]
