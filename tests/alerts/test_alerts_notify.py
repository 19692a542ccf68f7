from __future__ import annotations

import json
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.deliver.message import Message
from alerts.deliver.notifier import LONGEST_RETRY_AFTER_SECONDS, reached, retry_after
from alerts.deliver.notify.pagerduty import MAX_BYTES, PagerDuty, Settings, _Answered
from alerts.deliver.receiver import KEPT_PAGES, PER_MINUTE, Pages, Receiver, faults_of, read_pages
from base.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from alerts.deliver.certificate import Certificate

KEY = "k" * 31 + "K"
MESSAGE = Message(
    "trigger",
    "i1",
    "servescope-i1",
    1_800_000_000.0,
    "critical",
    "waiting 57 on triton-a, limit 20, for 6 s",
    "triton-a",
    group="vision",
    kind="engine-waiting",
    details={"rule": "engine-waiting", "value": 57.0, "evidence": {"tenants": [{"tenant": "a", "seconds": 3}]}},
    links=(("Incident", "http://127.0.0.1:8501/incidents?id=i1"), ("Runbook", "docs/runbooks/engine-waiting.md")),
)


@pytest.fixture
def pager(receiver: Receiver) -> Iterator[PagerDuty]:
    made = PagerDuty(KEY, base_url=receiver.url, ca_file=receiver.certificate.authority)
    yield made
    made.close()


def test_a_page_and_its_end_arrive_as_pagerduty_wants_them(pager: PagerDuty, receiver: Receiver):
    assert pager.send(pager.render(MESSAGE)).verdict == "sent"
    assert pager.send(pager.render(replace(MESSAGE, action="acknowledge"))).verdict == "sent"
    assert pager.send(pager.render(replace(MESSAGE, action="resolve"))).verdict == "sent"
    trigger, acknowledge, resolve = (page["event"] for page in receiver.pages.all())
    assert trigger["payload"]["summary"] == MESSAGE.title
    assert trigger["payload"]["severity"] == "critical"
    assert trigger["payload"]["source"] == "triton-a"
    assert trigger["payload"]["custom_details"]["value"] == 57.0
    assert trigger["links"] == [{"href": "http://127.0.0.1:8501/incidents?id=i1", "text": "Incident"}]
    assert [e["event_action"] for e in (trigger, acknowledge, resolve)] == ["trigger", "acknowledge", "resolve"]
    assert {e["dedup_key"] for e in (trigger, acknowledge, resolve)} == {"servescope-i1"}
    assert "payload" not in resolve
    assert KEY not in json.dumps(receiver.pages.all())


@pytest.mark.parametrize(
    ("status", "headers", "verdict", "after"),
    [
        (429, {"Retry-After": "7"}, "retry", 7.0),
        (429, {}, "retry", None),
        (429, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, "retry", 0.0),
        (429, {"Retry-After": "soon"}, "retry", None),
        (429, {"Retry-After": "1e12"}, "retry", LONGEST_RETRY_AFTER_SECONDS),
        (500, {"Retry-After": "7"}, "retry", 7.0),
        (503, {"Retry-After": "7"}, "retry", 7.0),
        (401, {}, "retry", None),
        (302, {"Location": "https://elsewhere.test/"}, "retry", None),
        (400, {}, "refused", None),
    ],
)
def test_every_answer_comes_back_at_once(
    pager: PagerDuty, receiver: Receiver, status: int, headers: dict[str, str], verdict: str, after: float | None
):
    asked: list[int] = []
    receiver.fail_with = lambda: asked.append(1) or (status, headers)
    began = time.monotonic()
    delivery = pager.send(pager.render(MESSAGE))
    assert (delivery.verdict, delivery.retry_after) == (verdict, after)
    assert f"HTTP {status}" in delivery.error
    assert len(asked) == 1  # the client's own retrying is off
    assert time.monotonic() - began < 10


