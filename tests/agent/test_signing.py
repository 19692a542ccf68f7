from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from base import signing

KEY = bytes(range(32))
NOW = 1_780_000_000_000


def headers_for(body: bytes = b"body", now_ms: int = NOW, path: str = "/v1/traces") -> dict[str, str]:
    return signing.signed_headers(KEY, "POST", path, body, now_ms=now_ms, batch="b-1")


def refusal(headers: dict[str, str], body: bytes = b"body", path: str = "/v1/traces", now_ms: int = NOW):
    return signing.verify({signing.key_id(KEY): KEY}, "POST", path, headers, body, now_ms=now_ms)


def test_signature_is_the_documented_text():
    text = f"POST\n/v1/traces\n{NOW}\n{hashlib.sha256(b'body').hexdigest()}".encode()
    headers = headers_for()
    assert headers["X-Servescope-Signature"] == "v1=" + hmac.new(KEY, text, hashlib.sha256).hexdigest()
    assert headers["X-Servescope-Key-Id"] == hashlib.sha256(KEY).hexdigest()[:8]
    assert headers["X-Servescope-Timestamp"] == str(NOW)
    assert headers["X-Servescope-Batch"] == "b-1"


@given(body=st.binary(max_size=200), skew=st.integers(-300_000, 300_000))
def test_right_signature_is_accepted_within_the_window(body: bytes, skew: int):
    assert refusal(headers_for(body), body, now_ms=NOW + skew) is None


@pytest.mark.parametrize("skew", [-300_001, 300_001])
def test_old_and_future_signatures_expire(skew: int):
    assert refusal(headers_for(), now_ms=NOW + skew) is signing.Refusal.EXPIRED


def test_every_signed_part_is_bound():
    headers = headers_for()
    assert refusal(headers, body=b"bodz") is signing.Refusal.MISMATCH
    assert refusal(headers, path="/v1/logs") is signing.Refusal.MISMATCH
    assert refusal(headers | {"X-Servescope-Timestamp": str(NOW + 1)}) is signing.Refusal.MISMATCH
    assert refusal(headers | {"X-Servescope-Signature": headers["X-Servescope-Signature"][3:]}) is not None
    assert refusal(headers | {"X-Servescope-Signature": "v1=é"}) is signing.Refusal.MISMATCH


def test_unknown_key_and_missing_parts():
    assert refusal(headers_for() | {"X-Servescope-Key-Id": "00000000"}) is signing.Refusal.UNKNOWN_KEY
    for name in ("X-Servescope-Key-Id", "X-Servescope-Timestamp", "X-Servescope-Signature"):
        headers = headers_for()
        del headers[name]
        assert refusal(headers) is signing.Refusal.INCOMPLETE
        assert signing.is_signed(headers)
    assert not signing.is_signed({"X-Servescope-Batch": "b"})


@pytest.mark.parametrize("stamp", ["-5", "1e3", "now", "٣", "9" * 40])
def test_odd_timestamps_are_refused(stamp: str):
    assert refusal(headers_for() | {"X-Servescope-Timestamp": stamp}) is signing.Refusal.TIMESTAMP
