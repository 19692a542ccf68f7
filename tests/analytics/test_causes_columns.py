"""Columns of an account: what comes as Arrow is what rows would be."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from analytics.causes import load
from analytics.causes.columns import Names, columns_of
from analytics.inquiry import Inquiry
from analytics.selection import Selection
from analytics.window import Window

if TYPE_CHECKING:
    import pytest

    from analytics.causes.table import Requests
    from tests.analytics.lab import Lab


def test_texts_are_codes_in_order_of_appearance_whatever_their_dictionaries():
    pieces = [
        pa.DictionaryArray.from_arrays(pa.array([1, 1, 0]), pa.array(["b", "a"])),
        pa.DictionaryArray.from_arrays(pa.array([0, 2]), pa.array(["c", "unused", "b"])),
    ]
    found = columns_of(pa.table({"name": pa.chunked_array(pieces), "n": pa.array([1, 2, 3, 4, 5], pa.uint32())}))
    assert found["name"].names == ("a", "b", "c")
    assert found["name"].codes.tolist() == [0, 0, 1, 2, 1]
    assert found["n"].tolist() == [1, 2, 3, 4, 5]
    assert Names.of(found["name"]) is found["name"]
    empty = columns_of(pa.table({"name": pieces[0].slice(0, 0), "n": pa.array([], pa.uint32())}))
    assert len(empty["name"]) == len(empty["n"]) == 0


def test_an_account_has_every_request_of_the_window_and_no_more_than_enough_before(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
):
    window = Window(lab.window.start + timedelta(minutes=4), lab.window.end)
    whole = load.load(Inquiry(lab.store, Selection(window))).requests
    rows = lab.rows(window=window)
    inside = whole.inside
    assert inside.sum() == len(rows)
    assert np.isclose(whole.e2e[inside].sum(), sum(row["e2e_seconds"] for row in rows))
    for name in ("tenant", "instance", "outcome"):
        column = getattr(whole, name)
        told = sorted(column.names[code] for code in column.codes[inside])
        assert told == sorted(row[name] for row in rows)
    before = of_deployments(whole)
    enough = min(before.values()) // 2
    monkeypatch.setattr(load, "MOST_BEFORE", enough)
    monkeypatch.setattr(load, "SHORTEST_SECONDS", 10.0)
    fewer = load.load(Inquiry(lab.store, Selection(window))).requests
    assert fewer.inside.sum() == inside.sum()
    left = of_deployments(fewer)
    assert left.keys() == before.keys()
    # a step of counting may hold more than enough by itself, and there is one at least
    assert all(0 < many <= max(enough, 2 * most_at_once(whole, name)) for name, many in left.items())


def of_deployments(requests: Requests) -> dict[str, int]:
    """Requests before the window, by deployment."""
    codes = requests.deployment.codes[~requests.inside]
    return {requests.deployment.names[code]: int((codes == code).sum()) for code in np.unique(codes)}


def most_at_once(requests: Requests, deployment: str) -> int:
    """The most requests of a deployment in ten seconds before the window."""
    start = requests.start[~requests.inside & requests.deployment.among([deployment])]
    first = requests.start[requests.inside].min()
    return int(np.bincount(((first - start) // 10).astype(int)).max())