def test_a_receiver_that_is_down_or_not_trusted_is_a_retry(certificate: Certificate, tmp_path: Path):
    receiver = Receiver(certificate, Pages()).start()
    stranger = PagerDuty(KEY, base_url=receiver.url)
    distrust = stranger.send(stranger.render(MESSAGE))
    assert distrust.verdict == "retry"
    assert "CERTIFICATE_VERIFY_FAILED" in distrust.error
    stranger.close()
    receiver.stop()
    pager = PagerDuty(KEY, base_url=receiver.url, ca_file=certificate.authority)
    away = pager.send(pager.render(MESSAGE))
    assert away.verdict == "retry"
    assert "can't be reached" in away.error
    pager.close()


def test_the_key_is_in_no_log_and_no_error(
    pager: PagerDuty, receiver: Receiver, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
):
    caplog.set_level(logging.DEBUG)
    receiver.fail_with = lambda: (500, {})
    assert KEY not in pager.send(pager.render(MESSAGE)).error
    assert pager._judge(_Answered(400, f"no such key {KEY}", "")).error == "HTTP 400: no such key …"
    assert KEY not in caplog.text
    assert KEY not in "".join(capsys.readouterr())
    assert KEY not in repr(pager.render(MESSAGE))


trees = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=3000),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=300), inner, max_size=4),
    max_leaves=30,
)


@settings(max_examples=30, deadline=None)
@given(
    st.text(max_size=3000),
    st.text(max_size=3000),
    st.text(max_size=600),
    st.dictionaries(st.text(max_size=300), trees, max_size=6),
    st.sampled_from(["critical", "error", "warning", "info"]),
)
def test_whatever_the_notice_the_event_is_within_pagerdutys_limits(
    title: str, source: str, key: str, details: dict[str, Any], severity: Any
):
    pager = PagerDuty(KEY)
    message = Message("trigger", "i", "k" + key, 0.0, severity, "t" + title, source, details=details)
    event = {**pager.render(message), "routing_key": KEY}
    blank = {"'payload.source' is missing or blank"} if not (source or "s").strip() else set()
    assert set(faults_of(event)) - blank == set()
    assert len(json.dumps(event).encode()) <= MAX_BYTES
    pager.close()


def test_huge_details_are_left_out_by_name_not_refused(pager: PagerDuty):
    details = {"rule": "r", "small": [1, 2], **{f"big{n}": ["ä" * 1000] * 100 for n in range(8)}}
    event = pager.render(replace(MESSAGE, details=details))
    kept = event["payload"]["custom_details"]
    assert kept["rule"] == "r"
    assert "big" in kept["left_out"]
    assert pager.send(event).verdict == "sent"


@pytest.mark.parametrize(
    ("event", "fault"),
    [
        ([], "not a JSON object"),
        ({"routing_key": "short", "event_action": "resolve", "dedup_key": "x"}, "routing_key"),
        ({"routing_key": KEY, "event_action": "shout", "dedup_key": "x"}, "event_action"),
        ({"routing_key": KEY, "event_action": "resolve"}, "'dedup_key' is missing"),
        ({"routing_key": KEY, "event_action": "resolve", "dedup_key": "x" * 256}, "255"),
        ({"routing_key": KEY, "event_action": "trigger"}, "'payload' is missing"),
        ({"routing_key": KEY, "event_action": "trigger", "payload": {"summary": "s" * 1025}}, "1024"),
        ({"routing_key": KEY, "event_action": "trigger", "payload": {"severity": "bad"}}, "severity"),
    ],
)
def test_the_receiver_refuses_what_pagerduty_refuses(receiver: Receiver, event: Any, fault: str):
    status, body, _ = receiver.answer(event)
    assert status == 400
    assert any(fault in text for text in body["errors"])
    assert receiver.pages.all() == []


def test_the_receiver_takes_120_a_minute_and_key(certificate: Certificate):
    now = [1000.0]
    receiver = Receiver(certificate, Pages(), clock=lambda: now[0])
    event = {"routing_key": KEY, "event_action": "resolve", "dedup_key": "x"}
    assert {receiver.answer(dict(event))[0] for _ in range(PER_MINUTE)} == {202}
    status, _, headers = receiver.answer(dict(event))
    assert (status, headers) == (429, {"Retry-After": "5"})
    assert receiver.answer(event | {"routing_key": "o" * 32})[0] == 202
    now[0] += 60
    assert receiver.answer(dict(event))[0] == 202
    receiver.start().stop()


