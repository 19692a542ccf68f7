"""Commands as they are typed: a recording into a new folder, then questions, SQL and bad input."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import structlog
from click.testing import CliRunner, Result

from analytics import ask
from collector.store.client import StoreError
from servescope import cli
from servescope.commands import migrate
from tests.kits.line import wait_for

ROOT = Path(__file__).parents[1]
RECORDING = ROOT / "demo" / "recordings" / "kv_exhaustion"
TRITON_SPANS = ROOT / "tests" / "fixtures" / "triton" / "otlp_traces_1119_requests_as_protobuf.pb.gz"
PAGE = ROOT / "tests" / "fixtures" / "vllm" / "metrics_idle.txt.gz"


def servescope(*words: object) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SERVESCOPE_")}
    command = [sys.executable, "-m", "servescope", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False)


def typed(*words: object) -> Result:
    """A command that ends before it starts anything, without a process of its own."""
    try:
        done = CliRunner().invoke(cli.main, [str(word) for word in words])
    finally:
        structlog.reset_defaults()
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("commands") / "data"
    done = servescope("replay", RECORDING, "--shift-to-now", "--data", data)
    assert done.returncode == 0, done.stderr
    assert "requests 821" in done.stdout
    return data


def test_sql_reads_what_was_replayed(replayed: Path):
    statement = "SELECT countIf(has_edge = 1) AS n, uniqExact(time, key) = count() AS once FROM requests"
    done = servescope("sql", statement, "--json", "--data", replayed)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"n": 821, "once": 1}


def test_a_question_tells_the_fault_that_was_recorded(replayed: Path):
    done = servescope("kvcache", "--since", "10m", "--json", "--data", replayed)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer.keys() == {"window", "filters", "level", "rows", "result"}
    assert answer["result"]["about"]["recordings"] == ["kv_exhaustion"]
    assert max(value for value in answer["result"]["usage_max"]["values"] if value is not None) > 0.95


def test_incidents_of_a_folder_without_any(replayed: Path):
    done = servescope("incidents", "list", "--json", "--data", replayed)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["incidents"] == []


def test_a_refused_statement_says_what_is_wrong(replayed: Path):
    done = servescope("sql", "SELECT nothing FROM requests", "--data", replayed)
    assert done.returncode == 1
    assert "nothing" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.heavy  # a second replay after a first
def test_a_recording_is_whole_when_the_command_ends_and_repeating_it_changes_nothing(tmp_path: Path):
    folder, data = tmp_path / "recordings", tmp_path / "data"
    shutil.copytree(ROOT / "tests" / "fixtures" / "recording_small", folder / "vllm_a")
    (folder / "triton_a" / "otlp").mkdir(parents=True)
    shutil.copy(TRITON_SPANS, folder / "triton_a" / "otlp" / "0001_1795558900.0.pb.gz")
    first = servescope("replay", folder, "--json", "--data", data)
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["repeated"] == 0
    statement = """
      SELECT count() AS halves, countIf(compute_infer_seconds > 0) AS computed, sum(queue_seconds) AS queue,
        (SELECT count() FROM requests) AS requests, (SELECT count() FROM otel_traces) AS spans,
        (SELECT sum(count) FROM requests_1m) AS counted, (SELECT count() FROM engine_samples) AS samples
      FROM requests WHERE engine = 'triton' AND has_engine = 1
    """
    before = json.loads(servescope("sql", statement, "--json", "--data", data).stdout)
    assert before["halves"] > 1000
    assert before["computed"] > 400

    second = servescope("replay", folder, "--json", "--data", data)
    assert second.returncode == 0, second.stderr
    report = json.loads(second.stdout)
    assert report["repeated"] == report["batches"]
    assert "--again" in second.stderr
    assert json.loads(servescope("sql", statement, "--json", "--data", data).stdout) == before


def test_a_saved_page_is_understood():
    done = servescope("probe", PAGE)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["engine"] == "vllm"
    assert {"running", "waiting", "kv_cache_usage_ratio"} <= found["signals"].keys()


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("sql", " ; "), 1, "the statement is empty"),
        (("sql", "SELECT 1 FORMAT JSON", "--json"), 2, "Say the format once"),
        (("latency", "--since", "1e10d"), 1, "--since '1e10d' is no age"),
        (("latency", "--since", "infd"), 1, "--since 'infd' is no age"),
        (("queue", "--from", "1e20"), 1, "--from '1e20' is no time"),
        (("up", "--target", "a=http://x:1", "--target", "a=http://x:2"), 1, "another server is called a"),
        (("up", "--target", "http://x:1", "--target", "b=http://x:1"), 1, "is the server of x-1 already"),
        (("queue", "--to", "0001-01-01"), 1, "--to '0001-01-01' is no time"),
        (("kvcache", "--from", "2099-01-01"), 1, "Give an earlier --from"),
        (("incidents", "list", "--from", "2026-02-01", "--to", "2026-01-01"), 1, "Swap the two times"),
    ],
)
def test_what_makes_no_sense_is_named_before_anything_starts(
    tmp_path: Path, words: tuple[str, ...], code: int, told: str
):
    done = typed(*words, "--data", tmp_path / "data")
    assert (done.exit_code, done.stdout) == (code, "")
    assert told in done.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\xff\xfe", "servescope.yaml: can't be read: it is not UTF-8 text"),
        (b"agent: {\n", "servescope.yaml:2: not YAML"),
        (b"foo: 1\n1: 2\n", "servescope.yaml:1: foo: is not a section"),
        (b"data: 5\n", "servescope.yaml:1: data: must be the path of a folder"),
        (b"agent: []\n", "servescope.yaml:1: agent: is not a mapping"),
        (b"agent:\n  gpu: true\n  gpu: false\n", "servescope.yaml:3: agent.gpu: given twice"),
        (
            b"agent:\n  targets:\n    - &a {instance: a, url: 'http://x:1'}\n    - {<<: *a, instance: a}\n",
            "servescope.yaml:4: agent.targets[1].instance: 'a' is there twice",
        ),
        (b"agent: &a\n  targets: *a\n", "servescope.yaml:2: agent.targets: must be a list"),
        (b"agent:\n\n  client_key_file: x\n", "servescope.yaml:3: agent.client_key_file: client_certificate_file and"),
        (b"agent: {targets: [{url: 'http://x:1'}]}\n", "servescope.yaml:1: agent.targets[0].instance: is missing"),
        (b"agent:\n  gpus: true\n", "servescope.yaml:2: agent.gpus: no such field"),
        (b"collector: {port: many}\n", "servescope.yaml:1: collector.port: must be a whole number (got 'many')"),
        (b"agent: {targets: [{instance: 'a/../b', url: 'http://x:1'}]}\n", "agent.targets[0].instance"),
        (b"alerts: {slos: nosuch.yaml}\n", "nosuch.yaml"),
        (
            b"alerts: {routes: [{notify: [slack]}]}\n",
            "alerts.routes[0].notify: slack is no notifier: there is pagerduty",
        ),
        (b"alerts: {pagerduty: {routing_key_file: nosuch.key}}\n", "routing_key_file: nosuch.key can't be read"),
        (b"agent:\n  key_file: nosuch\n", "servescope.yaml:2: agent.key_file: nosuch can't be read: No such file"),
        (
            b"collector:\n  sender_keys:\n    - {file: nosuch}\n",
            "servescope.yaml:3: collector.sender_keys[0].file: nosuch",
        ),
        (b"alerts: {webhook: {url: 'http://x', secret_file: nosuch}}\n", "secret_file: nosuch can't be read"),
        (b"alerts: {webhook: {url: 'hooks.example.com'}}\n", "alerts.webhook.url: 'hooks.example.com' is not a URL"),
        (b"alerts:\n  dashboard_url: on-call\n", "servescope.yaml:2: alerts.dashboard_url: 'on-call' is not a URL"),
        (b"alerts: {pagerduty: {base_url: 'http://127.0.0.1:1'}}\n", "alerts.pagerduty.base_url: must be an https URL"),
        (b"alerts: {pagerduty: {base_url: 'https://h/?a=1'}}\n", "alerts.pagerduty.base_url: must be an https URL"),
        (b'alerts: {pagerduty: {base_url: "https://h\\x01"}}\n', "alerts.pagerduty.base_url: 'https://h"),
        (b"alerts: {webhook: {url: 'https://a..b/x'}}\n", "alerts.webhook.url: 'https://a..b/x' is not a URL"),
        (b"alerts: {pagerduty: {base_url: 'http://:1'}}\n", "alerts.pagerduty.base_url: 'http://:1' is not a URL"),
        (b"collector: {clickhouse: 'store:8123'}\n", "collector.clickhouse: 'store:8123' is no address"),
        (b"dashboard: {host: 300.1.1.1}\n", "dashboard.host: '300.1.1.1' is no host name or IP address"),
        (b"collector: {host: 'not a host'}\n", "collector.host: 'not a host' is no host name or IP address"),
        (b"agent: {collector: 'http://x:port'}\n", "agent.collector: 'http://x:port' is not a URL"),
        (
            b"agent: {targets: [{instance: a, url: 'http://x:1', engine: nosuch}]}\n",
            "agent.targets[0].engine: is no engine known here: there are aibrix, ",
        ),
        (
            b"collector: {port: 9000}\nagent:\n  targets: [{instance: a, url: 'http://x:1', tap_port: 9000}]\n",
            "servescope.yaml:3: agent.targets[0].tap_port: port 9000 is collector.port's already",
        ),
    ],
)
def test_a_configuration_that_up_would_refuse_is_refused_by_its_check(tmp_path: Path, content: bytes, told: str):
    file = tmp_path / "servescope.yaml"
    file.write_bytes(content)
    for words in (("config", "check", file), ("up", "--config", file, "--data", tmp_path / "data")):
        done = typed(*words)
        assert done.exit_code == 1
        assert told in done.stderr


def test_all_that_is_wrong_with_a_configuration_is_told_at_once(tmp_path: Path):
    file = tmp_path / "servescope.yaml"
    file.write_text("agents: {}\nalerts: 5\nagent: {gpus: true, key_file: nosuch}\ncollector: {port: many}\n")
    told = typed("config", "check", file).stderr
    faults = ("agents: is not a section", "alerts: is not a mapping", "agent.gpus", "agent.key_file", "collector.port")
    assert [told.count(fault) for fault in faults] == [1] * len(faults), told


def test_a_key_given_twice_is_told_once(tmp_path: Path):
    file = tmp_path / "servescope.yaml"
    file.write_text("agent: {}\nagent: {}\n")
    assert typed("config", "check", file).stderr.count("given twice") == 1


def test_an_address_that_this_machine_has_not_is_named_before_anything_starts(tmp_path: Path):
    file = tmp_path / "servescope.yaml"
    file.write_text("dashboard: {host: 192.0.2.1}\n")  # of the block for documentation: nobody's
    assert typed("config", "check", file).exit_code == 0, "it may be meant for another machine"
    done = typed("up", "--config", file, "--data", tmp_path / "data", "--target", "http://127.0.0.1:1")
    assert done.exit_code == 1
    assert "dashboard.host is 192.0.2.1, on which this machine can't listen" in done.stderr
    assert not (tmp_path / "data" / "run.json").exists()


def test_a_password_in_a_wrong_address_is_not_repeated(tmp_path: Path):
    file = tmp_path / "servescope.yaml"
    for section, field in (("collector", "clickhouse"), ("agent", "collector")):
        file.write_text(f"{section}: {{{field}: 'scope:s3cret@store:8123'}}\n")
        done = typed("config", "check", file)
        assert done.exit_code == 1
        assert f"{section}.{field}" in done.stderr
        assert "s3cret" not in done.output


def test_a_right_configuration_is_said_to_be(tmp_path: Path):
    (tmp_path / "slos.yaml").write_text("slos: []\n")
    file = tmp_path / "servescope.yaml"
    file.write_text("agent: {gpu: false}\nalerts: {slos: slos.yaml}\n")
    done = typed("config", "check", file, "--json")
    assert done.exit_code == 0, done.stderr
    told = {"file": str(file), "sections": ["agent", "alerts"], "slos": str(tmp_path / "slos.yaml")}
    assert json.loads(done.stdout) == told


def test_a_wrong_rules_file_is_told_whole_before_anything_starts(tmp_path: Path):
    file = tmp_path / "slos.yaml"
    file.write_text("slos: [{name: x}]")
    done = typed("up", "--slos", file, "--data", tmp_path / "data")
    assert done.exit_code == 1
    assert "slos[0].sli" in done.stderr
    assert not (tmp_path / "data" / "store").exists()


def test_the_example_of_slos_is_answered(replayed: Path):
    done = servescope("budget", "--slos", ROOT / "alerts" / "slos.example.yaml", "--json", "--data", replayed)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert "stream-stalls" in {row["objective"] for row in told["result"]["objectives"]}
    assert told["window"]["seconds"] == 30 * 86400, "the period of the budgets, where no other window is asked for"


def test_an_ad_hoc_answer_steers_no_terminal_and_is_whole_in_a_pipe(replayed: Path):
    statement = r"SELECT 'a\x1b]0;owned\x07\xc2\x9b1m\r\xe2\x80\xaeb\tc' FORMAT TSVRaw"
    command = [sys.executable, "-m", "servescope", "sql", statement, "--data", str(replayed)]
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(command, cwd=ROOT, stdout=theirs, stderr=subprocess.PIPE, check=False)
        shown = os.read(ours, 4096) if not done.returncode else b""
    finally:
        os.close(theirs)
        os.close(ours)
    assert done.returncode == 0, done.stderr
    assert shown.decode() == "a\ufffd]0;owned\ufffd\ufffd1m\ufffd\ufffdb\tc\r\n", (
        "the terminal adds the carriage return"
    )
    assert subprocess.check_output(command, cwd=ROOT) == b"a\x1b]0;owned\x07\xc2\x9b1m\r\xe2\x80\xaeb\tc\n"


@pytest.mark.heavy
def test_commands_at_the_same_time_ask_each_its_own_folder(replayed: Path, tmp_path: Path):
    other = tmp_path / "other"
    made = servescope("migrate", "--json", "--data", other)
    assert json.loads(made.stdout)["applied"], made.stderr
    count = ("sql", "SELECT count() AS n FROM requests WHERE has_edge = 1 FORMAT TSV")
    with ThreadPoolExecutor() as pool:
        asked = [(folder, pool.submit(servescope, *count, "--data", folder)) for folder in (replayed, other) * 2]
        for folder, answer in asked:
            assert answer.result().stdout == ("821\n" if folder is replayed else "0\n"), answer.result().stderr


def test_a_command_that_is_killed_leaves_nothing_running(replayed: Path):
    statement = "SELECT sleepEachRow(1) FROM numbers(100) SETTINGS max_block_size = 1"
    command = [sys.executable, "-m", "servescope", "sql", statement, "--data", str(replayed)]
    for number in (signal.SIGTERM, signal.SIGKILL):
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            wait_for(lambda: stores_of(replayed), 60, "its store to start")
            process.send_signal(number)
        wait_for(lambda: not stores_of(replayed), 60, "its store to end")


def stores_of(data: Path) -> list[int]:
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        words = process.info["cmdline"] or []
        if "collector.embedded" in words and str(data / "store") in words:
            found.append(process.info["pid"])
    return found


@pytest.mark.parametrize("words", [("sql", "SELECT 1"), ("latency",)])
def test_no_data_is_an_error_that_says_what_to_do(tmp_path: Path, words: tuple[str, ...]):
    done = servescope(*words, "--data", tmp_path / "none")
    assert done.returncode == 1
    assert "servescope up" in done.stderr


@pytest.mark.parametrize(("code", "name"), [(60, "UNKNOWN_TABLE"), (81, "UNKNOWN_DATABASE")])
def test_a_question_to_a_store_without_tables_says_what_brings_them(
    monkeypatch: pytest.MonkeyPatch, code: int, name: str
):
    def refused(*_: object, **__: object) -> None:
        raise StoreError(code, name, "Unknown table expression identifier 'requests'")

    monkeypatch.setattr(ask, "ask", refused)
    done = typed("tenants", "--clickhouse", "http://127.0.0.1:1")
    assert done.exit_code == 1
    assert "http://127.0.0.1:1 has none of Servescope's tables, or not all. " in done.stderr
    assert "servescope migrate" in done.stderr


def test_a_migration_is_of_the_store_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(migrate, "meant", lambda data, clickhouse: asked.append((data, clickhouse)) or tmp_path)
    monkeypatch.setattr(migrate.migrations, "apply", lambda store: [store.address.url])
    done = typed("migrate", "--clickhouse", "http://127.0.0.1:1")
    assert (done.exit_code, done.stdout, asked) == (0, "http://127.0.0.1:1\n", [(None, "http://127.0.0.1:1")])
