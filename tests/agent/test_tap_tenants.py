from __future__ import annotations

import base64
import json
import random

import pytest

from agent.otlp.request_wire import to_otlp
from agent.tap.credentials import KeyNames, hash_key
from agent.tap.head import parse_request
from agent.tap.tenants import BoundedNames, Tenants, Who
from tests.kits.tap import SALT, answer, one, post, replying


def packed(value: object) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")


def jwt(iat: int, **claims: object) -> bytes:
    body = {"iss": "https://sso.example", "sub": "svc-search", "iat": iat, "exp": iat + 900, **claims}
    return b".".join((packed({"alg": "RS256", "kid": "1"}), packed(body), packed(str(iat) * 9)))


def tenants(names: dict[str, str] | None = None, **options: object) -> Tenants:
    fixed: dict[str, object] = {"header": "x-tenant-id", "key_header": "authorization", "bound": BoundedNames(100)}
    return Tenants(SALT, names=names or {}, **{**fixed, **options})  # type: ignore[arg-type]


def whose(found: Tenants, *fields: bytes, target: bytes = b"/v1/completions", refused: bool = False) -> str:
    head = b"\r\n".join([b"POST " + target + b" HTTP/1.1", b"Host: t", b"Content-Length: 0", *fields, b"", b""])
    return found.name(found.look(parse_request(head)), refused=refused)


KEY = hash_key(SALT, b"sk-secret")


def test_hash_is_versioned_salted_and_ignores_the_scheme():
    assert hash_key(b"a", b"Bearer k") == hash_key(b"a", b"k") == hash_key(b"a", b" bearer   k ")
    assert hash_key(b"a", b"k") != hash_key(b"b", b"k")
    assert hash_key(b"a", b"k").startswith("v1:")
    assert len(hash_key(b"a", b"k")) == 19
    assert hash_key(b"a", b"two words") != hash_key(b"a", b"other words")


@pytest.mark.parametrize(
    "field",
    [
        b"Authorization: Bearer sk-secret",
        b"authorization: bearer sk-secret",
        b"Authorization: sk-secret",
        b"X-Api-Key: sk-secret",
        b"api-key: sk-secret",
        b"x-goog-api-key: sk-secret",
    ],
)
def test_keys_count_wherever_a_client_puts_them(field: bytes):
    assert whose(tenants(), field) == KEY
    assert whose(tenants({KEY: "acme"}), field) == "acme"
    assert whose(tenants(key_header=""), field) == ""


@pytest.mark.parametrize("query", [b"?key=sk-secret", b"?a=1&api_key=sk-secret", b"?api-key=sk%2Dsecret&b"])
def test_a_key_in_the_query_counts(query: bytes):
    assert whose(tenants(), target=b"/v1/completions" + query) == KEY
    assert whose(tenants(), b"Authorization: Bearer other", target=b"/v1/completions" + query) == hash_key(
        SALT, b"other"
    )
    assert whose(tenants(), target=b"/v1/completions?monkey=sk-secret") == ""


ENDS = [(1, "x"), (2, "x"), (3, "y")]


@pytest.mark.parametrize(
    "written", [b'"%s"', b"%s,", b'Token token="%s"', b"Bearer: %s", b"Bearer Bearer %s", b"Bearer  %s", b"ApiKey %s"]
)
def test_a_key_is_itself_however_it_is_written(written: bytes):
    value = written if written[:1].isalpha() else b"Bearer " + written
    assert whose(tenants(), b"Authorization: " + value % b"sk-secret") == KEY
    assert len({whose(tenants(), b"Authorization: " + value % jwt(n)) for n in (1, 2)}) == 1


