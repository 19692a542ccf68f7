"""The webhook: signed, sent nowhere else, heeded when it asks to come again."""

from __future__ import annotations

import base64
import json
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from alerts.deliver.message import Message
from alerts.deliver.notify.pagerduty import PagerDuty
from alerts.deliver.notify.webhook import Webhook, sign
from base.errors import ConfigError

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


class Raw:
    """A server that answers each request with the next of some bytes, and keeps what it was sent."""

    def __init__(self, *answers: bytes) -> None:
        self.got: list[bytes] = []
        self._answers = list(answers)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        for answer in self._answers:
            taken, _ = self._socket.accept()
            with taken:
                taken.settimeout(30)
                head = b""
                while b"\r\n\r\n" not in head:
                    head += taken.recv(65_536)
                length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])  # type: ignore[index]
                while len(head.partition(b"\r\n\r\n")[2]) < length:
                    head += taken.recv(65_536)
                self.got.append(head)
                taken.sendall(answer)

    def close(self) -> None:
        self._thread.join(60)
        self._socket.close()


def test_a_webhook_that_asks_to_come_again_later_is_heeded():
    answers = [
        b"HTTP/1.1 503 Busy\r\nRetry-After: 9\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 429 Slow\r\nRetry-After: Thu, 01 Jan 1970 00:17:10 GMT\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 500 Oh\r\nRetry-After: 8\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 502 Gateway\r\nRetry-After: Thu Jan  1 00:17:00 1970\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 There\r\nLocation: /x\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 413 For now\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 413 Never\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 410 Gone\r\nRetry-After: 60\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n",
    ]
    server = Raw(*answers)
    hook = Webhook(f"http://127.0.0.1:{server.port}/", clock=lambda: 1000.0)
    found = [hook.send(hook.render(MESSAGE)) for _ in answers]
    server.close()
    assert [(one.verdict, one.retry_after) for one in found] == [
        *(("retry", seconds) for seconds in (9.0, 30.0, 8.0, 20.0, 5.0, 60.0)),
        ("refused", None),
        ("refused", None),
        ("retry", None),
    ]


@pytest.mark.parametrize(
    "answer", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 abc Odd\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"x" * 99_999]
)
def test_a_webhook_that_speaks_no_http_is_tried_again(answer: bytes):
    server = Raw(answer)
    hook = Webhook(f"http://127.0.0.1:{server.port}/")
    delivery = hook.send(hook.render(MESSAGE))
    server.close()
    assert delivery.verdict == "retry"


def test_a_login_in_a_webhooks_url_is_sent_and_never_said():
    server = Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    hook = Webhook(f"http://us%40er:s3cret@127.0.0.1:{server.port}/hook")
    assert hook.send(hook.render(MESSAGE)).verdict == "sent"
    server.close()
    assert b"Authorization: Basic " + base64.b64encode(b"us@er:s3cret") in server.got[0]
    assert b"s3cret" not in server.got[0].splitlines()[0]
    away = hook.send(hook.render(MESSAGE))
    assert away.verdict == "retry"
    assert "s3cret" not in away.error + hook.destination + PagerDuty(KEY, base_url="https://u:s3cret@h").destination


def test_a_webhook_is_signed_and_its_answers_are_judged():
    got: list[tuple[dict[str, str], bytes]] = []
    answers = iter([200, 500, 410, 302])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((dict(self.headers), self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(next(answers))
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    hook = Webhook(f"http://127.0.0.1:{server.server_address[1]}/secret-path", b"s3cret", clock=lambda: 1000.0)
    verdicts = [hook.send(hook.render(MESSAGE)) for _ in range(4)]
    server.shutdown()
    server.server_close()
    thread.join()
    assert [v.verdict for v in verdicts] == ["sent", "retry", "refused", "retry"]
    assert len(got) == 4  # a redirect is not followed
    headers, body = got[0]
    assert headers["X-Servescope-Signature"] == sign(b"s3cret", "1000", body)
    assert json.loads(body)["title"] == MESSAGE.title
    assert {h["X-Servescope-Delivery"] for h, _ in got} == {headers["X-Servescope-Delivery"]}
    assert "secret-path" not in hook.destination + "".join(v.error for v in verdicts)
    assert hook.send(hook.render(MESSAGE)).verdict == "retry"
    with pytest.raises(ConfigError, match="no http"):
        Webhook("file:///etc/passwd")


def test_a_webhook_goes_through_a_proxy_that_is_named_and_through_no_other(monkeypatch: pytest.MonkeyPatch):
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    wanted, straight = Raw(answer), Raw(answer)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    for proxy, server, line in (
        (f"http://127.0.0.1:{wanted.port}", wanted, b"POST http://hooks.example.com/x HTTP/1.1"),
        ("", straight, b"POST /x HTTP/1.1"),
    ):
        url = "http://hooks.example.com/x" if proxy else f"http://127.0.0.1:{server.port}/x"
        hook = Webhook(url, proxy=proxy)
        assert hook.send(hook.render(MESSAGE)).verdict == "sent"
        hook.close()
        server.close()
        assert server.got[0].splitlines()[0] == line


def test_a_webhook_whose_body_never_ends_is_told_all_the_same():
    server = Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\nbegun")
    hook = Webhook(f"http://127.0.0.1:{server.port}/")
    assert hook.send(hook.render(MESSAGE)).verdict == "sent"
    server.close()
    hook.close()
