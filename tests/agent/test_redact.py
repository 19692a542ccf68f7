from __future__ import annotations

import logging
import subprocess
import sys

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from agent.config import TargetConfig
from agent.discovery.static import target_of
from agent.otlp.encode import encode_event
from agent.tap.config import read_upstream
from base.errors import ConfigError, ServescopeError
from base.logs import log_to_stderr
from base.redact import redacted, shown
from base.urls import http_url
from collector.config import CollectorConfig
from collector.store.address import StoreAddress

HIDDEN = "s3cretw0rd"
LETTERS = st.text(st.characters(min_codepoint=33, max_codepoint=0x17F, exclude_categories=["Zs", "Cc"]), max_size=8)


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("http://127.0.0.1:8000/metrics", "http://127.0.0.1:8000/metrics"),
        (f"http://user:{HIDDEN}@h:1/metrics", "http://h:1/metrics"),
        (f"user:{HIDDEN}@h:1", "h:1"),
        (f"http://{HIDDEN}@[::1]:1", "http://[::1]:1"),
        (f"http://h/m?token={HIDDEN}&page=2", "http://h/m?token=…&page=…"),
        (f"http://h/m?{HIDDEN}", "http://h/m?…"),
        (f"http://h/#access={HIDDEN}", "http://h/#…"),
        (f"http://h/?token=a#{HIDDEN}", "http://h/?token=…#…"),
        (f"http://u:a/{HIDDEN}?x#y@h/m", "http://…@h/m"),
        (f"http://u:{HIDDEN}@h/?k=a@b", "http://…@b"),
        (f"name=http://u:{HIDDEN}@h", "name=http://h"),
        (f"user:a://{HIDDEN}@h:1", "…@h:1"),
        (f"http://u:a://{HIDDEN}@h:1", "http://…@h:1"),
    ],
)
def test_what_people_may_see_of_a_url(url: str, plain: str):
    assert shown(url) == plain


@given(LETTERS, LETTERS, LETTERS)
def test_no_letter_of_a_password_stays_in_a_text(before: str, after: str, word: str):
    url = f"http://{before}{HIDDEN}{after}@host:1/metrics?k={HIDDEN}"
    assert HIDDEN not in shown(url)
    assert HIDDEN not in redacted(f"{word} {url} is not there, nor is ({url}): {word}")


def test_a_text_without_secrets_stays_as_it_is():
    text = "Give --collector http://HOST:4318, or wss://host/path; a@b and 1 < 2? see https://example.com/#part"
    assert redacted(text) == text


def test_every_error_for_people_loses_them():
    error = ServescopeError(f"http://u:{HIDDEN}@h answers 500", f"Ask http://h?t={HIDDEN}")
    assert HIDDEN not in f"{error} {error.what} {error.fix} {error!r}"
    assert str(error) == "http://h answers 500. Ask http://h?t=…"


@pytest.mark.parametrize("tail", ["", ":bad", "@h:bad", "/x@h:99999", "[@h", "\u2100@h", "?t=1"])
def test_what_is_no_url_is_refused_without_its_secrets(tail: str):
    url = f"http://user:{HIDDEN}{tail}"
    checks = (http_url, StoreAddress.parse, target_of, read_upstream)
    for check in checks:
        with pytest.raises((ConfigError, ValueError)) as caught:
            check(f"ftp://user:{HIDDEN}@{tail}" if "@" not in tail else url)
        assert HIDDEN not in str(caught.value)


@pytest.mark.parametrize("kind", ["machine", "terminal"])
def test_log_lines_lose_them(kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    url = f"http://user:{HIDDEN}@h:1/m?token={HIDDEN}"
    if kind == "terminal":
        monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    log_to_stderr()
    error = ValueError(f"cannot connect to {url}")
    structlog.get_logger().error("failed", url=url, more={"why": [error, url]}, error=error, exc_info=error)
    assert logging.lastResort is not None
    logging.lastResort.handle(logging.makeLogRecord({"msg": f"retrying {url}", "levelno": logging.ERROR}))
    told = capsys.readouterr().err
    assert HIDDEN not in told
    assert "http://h:1/m?token=…" in told
    assert "retrying http://h:1" in told


@pytest.mark.parametrize("where", ["main", "thread"])
def test_what_nobody_catches_loses_them(where: str):
    told = "raise ValueError('no answer of http://user:" + HIDDEN + "@h/m?token=" + HIDDEN + "')"
    lines = ["from base.logs import log_to_stderr", "log_to_stderr()", told]
    if where == "thread":
        lines[2:] = ["import threading", f"def fail():\n    {told}", "threading.Thread(target=fail).start()"]
    ended = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert "ValueError: no answer of http://h/m?token=" in ended.stderr
    assert "Traceback" in ended.stderr
    assert HIDDEN not in ended.stderr


def test_events_lose_them_and_are_bounded():
    url = f"http://user:{HIDDEN}@h/m"
    details = {"reason": f"no answer of {url}", **{f"{'n' * 300}{number}": "v" * 9_000 for number in range(500)}}
    body = encode_event({}, "instance_down", f"{url} is away" + "x" * 100_000, 1, details)
    assert HIDDEN.encode() not in body
    record = ExportLogsServiceRequest.FromString(body).resource_logs[0].scope_logs[0].log_records[0]
    assert record.body.string_value.startswith("http://h/m is away")
    assert len(record.body.string_value) == 2_000
    assert len(record.attributes) == 64
    assert max(len(one.key) for one in record.attributes) == 100
    assert record.attributes[0].value.string_value == "no answer of http://h/m"


def test_settings_do_not_show_them():
    url = f"http://user:{HIDDEN}@h"
    target = TargetConfig(instance="a", url=url, metrics_url=url, key_env=HIDDEN)
    for shown_as in (target, target.target(), CollectorConfig(clickhouse=url)):
        assert HIDDEN not in repr(shown_as)
        assert HIDDEN not in str(shown_as)


@pytest.mark.parametrize("blank", [" ", "\N{NO-BREAK SPACE}", "\N{LINE SEPARATOR}"])
def test_a_server_whose_password_has_a_blank_is_refused_before_it_is_a_setting(blank: str):
    with pytest.raises(ConfigError, match=r"--target http://h:1 is not a URL"):
        target_of(f"http://user:a{blank}{HIDDEN}@h:1")


@pytest.mark.parametrize("url", [f"http://user?{HIDDEN}@h:1", f"http://h:1/?{HIDDEN}"])
def test_a_stores_parameter_is_not_named(url: str):
    with pytest.raises(ConfigError, match="another parameter than database") as caught:
        StoreAddress.parse(url)
    assert HIDDEN not in str(caught.value)
