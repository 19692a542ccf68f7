"""Servers behind a name: what a resolver answers over the wire, and what is watched for it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from agent.config import AgentConfig, load
from agent.discovery.dns import LINGER_SECONDS, Dns, Settings
from agent.finder import Surroundings
from agent.target import Place, Target
from base.errors import ConfigError
from tests.kits.agent_fakes import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

NAME = "vllm.chat.svc.cluster.local"


class Zone(asyncio.DatagramProtocol):
    """A resolver that answers as it is told, over UDP."""

    def __init__(self) -> None:
        self.records: dict[str, list[str]] = {}
        self.ttl = 5
        self.code = dns.rcode.NOERROR
        self.asked = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        answer = dns.message.make_response(query)
        question = query.question[0]
        kind = dns.rdatatype.to_text(question.rdtype)
        answer.flags |= dns.flags.RA
        answer.set_rcode(self.code)
        self.asked += kind in {"A", "SRV"}
        if self.code == dns.rcode.NOERROR and self.records.get(kind):
            answer.answer.append(dns.rrset.from_text(question.name, self.ttl, "IN", kind, *self.records[kind]))
        self.transport.sendto(answer.to_wire(), addr)


@asynccontextmanager
async def zone() -> AsyncIterator[tuple[Zone, str]]:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(Zone, local_addr=("127.0.0.1", 0))
    try:
        yield protocol, "127.0.0.1:{}".format(transport.get_extra_info("sockname")[1])
    finally:
        transport.close()
        await asyncio.sleep(0)  # the loop closes it in its next turn


def around(silent: set[str] | None = None) -> Surroundings:
    return Surroundings(Place(), lambda: (), answers=lambda instance: instance not in (silent or set()))


def settings(**more: object) -> Settings:
    return Settings.model_validate({"kind": "dns", "name": NAME, "port": 8000} | more)


@asynccontextmanager
async def looking(finder: Dns) -> AsyncIterator[list[Sequence[Target]]]:
    told: list[Sequence[Target]] = []
    task = asyncio.create_task(finder.run(told.append))
    try:
        yield told
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_addresses_are_servers_and_those_that_go_have_left():
    async with zone() as (resolver, at):
        resolver.records = {"A": ["10.1.0.7", "10.1.0.8"], "AAAA": ["fd00::7"]}
        asked = settings(resolver=at, deployment="chat", engine="vllm", every_seconds=1, metrics_path="/m")
        finder = Dns(asked, around(), soonest_seconds=0.02)
        async with looking(finder) as told:
            await until(lambda: bool(told))
            first = {one.instance: one for one in told[0]}
            assert set(first) == {"chat-10.1.0.7:8000", "chat-10.1.0.8:8000", "chat-fd00--7:8000"}
            one = first["chat-fd00--7:8000"]
            assert (one.url, one.metrics_url) == ("http://[fd00::7]:8000", "http://[fd00::7]:8000/m")
            assert (one.deployment, one.engine) == ("chat", "vllm")
            resolver.records = {"A": ["10.1.0.8"]}
            resolver.ttl = 0
            await until(lambda: [one.instance for one in told[-1]] == ["chat-10.1.0.8:8000"])
            assert list(finder.problems()) == []


async def test_a_resolver_that_fails_takes_nothing_away_and_is_told():
    async with zone() as (resolver, at):
        resolver.records, resolver.ttl = {"A": ["10.1.0.7"]}, 0
        finder = Dns(settings(resolver=at, every_seconds=1), around(), soonest_seconds=0.02)
        async with looking(finder) as told:
            await until(lambda: bool(told))
            resolver.code = dns.rcode.SERVFAIL
            await until(lambda: finder.failures >= 2)
            assert [one.instance for one in told[-1]] == ["vllm-10.1.0.7:8000"]
            (problem,) = finder.problems()
            assert problem.startswith(f"dns:{NAME} can't be asked for its servers, those that were known stay: A: ")
            resolver.code = dns.rcode.NOERROR
            await until(lambda: not finder.error)
            resolver.code = dns.rcode.NXDOMAIN
            await until(lambda: told[-1] == [])
            assert list(finder.problems()) == [f"dns:{NAME} has no A and no AAAA record: no server is watched by it"]


async def test_a_resolver_that_never_answered_tells_of_no_server():
    async with zone() as (resolver, at):
        resolver.code = dns.rcode.REFUSED
        finder = Dns(settings(resolver=at, every_seconds=1), around(), soonest_seconds=0.02)
        async with looking(finder) as told:
            await until(lambda: finder.failures >= 1)
            assert told == []


async def test_srv_records_tell_name_and_port():
    async with zone() as (resolver, at):
        resolver.records = {"SRV": [f"0 50 8000 chat-0.{NAME}.", f"0 50 8001 chat-1.{NAME}.", "0 0 0 ."]}
        finder = Dns(settings(port=None, record="srv", resolver=at), around(), soonest_seconds=0.02)
        async with looking(finder) as told:
            await until(lambda: bool(told))
            assert [(one.instance, one.url) for one in told[0]] == [
                ("chat-0", f"http://chat-0.{NAME}:8000"),
                ("chat-1", f"http://chat-1.{NAME}:8001"),
            ]


async def test_a_name_is_asked_again_when_its_time_to_live_is_over_and_not_before():
    async with zone() as (resolver, at):
        resolver.records, resolver.ttl = {"A": ["10.1.0.7"]}, 600
        finder = Dns(settings(resolver=at), around())
        waits = [await finder._look(finder._resolver())]
        resolver.ttl = 12
        waits.append(await finder._look(finder._resolver()))
        resolver.ttl = 0
        waits.append(await finder._look(finder._resolver()))
    assert waits == [30.0, 12.0, 5.0]


def test_one_that_was_silent_before_the_name_lost_it_is_watched_a_minute_longer():
    a, b, c = (Target(name, "d", url=f"http://{name}:1") for name in "abc")
    silent = {"b"}
    finder = Dns(settings(), around(silent))
    assert finder.settle({"a": a, "b": b, "c": c}, 0.0) == [a, b, c]
    assert finder.settle({"a": a}, 10.0) == [a, b], "c answered when the name lost it: it was to go"
    silent.clear()
    assert finder.settle({"a": a}, 10.0 + LINGER_SECONDS / 2) == [a, b]
    assert finder.settle({"a": a, "b": b}, 50.0) == [a, b]
    silent.add("b")
    assert finder.settle({"a": a}, 60.0) == [a, b], "the minute begins again"
    assert finder.settle({"a": a}, 60.0 + LINGER_SECONDS) == [a]
    assert finder._until == {}


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{kind: dns, name: a.b}", "discovery[0].port: is needed: addresses name no port"),
        ("{kind: dns, name: a.b, port: 1, record: srv}", "discovery[0].port: is told by SRV records: leave it out"),
        ("{kind: dns, name: 'http://a', port: 1}", "discovery[0].name: 'http://a' is no host name"),
        (
            "{kind: dns, name: a.b, port: 1, resolver: nine}",
            "discovery[0].resolver: 'nine' is no address of a resolver",
        ),
        ("{kind: dsn, name: a.b, port: 1}", "discovery[0]: kind 'dsn' is none of 'dns', "),
        ("{kind: static, urls: ['ftp://a']}", "discovery[0].urls: ftp://a is not a URL"),
        ("{kind: local, port: 1}", "discovery[0].port: no such field"),
    ],
)
def test_what_is_wrong_is_told_by_line_and_field(tmp_path: Path, entry: str, said: str):
    file = tmp_path / "servescope.yaml"
    file.write_text(f"agent:\n  discovery:\n    - {entry}\n")
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    assert f"servescope.yaml:3: agent.{said}" in str(caught.value)


def test_the_environment_and_the_file_say_the_same(tmp_path: Path):
    file = tmp_path / "servescope.yaml"
    file.write_text(
        "agent:\n  discovery:\n    - {kind: dns, name: a.b, port: 1}\n    - {kind: static, urls: [http://h]}\n"
    )
    said = load(
        None, {"SERVESCOPE_AGENT_DISCOVERY": "[{kind: dns, name: a.b, port: 1}, {kind: static, urls: [http://h]}]"}
    )
    assert load(file, {}).discovery == said.discovery
    assert [one.kind for one in AgentConfig(discover=True).looks()] == ["local"]
