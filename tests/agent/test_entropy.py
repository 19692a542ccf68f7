from __future__ import annotations

import os
from typing import TYPE_CHECKING

from agent import entropy
from agent.entropy import draw

if TYPE_CHECKING:
    import pytest


def test_no_bytes_are_given_out_twice(monkeypatch: pytest.MonkeyPatch):
    pages = [bytes([n]) * 4_095 + b"!" for n in range(4)]
    monkeypatch.setattr(entropy.os, "urandom", lambda size: pages.pop(0)[:size])
    monkeypatch.setattr(entropy._POOL, "page", type(entropy._POOL.page)())
    drawn = b"".join(draw(16) for _ in range(512))
    assert drawn == bytes([0]) * 4_095 + b"!" + bytes([1]) * 4_095 + b"!"
    assert draw(3) == b"\x02" * 3
    assert len(draw(4_094)) == 4_094


def test_a_forked_process_draws_others():
    draw(1)
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writing, draw(16))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 16) != draw(16)
    os.close(reading)
    os.close(writing)
