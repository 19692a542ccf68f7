"""A request's own account on its page: in words, in tiles that add up, and in each state that has none."""

from __future__ import annotations

import re
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
from streamlit.testing.v1 import AppTest

from analytics.answer import Answer
from analytics.causes.advice import ADVICE, DRIVER, NAMES, STAGES, stage_of
from analytics.causes.chains import Chain, Step
from analytics.causes.evidence import Cause
from analytics.causes.onset import Onset
from analytics.questions.causes import Causes, KindReference
from analytics.request_row import RequestRow
from analytics.selection import Filter, Selection
from analytics.window import Window
from dashboard import why
from dashboard.causes_in_words import as_html, as_markdown, chained, led, named, page_of, runbook
from dashboard.export import as_csv
from dashboard.navigation import found_views
from dashboard.verdict import chain_in_words

if TYPE_CHECKING:
    from collections.abc import Callable

START = datetime(2026, 5, 4, 10, 0, tzinfo=UTC)
SELECTION = Selection(Window(START, START + timedelta(minutes=5)))
KIND = KindReference("chat", "llama", "/v1/completions", True, 812, 1.0, 0.05, 1e-4, 1e-2, 100.0, 80.0, 60.0)


def a_row(**values: Any) -> RequestRow:
    """A request of the kind above."""
    blank: dict[str, Any] = {item.name: "" for item in fields(RequestRow)}
    blank |= {name: None for name in blank if name.endswith("_seconds")}
    known = {"key": "7", "time": START, "deployment": "chat", "model": "llama", "route": "/v1/completions",
             "has_engine": True, "e2e_seconds": 4.0, "outcome": "ok"}  # fmt: skip
    return RequestRow(**(blank | known | values))


def a_cause(cause: str = "kv_cache_full", seconds: float = 2.4, **who: str) -> Cause:
    """A cause of a request that took 3 s too long."""
    advice, book = ADVICE[cause]
    shown = ["The request lost 2.4 s.", "vllm-2: waiting up to 9."]
    return Cause(
        cause, stage_of(cause), "queue", DRIVER[cause], who, seconds, seconds / 3.0, 1, shown, advice, book
    )  # fmt: skip


def told(
    *causes: Cause, excess: float = 3.0, requests: int = 1, reference: tuple[KindReference, ...] = (KIND,)
) -> Causes:
    """An account of one request."""
    rest = excess - sum(cause.seconds for cause in causes)
    share = rest / excess if excess > 0 else None
    return Causes(requests, excess, list(causes), share, rest, [], 1.0 * requests, list(reference))


def test_every_cause_has_a_name_a_stage_and_a_page_that_is_there() -> None:
    assert set(NAMES) == set(DRIVER) == set(ADVICE)
    pages = {view.path for view in found_views()}
    for cause in DRIVER:
        assert stage_of(cause) in STAGES
        assert page_of(cause) in pages
    assert (stage_of("longer_prompts"), stage_of("deploy"), stage_of("kv_cache_full")) == STAGES[:3]


def test_the_tiles_add_up_to_what_the_request_took() -> None:
    account = told(a_cause(), a_cause("longer_prompts", 0.4), a_cause("cpu_starved", 0.1))
    shown = {tile.name: tile for tile in why.tiles_of(4.0, account, KIND)}
    assert {name: tile.value for name, tile in shown.items()} == {
        "Took": "4 s", "Such a request": "1 s", "Work": "+400 ms", "Rate": "0 s", "Contention": "+2.5 s",
        "Unexplained": "+100 ms",
    }  # fmt: skip
    assert "812" in shown["Such a request"].note
    failed = why.tiles_of(4.0, told(a_cause("upstream_error", 3.0)), None)
    assert "Failure" in [tile.name for tile in failed]


def test_an_account_is_signed() -> None:
    quick = told(excess=-0.5)
    assert why.tiles_of(0.5, quick, None)[-1].value == "−500 ms"
    assert why.lead(0.5, quick, SELECTION).startswith("**Nothing stands out.** It took 500 ms")


def test_what_nothing_explains_is_said_and_not_given_a_cause() -> None:
    assert "No cause stands out" in why.lead(4.0, told(), SELECTION)
    assert "Nothing stands out" in why.lead(1.1, told(excess=0.1), SELECTION)


def test_each_part_of_a_cause_is_a_link_that_narrows() -> None:
    said = as_markdown(named("kv_cache_full", {"instance": "vllm-2", "tenant": "a7"}, SELECTION))
    words, addresses = [], []
    for part in said.split("[")[1:]:
        words.append(part.split("]")[0])
        addresses.append(urlsplit(part.split("(")[1].split(")")[0]))
    assert words == ["KV cache full", r"vllm-2", "tenant a7"]
    assert [address.path for address in addresses] == ["kv-cache", "./", "requests"]
    asked = [parse_qs(address.query) for address in addresses]
    assert all(one["instance"] == ["vllm-2"] for one in asked)
    assert asked[2]["tenant"] == ["a7"]
    assert float(asked[0]["to"][0]) - float(asked[0]["from"][0]) == 300
    assert ", by [tenant" in said
    assert ", of [tenant" in as_markdown(named("slow_client", {"tenant": "a7"}, SELECTION))