def test_one_subject_is_one_tenant_however_often_its_token_is_new():
    first, second = jwt(1_795_848_000), jwt(1_795_848_900)
    assert first != second
    found = tenants()
    one_name = whose(found, b"Authorization: Bearer " + first)
    assert one_name.startswith("v1:")
    assert whose(found, b"Authorization: Bearer " + second) == one_name
    assert whose(found, b"x-api-key: " + second) == one_name
    padded = b".".join(part + b"=" * (-len(part) % 4) for part in second.split(b"."))
    assert whose(found, b"Authorization: Bearer " + padded + b"=") == one_name
    others = (jwt(0, sub="svc-other"), jwt(0, iss="https://other.example"), b"svc-search")
    assert len({one_name, *(whose(found, b"Authorization: Bearer " + token) for token in others)}) == 4
    assert "svc-search" not in one_name


def test_the_claim_that_names_the_subject_can_be_said():
    by_team = tenants(claim="team")
    assert whose(by_team, b"Authorization: Bearer " + jwt(1, sub="a", team="x")) == whose(
        by_team, b"Authorization: Bearer " + jwt(2, sub="b", team="x")
    )
    without = {whose(by_team, b"Authorization: Bearer " + jwt(n, sub="a")) for n in (1, 2)}
    assert len(without) == 1  # no such claim: the subject
    nested = tenants(claim="act.team")
    one, same, other = (whose(nested, b"Authorization: Bearer " + jwt(n, act={"team": t})) for n, t in ENDS)
    assert one == same != other
    people = {whose(tenants(), b"Authorization: Bearer " + jwt(n, sub=None, oid="p-1")) for n in (1, 2)}
    assert len(people) == 1
    machines = {whose(tenants(), b"Authorization: Bearer " + jwt(n, sub=None, azp="app")) for n in (1, 2)}
    assert len(machines) == 1


@pytest.mark.parametrize(
    "token",
    [b"a.b.c", b"eyJ.eyJ.x", packed({"alg": "x"}) + b"." + packed([1]) + b".x", packed({}) + b"." + packed({}) + b"."],
)
def test_what_only_looks_like_a_token_is_a_key(token: bytes):
    assert hash_key(SALT, token) == hash_key(SALT, b"Bearer " + token) != ""


def test_passwords_and_signatures_may_change():
    def basic(text: bytes) -> str:
        return whose(tenants(), b"Authorization: Basic " + base64.b64encode(text))

    assert basic(b"ann:old") == basic(b"ann:new") != basic(b"bob:old")
    assert basic(b"ann:x") != whose(tenants(), b"Authorization: Bearer ann")
    signed = b"Authorization: AWS4-HMAC-SHA256 Credential=AKID/2026%s/r/s/aws4_request, Signature=%s"
    assert whose(tenants(), signed % (b"01", b"aa")) == whose(tenants(), signed % (b"02", b"bb"))
    digest = b'Authorization: Digest username="ann", nonce="%s"'
    assert whose(tenants(), digest % b"1") == whose(tenants(), digest % b"2")
    assert whose(tenants(), b"Authorization: Negotiate YIIabc") == ""  # new with each request, and no subject in it


def test_a_key_that_the_server_took_beats_the_header():
    fields = (b"X-Tenant-Id: victim", b"Authorization: Bearer sk-secret")
    assert whose(tenants(), *fields) == KEY
    assert whose(tenants(header_wins=True), *fields) == "victim"
    assert whose(tenants(), *fields, refused=True) == "victim"
    assert whose(tenants(), b"X-Tenant-Id: team a") == "team a"


UNSEEN = ["v1\u200b:0", "\u2060v1:0", "\uff561:0", "v1\uff1a0", "oth\u00ader", "\u202eother", "ac\u200bme", "\uff41cme"]


@pytest.mark.parametrize(
    "name", ["v1:0123456789abcdef", "V1:0", "v2:x", "other", "Other", "header:x", KEY, "acme", *UNSEEN]
)
def test_a_header_cannot_pass_for_a_hash_or_a_keys_name(name: str):
    found = tenants({KEY: "acme", "team-7": "Seven"})
    assert whose(found, b"X-Tenant-Id: " + name.encode()) == "header:" + name
    assert whose(found, b"X-Tenant-Id: team-7") == "Seven"
    assert whose(found, "X-Tenant-Id: Größe".encode()) == "Größe"


