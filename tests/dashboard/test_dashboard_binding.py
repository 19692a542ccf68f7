"""What binds engine time, in a line and in colours."""

from __future__ import annotations

import csv
from types import SimpleNamespace
from typing import Any

import pytest

from analytics.questions.steps import BINDINGS, BoundInstance, Source, Steps
from dashboard import binding
from dashboard.export import as_csv
from dashboard.theme import DARK, LIGHT


def told(*instances: tuple[str, Source, dict[str, float]]) -> Steps:
    made = [
        BoundInstance(name, source, {**dict.fromkeys(BINDINGS, 0.0), **shares}, 10.0, [])
        for name, source, shares in instances
    ]
    whole = {name: sum(one.shares[name] for one in made) / len(made) for name in BINDINGS}
    return Steps(1, [], [], whole, made, [])


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ({"kv_blocks": 0.4, "sequences": 0.1, "nothing": 0.5}, "**Yes: KV blocks bind** 40 % of engine time. Besides"),
        (
            {"kv_blocks": 0.1, "sequences": 0.4, "idle": 0.5},
            "**No: the number of sequences binds** 40 % of engine time",
        ),
        ({"token_budget": 0.2, "nothing": 0.8}, "**No: the token budget of a step binds** 20 % of engine time."),
        ({"other": 0.2, "nothing": 0.8}, "**No: requests wait for something else** in 20 % of engine time."),
        ({"kv_blocks": 0.001, "nothing": 0.999}, "**No: nothing binds.**"),
        ({"idle": 1.0}, "**No: nothing binds.** Engines were idle all the time."),
    ],
)
def test_the_title_is_answered_in_words(shares: dict[str, float], said: str):
    assert binding.in_words(told(("one", "steps", shares))).startswith(said)


def test_the_line_names_who_is_bound_most_and_what_is_known_coarsely():
    line = binding.in_words(told(("a[b", "samples", {"kv_blocks": 0.8}), ("two", "steps", {"kv_blocks": 0.2})))
    assert "50 % of engine time, most on a\\[b (80 %)." in line
    assert "for 1 server: no probe" in line
    assert "no probe" not in binding.in_words(told(("two", "steps", {"kv_blocks": 0.2})))
    assert binding.rests_on(told(("two", "seconds", {"idle": 1.0}))) == "steps by second"


def test_the_file_of_the_table_is_the_table(monkeypatch: pytest.MonkeyPatch):
    result = told(("one", "steps", {"kv_blocks": 0.25}), ("=two", "samples", {"sequences": 0.5}))
    shown: dict[str, Any] = {}
    monkeypatch.setattr(binding, "ask", lambda *_: SimpleNamespace(result=result))
    monkeypatch.setattr(binding, "table", lambda frame, _key: shown.update(table=frame))
    monkeypatch.setattr(binding, "foot", lambda *_, rows: shown.update(file=as_csv(rows)))
    binding.instances(SimpleNamespace(selection=None))  # type: ignore[arg-type]
    head, first, second = csv.reader(shown["file"].splitlines())
    assert head == list(shown["table"].columns)
    assert (
        dict(zip(head, first, strict=True)).items() >= {"Instance": "one", "KV blocks %": "25.0", "Steps": ""}.items()
    )
    assert dict(zip(head, second, strict=True)).items() >= {"Instance": "'=two", "Sequences %": "50.0"}.items()


def test_every_binding_has_a_name_and_a_colour_of_its_own():
    for palette in (LIGHT, DARK):
        chosen = binding.colours_of(palette)
        assert set(chosen) == set(binding.NAMED) == set(BINDINGS)
        assert len(set(chosen.values())) == len(BINDINGS)