def test_a_chain_is_told_with_what_it_began_with_each_cause_a_link() -> None:
    steps = [
        Step("cold_prefix_cache", None, "x", 65.0, 0.4),
        Step("kv_cache_full", "cold_prefix_cache", "x", 66.0, 1.2),
        Step("prefill_interference", "cold_prefix_cache", "x", 66.0, 0.2),
    ]
    deploy = Onset("deploy", "<b>v2</b> goes out", "", 60.0)
    chain = Chain(deploy, ["vllm-2"], "chat", 60.0, 1.8, 0.6, steps)
    account = replace(told(a_cause()), chains=[chain])
    pieces = led(asdict(chain), START + timedelta(seconds=60), SELECTION, UTC)
    assert "".join(text for text, _ in pieces) == (
        "It began with a deploy at 10:01:00 (<b>v2</b> goes out): cold prefix cache → KV cache full, "
        "and others' prompts on vllm-2 (60 % of the excess)."
    )
    assert "<b>" not in as_html(pieces)
    said = chained(account, SELECTION, UTC)
    assert said == as_markdown(pieces)
    advised = replace(account, chains=[replace(chain, advice="Roll *back*.")])
    assert chained(advised, SELECTION, UTC) == rf"{as_markdown(pieces)} First: Roll \*back\*\."
    assert chain_in_words(account, SELECTION, UTC) == [(" ", ""), *pieces]
    assert chain_in_words(advised, SELECTION, UTC)[-1] == (" First: Roll *back*.", ""), "on the front page too"
    assert chain_in_words(told(a_cause()), SELECTION, UTC) == []
    assert re.findall(r"\]\(([^?)]*)", said) == ["kv-cache", "kv-cache", "queue", "./"]
    assert "instance=vllm-2" in said
    assert chained(told(a_cause()), SELECTION, UTC) == ""
    several = replace(chain, began=None, instances=["a", "b", "c", "d", "e"])
    text = "".join(text for text, _ in led(asdict(several), START, SELECTION, UTC))
    assert text.startswith("It began at 10:00:00: cold prefix cache → ")
    assert text.endswith(" on a, b, c and 2 more (60 % of the excess).")


def test_hostile_names_make_no_link_and_no_mark() -> None:
    pieces = named("slow_client", {"tenant": "](http://evil.example) <b>**x**", "instance": "![p](q)"}, SELECTION)
    assert "<b>" not in as_html(pieces)
    said = as_markdown(pieces)
    assert "](http://evil" not in said
    assert "**x**" not in said
    assert "![p]" not in said


def test_a_runbook_is_a_link_where_somebody_said_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SERVESCOPE_RUNBOOKS", raising=False)
    assert runbook("kv-cache-full.md") == "Runbook: `docs/runbooks/kv-cache-full.md`"
    monkeypatch.setenv("SERVESCOPE_RUNBOOKS", "https://wiki.example/serving/")
    assert runbook("a.md") == "[Runbook](https://wiki.example/serving/docs/runbooks/a.md)"


def test_a_request_is_asked_about_among_those_around_it_and_up_to_its_end() -> None:
    long = why.asked_about(a_row(e2e_seconds=400.0, recording="kv"))
    assert long.window.start == START - why.AROUND
    assert long.window.end > START + timedelta(seconds=400)
    assert (long.key, long.filter) == ("7", Filter(recording="only"))
    fresh = why.asked_about(a_row(time=datetime.now(UTC) - timedelta(seconds=5)))
    assert fresh.window.end <= datetime.now(UTC) + timedelta(seconds=1)
    assert fresh.filter.recording == "exclude"


def test_the_account_goes_into_a_spreadsheet() -> None:
    lines = as_csv(told(a_cause(tenant="a7"))).splitlines()
    assert lines[0].startswith("cause,stage,phase")
    assert lines[1].startswith("kv_cache_full,contention,queue")


GIVEN: dict[str, Any] = {}


