"""Nothing waits for an agent: what nobody takes is dropped and counted, and the count arrives."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest
from servescope_probe import sender as probe_sender
from servescope_probe import wire
from servescope_probe.sender import Sender

from agent.probe import socket as agents
from tests.probe.probe_kit import Mailbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BODY = bytes(wire.STEP_BODY.size)


@pytest.fixture
def made() -> Iterator[Callable[..., Sender]]:
    """Makes senders that are closed in the end."""
    all_of_them: list[Sender] = []

    def make(path: Path, instance: str = "") -> Sender:
        all_of_them.append(Sender(str(path), instance))
        return all_of_them[-1]

    yield make
    for one in all_of_them:
        one._held.clear()
        one.close()


def test_without_an_agent_all_is_dropped_and_told_later(tmp_path: Path, made: Callable[..., Sender]):
    sender = made(tmp_path / "probe.sock")
    for _ in range(5):
        sender.put(wire.STEP, 0, BODY, now=True)
    assert sender.dropped == 5
    box = Mailbox(tmp_path / "probe.sock")
    sender._retry_at = 0.0
    sender.put(wire.STEP, 0, BODY, now=True)
    (told,) = box.datagrams()
    assert (told.dropped, told.number, len(told.records), told.pid) == (5, 0, 1, os.getpid())
    box.close()


@pytest.mark.parametrize("whose", ["everybodys", "linked", "anothers", "anothers socket", "linked socket"])
def test_what_another_user_may_have_put_there_gets_nothing(
    tmp_path: Path,
    made: Callable[..., Sender],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    whose: str,
):
    """Requests have keys and prompts."""
    folder = tmp_path / "servescope-7"
    folder.mkdir(mode=0o700)
    box = Mailbox(folder / "probe.sock")
    path = box.path
    if whose == "everybodys":
        folder.chmod(0o777)
    elif whose == "linked":
        (tmp_path / "link").symlink_to(folder)
        path = tmp_path / "link" / "probe.sock"
    elif whose == "linked socket":
        path = tmp_path / "probe.sock"
        path.symlink_to(box.path)
    else:
        found = os.lstat
        strange = str(folder if whose == "anothers" else path)

        def lstat(asked: str) -> os.stat_result:
            real = found(asked)
            return os.stat_result((*real[:4], os.getuid() + 1, *real[5:10])) if str(asked) == strange else real

        monkeypatch.setattr(probe_sender.os, "lstat", lstat)
    sender = made(path)
    for _ in range(2):
        sender._retry_at = 0.0
        sender.put(wire.STEP, 0, BODY, now=True)
    assert box.raw() == []
    assert sender.dropped == 2
    assert caplog.text.count("is not this user's alone") == 1
    monkeypatch.undo()
    folder.chmod(0o700)
    box.close()


def test_a_busy_agent_gets_it_all_a_dead_ones_successor_the_rest(tmp_path: Path, made: Callable[..., Sender]):
    box = Mailbox(tmp_path / "probe.sock")
    sender = made(box.path, "vllm-a")
    for _ in range(2_000):  # more than any queue of the kernel holds
        sender.put(wire.STEP, 0, BODY, now=True)
    assert sender.dropped == 0
    got = 0
    while records := len(box.records()):
        got += records
        sender.flush()
    assert got == 2_000
    box.close()
    sender.put(wire.STEP, 0, BODY, now=True)
    assert sender.dropped == 1
    again = Mailbox(box.path)
    sender._retry_at = 0.0
    sender.put(wire.STEP, 0, BODY, now=True)
    (told,) = again.datagrams()
    assert (told.dropped, told.instance) == (1, "vllm-a")
    again.close()


def test_an_agent_that_never_reads_costs_a_bounded_memory(tmp_path: Path, made: Callable[..., Sender]):
    box = Mailbox(tmp_path / "probe.sock")
    sender = made(box.path)
    for _ in range(20_000):
        sender.put(wire.STEP, 0, BODY, now=True)
    assert sender._bytes <= probe_sender._HELD_BYTES + 1_000
    assert sender.dropped > 0
    got = 0
    while records := len(box.records()):
        got += records
        sender.flush()
    assert got + sender.dropped == 20_000
    box.close()


def test_records_of_a_moment_travel_together(tmp_path: Path, made: Callable[..., Sender]):
    box = Mailbox(tmp_path / "probe.sock")
    sender = made(box.path)
    sender.put(wire.STEP, 0, BODY)
    sender._flushed_at = float("inf")
    for _ in range(10):
        sender.put(wire.STEP, 1, BODY)
    sender.flush()
    assert [len(told.records) for told in box.datagrams()] == [1, 10]
    box.close()


def test_a_child_tells_for_itself(tmp_path: Path, made: Callable[..., Sender]):
    box = Mailbox(tmp_path / "probe.sock")
    sender = made(box.path)
    sender.put(wire.STEP, 0, BODY)
    sender._flushed_at = float("inf")
    sender.put(wire.STEP, 0, BODY)  # held: the parent's, once
    if (child := os.fork()) == 0:
        try:
            sender.flush()
            sender.put(wire.STEP, 7, BODY, now=True)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    sender.flush()
    found = [(told.pid == child, [record.rank for record in told.records]) for told in box.datagrams()]
    assert found == [(False, [0]), (True, [7]), (False, [0])]
    box.close()


@pytest.mark.parametrize(
    "environment",
    [{"SERVESCOPE_PROBE_SOCKET": "/somewhere/else"}, {"XDG_RUNTIME_DIR": "/run/user/7"}, {}],
)
def test_both_sides_look_for_the_socket_at_one_place(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]):
    for name in ("SERVESCOPE_PROBE_SOCKET", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert probe_sender.default_path() == str(agents.default_path())


def test_a_server_that_had_no_descriptor_left_is_told_of_again(
    tmp_path: Path, made: Callable[..., Sender], monkeypatch: pytest.MonkeyPatch
):
    def none_left(*_arguments: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    box = Mailbox(tmp_path / "probe.sock")
    sender = made(box.path)
    monkeypatch.setattr(probe_sender.socket, "socket", none_left)
    sender.put(wire.STEP, 0, BODY, now=True)
    assert (sender.dropped, sender.connections) == (1, 0)
    monkeypatch.undo()
    sender._retry_at = 0.0
    sender.put(wire.STEP, 0, BODY, now=True)
    (told,) = box.datagrams()
    assert (told.dropped, len(told.records)) == (1, 1)
    box.close()