def test_pages_are_kept_in_a_bounded_file(tmp_path: Path):
    path = tmp_path / "pages.json"
    pages = Pages(path)
    for number in range(KEPT_PAGES + 5):
        pages.add(float(number), {"event_action": "trigger", "dedup_key": str(number), "routing_key": KEY})
    kept = read_pages(path)
    assert len(kept) == KEPT_PAGES
    assert kept[-1]["dedup_key"] == str(KEPT_PAGES + 4)
    assert KEY not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    assert Pages(path).all() == kept
    path.write_text("{broken")
    assert read_pages(path) == []


def test_the_routing_key_comes_from_file_or_environment_and_is_checked(tmp_path: Path):
    path = tmp_path / "key"
    path.write_text(KEY + "\n")
    config = Settings(routing_key_file=path)
    assert config.routing_key({}) == KEY
    assert config.routing_key({"SERVESCOPE_PAGERDUTY_ROUTING_KEY": "e" * 32}) == "e" * 32
    assert Settings().routing_key({}) == ""
    path.write_text("short")
    with pytest.raises(ConfigError, match="5 characters, not 32"):
        config.routing_key({})
    path.unlink()
    with pytest.raises(ConfigError, match="can't be read"):
        config.routing_key({})


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("0", 0),
        ("7", 7),
        ("120.5", 120.5),
        ("-3", 0),
        ("nan", None),
        ("inf", None),
        ("1e400", None),
        ("", None),
        ("later", None),
        ("99999999", LONGEST_RETRY_AFTER_SECONDS),
        ("Thu, 01 Jan 1970 00:17:10 GMT", 30),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST_RETRY_AFTER_SECONDS),
        ("Thursday, 01-Jan-70 00:17:10 GMT", 30),
        ("Thu, 99 Jan 1970 00:17:10 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_bounded(said: str, seconds: float | None):
    assert retry_after(said, 1000.0) == seconds


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kolkata"])
@pytest.mark.parametrize(
    "said", ["Thu Jan  1 00:17:10 1970", "Thu, 01 Jan 1970 00:17:10", "Thu, 01 Jan 1970 00:17:10 -0000"]
)
def test_a_date_without_a_zone_is_utc_wherever_the_pager_runs(monkeypatch: pytest.MonkeyPatch, said: str, zone: str):
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        found = retry_after(said, 1000.0)
    time.tzset()
    assert found == 30


def test_a_repeat_is_one_page_and_a_full_disk_loses_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pages = Pages(tmp_path / "pages.json")
    trigger = {"event_action": "trigger", "dedup_key": "k", "payload": {"summary": "s"}}
    resolve = {"event_action": "resolve", "dedup_key": "k"}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("alerts.deliver.receiver.os.fsync", full)
    for event in (trigger, trigger):  # the answer to the first was lost
        pages.add(1.0, event)
    monkeypatch.undo()
    for event in (resolve, resolve, trigger):
        pages.add(2.0, event)
    assert [page["action"] for page in pages.all()] == ["trigger", "resolve", "trigger"]
    assert read_pages(tmp_path / "pages.json") == pages.all()


@pytest.mark.parametrize(
    ("notifier", "destination", "whom"),
    [
        ("pagerduty", "https://events.pagerduty.com", "pagerduty"),
        ("pagerduty", "https://127.0.0.1:9466", "the built-in receiver"),
        ("webhook", "http://127.0.0.1:8080", "webhook"),
    ],
)
def test_a_page_that_stayed_here_is_not_said_to_have_reached_pagerduty(notifier: str, destination: str, whom: str):
    assert reached(notifier, destination) == whom


@pytest.mark.parametrize("text", [None, "no certificate"])
def test_a_certificate_that_can_not_be_read_is_named(tmp_path: Path, text: str | None):
    if text is not None:
        (tmp_path / "ca.pem").write_text(text)
    with pytest.raises(ConfigError, match=r"^alerts\.pagerduty\.ca_file \S+ca\.pem is no certificate"):
        PagerDuty(KEY, ca_file=tmp_path / "ca.pem")