def test_a_placeholder_is_no_key():
    assert whose(tenants(), b"X-Tenant-Id: team", b"Authorization: Bearer EMPTY") == "team"
    assert whose(tenants(), b"Authorization: Bearer sk-no-key-required") == ""


def test_a_header_sent_twice_is_the_list_of_both():
    assert whose(tenants(), b"X-Tenant-Id: a", b"X-Tenant-Id: b") == whose(tenants(), b"X-Tenant-Id: a, b") == "a, b"


async def test_the_record_of_a_refused_key_names_whom_the_header_does():
    request = post(b"/v1/completions", b"{}", b"X-Tenant-Id: team", b"Authorization: Bearer sk-secret")
    _, record = await one(replying(answer(b"{}", b"401 Unauthorized")), request)
    assert record.tenant == "team"
    _, record = await one(replying(answer(b"{}")), request)
    assert record.tenant == KEY
    assert b"sk-secret" not in to_otlp(record, {})


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_names_past_the_bound_become_other():
    lost: list[int] = []
    names = BoundedNames(2, lambda: lost.append(1), Clock())
    assert [names(n) for n in ("a", "b", "c", "a", "", "d")] == ["a", "b", "other", "a", "", "other"]
    assert (names.distinct, len(lost)) == (2, 2)


def test_made_up_names_keep_nobody_out():
    clock = Clock()
    names = BoundedNames(100, clock=clock)
    for _ in range(20):
        assert names("old") == "old"
    for number in range(5_000):
        clock.now += 0.01
        names(f"made-up-{number}")
    heard = []
    for _ in range(50):  # one request a second while the flood goes on
        heard.append(names("new"))
        for _ in range(10):
            clock.now += 0.1
            names(f"more-{clock.now}")
    assert heard[-40:] == ["new"] * 40
    assert names("old") == "old"
    assert names.distinct == 100


def test_an_hour_takes_at_most_the_bound_of_names_more():
    clock = Clock()
    names = BoundedNames(100, clock=clock)
    draw = random.Random(7)
    kept: set[str] = set()
    for _ in range(40_000):  # each made-up name comes several times, to take a place
        clock.now += 3_600 / 40_000
        kept.add(names(f"made-up-{draw.randrange(8_000)}"))
    assert len(kept - {"other"}) <= 100 + 100 + 10


def test_an_idle_name_makes_room_at_once():
    clock = Clock()
    names = BoundedNames(2, clock=clock)
    for name in ("a", "a", "a", "b", "b", "b"):
        names(name)
    assert names("c") == "other"
    clock.now += 3_601
    assert names("b") == "b"
    assert names("c") == "c"
    assert names("a") == "other"


def test_names_of_refused_requests_take_half_the_places_and_nobodys():
    names = BoundedNames(4, clock=Clock())
    assert [names(f"bad-{n}", trusted=False) for n in range(4)] == ["bad-0", "bad-1", "other", "other"]
    assert [names(n) for n in ("good-1", "good-2")] == ["good-1", "good-2"]
    assert names("good-1", trusted=False) == "good-1"


def test_nobody_is_nobody():
    assert tenants().name(Who(), refused=False) == ""


def test_names_of_keys_are_remembered_and_their_secrets_are_not(monkeypatch: pytest.MonkeyPatch):
    names = KeyNames(SALT, "sub")
    secret = b"Bearer sk-remembered"
    assert names.of(secret) == hash_key(SALT, b"sk-remembered")
    assert names.of(b"none") == ""
    monkeypatch.setattr("agent.tap.credentials.hash_key", lambda *_: pytest.fail("worked out again"))
    assert names.of(secret) == hash_key(SALT, b"sk-remembered")
    assert names.of(b"none") == ""
    assert "remembered" not in repr(vars(names))


def test_names_of_keys_are_remembered_within_a_bound():
    names = KeyNames(SALT, "sub")
    for n in range(5_000):
        assert names.of(b"k%d" % n) == hash_key(SALT, b"k%d" % n)
        assert len(names._known) <= 2_048