def _page() -> None:
    """The script of the page under test; what is answered stands in the module."""
    from dashboard import why  # noqa: PLC0415 - the script that is run
    from tests.dashboard import test_dashboard_why as here  # noqa: PLC0415 - as above

    why.section(here.GIVEN["row"])


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Draws the section over given answers and returns its words."""

    def draw(row: RequestRow, account: Causes | Exception, edge: datetime | None = None) -> str:
        def ask(question: str, selection: Selection, **_: object) -> Answer[Any]:
            if question == "arrivals":
                assert not selection.key
                return Answer(SimpleNamespace(settled_until=edge), "rows", "exact", 1, START, (), ())
            assert selection.key == row.key
            if isinstance(account, Exception):
                raise account
            return Answer(account, "rows", "derived", account.requests, START, ("SELECT 1",), ())

        monkeypatch.setattr(why, "ask", ask)
        GIVEN["row"] = row
        test = AppTest.from_function(_page, default_timeout=60).run()
        assert not test.exception
        html = [item.proto.body for item in test.get("html")]
        return " ".join([*(item.value for item in [*test.markdown, *test.caption]), *html])

    return draw


def test_a_slow_request_says_its_cause_whose_and_what_next(shown: Callable[..., str]) -> None:
    said = shown(a_row(), told(a_cause(instance="vllm-2", tenant="a7")))
    assert "It took **4 s**, and such a request takes 1 s when all is well: **+3 s**. 80 % of that is [KV cache" in said
    assert "Next: Limit the tenant" in said
    assert "kv-cache-full.md" in said
    assert "worked out from rows · 1 request" in said
    assert "are being looked at" not in said


@pytest.mark.parametrize(
    ("row", "account", "edge", "wanted"),
    [
        (a_row(e2e_seconds=1.1), told(excess=0.1), None, "Nothing stands out"),
        (a_row(), told(), START, "Not settled yet"),
        (a_row(), told(requests=0, reference=()), START + timedelta(seconds=1), "**No reference.**"),
        (a_row(), told(requests=0), None, "No reference for its kind"),
        (a_row(outcome="client_abort"), told(requests=0), None, "Its client gave it up"),
    ],
)
def test_what_has_no_account_says_why(
    shown: Callable[..., str], row: RequestRow, account: Causes, edge: datetime | None, wanted: str
) -> None:
    said = shown(row, account, edge)
    assert wanted in said
    assert "Next:" not in said


def test_a_store_that_refuses_is_told_in_its_place(shown: Callable[..., str]) -> None:
    from collector.store.client import StoreUnavailable  # noqa: PLC0415

    said = shown(a_row(), StoreUnavailable("the store does not answer", "Start it."))
    assert "The store does not answer" in said
    assert "Start it." in said
    assert "are being looked at" not in said


def test_what_is_mostly_unexplained_is_not_told_as_explained() -> None:
    said = why.lead(4.0, told(a_cause(seconds=0.6)), SELECTION)
    assert "Most of that is unexplained; 20 % is [KV cache full]" in said


def test_the_sentence_goes_by_the_first_cause_alone() -> None:
    two = told(a_cause(), replace(a_cause("restart", 0.2), share=0.07))
    assert "restart" not in why.lead(4.0, two, SELECTION)


def _incident() -> None:
    """The script of the part of an incident's page that says why."""
    from dashboard.one_incident import because  # noqa: PLC0415 - the script that is run
    from tests.dashboard import test_dashboard_why as here  # noqa: PLC0415 - as above

    because(here.GIVEN["story"])


@pytest.mark.parametrize(
    ("age", "causes", "wanted"),
    [
        (30, None, "worked out within minutes"),
        (3600, None, "No causes were worked out."),
        (30, [], "Nothing stands out\\.\\.\\."),
        (
            3600,
            [asdict(a_cause(instance="vllm-2", tenant="a7"))],
            "**+2.4 s** · 80 % · [KV cache full](kv-cache?",
        ),
    ],
)
def test_an_incident_says_why_or_that_nobody_knows(age: float, causes: list[Any] | None, wanted: str) -> None:
    found: dict[str, Any] = {
        "summary": "nothing stands out..", "causes": causes, "excess_seconds": 3.0, "place": {"deployment": ["chat"]},
        "window": {"start": START.isoformat(), "end": (START + timedelta(minutes=10)).isoformat()},
    }  # fmt: skip
    opened = datetime.now(UTC) - timedelta(seconds=age)
    GIVEN["story"] = SimpleNamespace(why={} if causes is None else found, incident=SimpleNamespace(opened_at=opened))
    test = AppTest.from_function(_incident, default_timeout=60).run()
    assert not test.exception
    said = " ".join(item.value for item in test.markdown)
    assert wanted in said
    assert ("Next:" in said) is bool(causes)


def test_an_incident_tells_what_failed_how_whose_and_since_when() -> None:
    failure = {
        "outcome": "rejected", "error_type": "queue_[full]", "who": {"tenant": "hooli", "instance": "triton-a"},
        "requests": 96, "since": (START + timedelta(minutes=9)).isoformat(), "onset": {
            "event": "deploy", "name": "a deploy", "what": "*2* goes out", "instance": "triton-a",
            "since": (START + timedelta(minutes=8)).isoformat()},
    }  # fmt: skip
    found = {
        "summary": "of the last 10 min 96 failed", "causes": [], "failures": [failure], "place": {"deployment": ["v"]},
        "window": {"start": START.isoformat(), "end": (START + timedelta(minutes=10)).isoformat()},
    }  # fmt: skip
    GIVEN["story"] = SimpleNamespace(why=found, incident=SimpleNamespace(opened_at=START))
    test = AppTest.from_function(_incident, default_timeout=60).run()
    assert not test.exception
    said = " ".join(item.value for item in test.markdown)
    assert "Of the last 10 min 96 failed" in said
    assert "[96 requests failed](requests?" in said
    assert "tenant=hooli&instance=triton-a&recording=Live+only&outcome=rejected" in said
    assert "queue\\_\\[full\\]" in said
    assert "since 10" in said
    assert "It began with a deploy at 10" in said
    assert "\\*2\\* goes out" in said
