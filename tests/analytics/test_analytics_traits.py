"""What a trait says is what its text says, and what makes no sense is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.question import QuestionError
from analytics.traits import NAMES, NUMBERS, Trait

ENDS = st.floats(allow_nan=False, allow_infinity=False)


@given(
    column=st.sampled_from(sorted(NAMES)), value=st.text(), lacking=st.booleans(),
    number=st.sampled_from(sorted(NUMBERS)),
    ends=st.one_of(
        st.tuples(ENDS, st.none()), st.tuples(st.none(), ENDS), st.lists(ENDS, min_size=2, max_size=2, unique=True)
    ),
)  # fmt: skip
def test_its_text_is_read_as_it_was_written(
    column: str,
    value: str,
    lacking: bool,
    number: str,
    ends: tuple[float | None, ...],
) -> None:
    low, high = sorted(ends) if None not in ends else ends  # type: ignore[type-var]
    for trait in (Trait(column, value, lacking=lacking), Trait(number, "", low, high, lacking)):
        assert Trait.of(str(trait), lacking=lacking) == trait


@pytest.mark.parametrize(
    "text",
    ["", "tenant_name=a", "e2e_seconds=1..", "prompt_tokens=900", "prompt_tokens=", "prompt_tokens=..",
     "prompt_tokens=9..3", "prompt_tokens=3..3", "prompt_tokens=a..", "prompt_tokens=nan..", "key=1", "=x",
     "prompt_tokens=1..inf", "model) OR (1=1"],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(QuestionError):
        Trait.of(text)
