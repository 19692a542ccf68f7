"""Statements that come as a form: what a driver does with parameters too long for a URL."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from urllib3.filepost import encode_multipart_formdata

from collector.embedded.body import Body, SpoolRoom, Terms
from collector.embedded.errors import QueryError
from collector.embedded.form import with_form
from collector.embedded.request import parse
from collector.store.address import StoreAddress
from collector.store.client import Store
from tests.kits.store_calls import Answer, call

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.kits.store_process import StoreServer

LONG = "SELECT count() AS n FROM numbers(3) WHERE toString(number) IN {names:Array(String)} FORMAT TSV"
NAMES = ["0", "2", *("x" * 50 + str(number) for number in range(2000))]


def send(server: StoreServer, fields: Mapping[str, object], *, owner: bool = False, **query: str) -> Answer:
    body, kind = encode_multipart_formdata(dict(fields), boundary="limit")  # type: ignore[arg-type]
    return call(server, body, owner=owner, headers={"Content-Type": kind}, **query)


def escaped(names: list[str]) -> str:
    return "[" + ",".join(f"'{name}'" for name in names) + "]"


@pytest.mark.parametrize("owner", [True, False])
def test_a_driver_asks_with_parameters_that_are_too_long_for_a_url(store_server: StoreServer, owner: bool):
    user = f"owner:{store_server.owner_password}@" if owner else ""
    with Store(StoreAddress.parse(f"http://{user}127.0.0.1:{store_server.port}")) as store:
        sql = LONG.removesuffix(" FORMAT TSV")
        assert store.rows(sql, {"names": NAMES}) == [{"n": 2}]
        assert list(store.stream(sql, "TSV", {"names": NAMES})) == [b"2\n"]
        assert store.frame(sql, {"names": NAMES})["n"].to_list() == [2]


@pytest.mark.parametrize("owner", [True, False])
def test_the_statement_is_in_the_form_or_in_the_url(store_server: StoreServer, owner: bool):
    names = {"param_names": escaped(NAMES)}
    assert send(store_server, {"query": LONG, **names}, owner=owner).text == "2\n"
    assert send(store_server, names, owner=owner, query=LONG).text == "2\n"
    halves = {"query": LONG.removeprefix("SELECT "), **names}
    assert send(store_server, halves, owner=owner, query="SELECT").text == "2\n"
    body, kind = encode_multipart_formdata({"query": LONG, **names})
    packed = {"Content-Type": kind, "Content-Encoding": "gzip"}
    assert call(store_server, gzip.compress(body), owner=owner, headers=packed).text == "2\n"


def test_an_owners_insert_comes_with_its_data_in_the_form(store_server: StoreServer):
    call(store_server, "CREATE TABLE forms (a Int64, b String) ENGINE = MergeTree ORDER BY a")
    sql = 'INSERT INTO forms FORMAT JSONEachRow {"a": 1, "b": "one"}'
    assert send(store_server, {"query": sql}, owner=True).status == 200
    chosen = {"query": "INSERT INTO forms SELECT {a:Int64}, {b:String}", "param_a": "2", "param_b": "z" * 300_000}
    assert send(store_server, chosen, owner=True).status == 200
    found = call(store_server, "SELECT a, length(b) AS n FROM forms ORDER BY a FORMAT JSONEachRow").text
    assert [json.loads(line) for line in found.splitlines()] == [{"a": 1, "n": 3}, {"a": 2, "n": 300_000}]


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"query": "INSERT INTO forms VALUES (1)"}, "statement"),
        ({"query": "SELECT 1; SELECT 2"}, "statements"),
        ({"query": "SELECT * FROM file('/etc/passwd')"}, "function"),
        ({"query": "SELECT * FROM {t:Identifier}", "param_t": "system.users"}, "identifier"),
        ({"query": "SELECT 1 SETTINGS output_format_schema='/tmp/x'"}, "setting"),
    ],
)
def test_the_fence_stands_before_a_form_too(store_server: StoreServer, fields: dict[str, str], rule: str):
    answer = send(store_server, fields)
    assert f"[fence: {rule}]" in answer.text, answer.text


@pytest.mark.parametrize(
    ("fields", "code", "said"),
    [
        ({"query": "SELECT 1", "param": "1"}, "36", "'param'"),
        ({"query": "SELECT 1", "max_threads": "1"}, "36", "'max_threads'"),
        ({"query": "SELECT 1", "t": ("t.tsv", "1\n", "text/plain")}, "48", "external table"),
        ({"query": b"SELECT '\xff'"}, "36", "UTF-8"),
        ({"query": "SELECT 1", **{f"param_{number}": "1" for number in range(1001)}}, "36", "1000 fields"),
        ({}, "62", "Empty query"),
        ({"query": " "}, "62", "Empty query"),
    ],
)
def test_a_form_that_is_not_spoken_says_which_field(
    store_server: StoreServer, fields: dict[str, object], code: str, said: str
):
    for owner in (True, False):
        answer = send(store_server, fields, owner=owner)
        assert answer.headers.get("X-ClickHouse-Exception-Code") == code, answer.text
        assert said in answer.text


def test_a_value_that_comes_twice_is_refused(store_server: StoreServer):
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    part = b'--x\r\nContent-Disposition: form-data; name="query"\r\n\r\nSELECT 1\r\n'
    assert call(store_server, part + b"--x--\r\n", owner=False, headers=kind).text == "1\n"
    assert "query is given twice" in call(store_server, part * 2 + b"--x--\r\n", owner=False, headers=kind).text
    twice = send(store_server, {"query": "SELECT {a:Int8}", "param_a": "1"}, param_a="2")
    assert "param_a is given in the URL and in the form" in twice.text


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="query"\r\n\r\nSELECT',
            "ends",
        ),
        ("multipart/form-data; boundary=x", b"SELECT 1", "can't be read"),
        ("multipart/form-data", b"SELECT 1", "can't be read"),
        ("multipart/form-data; boundary=" + "x" * 500, b"SELECT 1", "can't be read"),
        ("multipart/form-data; boundary=x", b"--x\r\nX: y\r\n\r\nSELECT 1\r\n--x--\r\n", "no field ''"),
        ("multipart/mixed; boundary=x", b"--x--\r\n", "not spoken here"),
    ],
)
def test_a_form_that_is_none_is_refused(store_server: StoreServer, kind: str, body: bytes, said: str):
    answer = call(store_server, body, owner=False, headers={"Content-Type": kind})
    assert (answer.status, said in answer.text) == (404 if "not spoken" in said else 400, True), answer.text


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.from_regex("[a-z_0-9]{1,9}", fullmatch=True), st.text(), max_size=9), st.data())
async def test_every_value_arrives_as_it_was_sent(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, str], data: st.DataObject
):
    folder: Path = tmp_path_factory.getbasetemp()
    fields = {"query": "SELECT 1", **{f"param_{name}": value for name, value in values.items()}}
    sent, kind = encode_multipart_formdata(fields)
    ask = parse("POST", {}, {}, "owner")

    async def arriving(whole: bytes):  # noqa: ANN202
        while whole:
            size = data.draw(st.integers(1, len(whole)))
            yield whole[:size]
            whole = whole[size:]

    body = Body(folder, Terms(1 << 20, 10, 10), SpoolRoom(1 << 20))
    await body.receive(arriving(sent))
    found = with_form(ask, body, kind)
    assert (found.query, dict(found.parameters)) == ("SELECT 1", values)
    assert body.size == 0
    # whatever is cut off, what remains is no whole form
    cut = Body(folder, Terms(1 << 20, 10, 10), SpoolRoom(1 << 20))
    await cut.receive(arriving(sent[: data.draw(st.integers(1, len(sent) - 5))]))
    with pytest.raises(QueryError):
        with_form(ask, cut, kind)
