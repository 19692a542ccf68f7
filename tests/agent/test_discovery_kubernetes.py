"""Pods as an API server tells of them over the wire, and which servers are watched for that."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from agent.config import AgentConfig, load
from agent.sidecar import Sidecar
from base.errors import ConfigError
from tests.agent.test_targets_leave import FREE, events
from tests.kits.agent_fakes import FakeCollector, until
from tests.kits.kube_api import TOKEN, KubeApi, pod
from tests.kits.kube_finder import looking

if TYPE_CHECKING:
    from pathlib import Path


async def test_an_annotated_pod_is_a_target_with_its_place_and_version(tmp_path: Path):
    async with KubeApi(tmp_path) as api:
        labels = {"app.kubernetes.io/version": "2026.4"}
        told = {"servescope.dev/engine": "vllm", "prometheus.io/path": "inner/metrics"}
        api.put(pod("chat-x2", labels=labels, annotations=told))
        api.put(pod("plain", annotations={"prometheus.io/scrape": None}))
        async with looking(api, selector="app=vllm", own_node=True) as seen:
            await until(lambda: seen.names == ["chat-x2"])
            (one,) = seen.told[-1]
            assert (one.url, one.metrics_url) == ("http://10.4.1.7:8000", "http://10.4.1.7:8000/inner/metrics")
            assert (one.engine, one.deployment, one.role) == ("vllm", "chat", "both")
            assert (one.pod, one.namespace, one.node, one.version) == ("chat-x2", "models", "gpu-7", "2026.4")
            await until(lambda: api.watched == 1)
        path, query = api.asked[0]
        assert path == "/api/v1/namespaces/models/pods"
        assert (query["labelSelector"], query["fieldSelector"]) == ("app=vllm", "spec.nodeName=gpu-7")
        _, query = api.asked[1]
        assert query["resourceVersion"] == "102"
        assert query["allowWatchBookmarks"] == "true"
        assert query["labelSelector"] == "app=vllm"


async def test_pods_come_change_and_go_by_one_watch(tmp_path: Path):
    async with KubeApi(tmp_path) as api, looking(api) as seen:
        await until(lambda: api.watched == 1)
        assert seen.told == [[]]
        api.put(pod("starting", ip="", status={"phase": "Pending"}))
        api.put(pod("a", "10.4.1.8"))
        await until(lambda: seen.names == ["a"])
        api.put(pod("starting", "10.4.1.9", status={"conditions": [{"type": "Ready", "status": "False"}]}))
        await until(lambda: seen.names == ["a", "starting"])
        api.put(pod("a", "10.4.1.10"))
        await until(lambda: seen.one("a").url == "http://10.4.1.10:8000")
        api.put(pod("starting", "10.4.1.9", metadata={"deletionTimestamp": "2026-05-01T10:09:00Z"}))
        await until(lambda: seen.names == ["a"])
        api.delete("starting")
        api.put(pod("b"))
        api.put(pod("done", status={"phase": "Succeeded"}))
        api.delete("a")
        await until(lambda: seen.names == ["b"])
        api.put(pod("b", annotations={"prometheus.io/scrape": "false"}))
        await until(lambda: seen.names == [])
        assert api.verbs() == ["list", "watch"]
        assert (seen.finder.failures, list(seen.finder.problems())) == (0, [])


async def test_a_change_that_is_none_of_a_targets_is_not_told(tmp_path: Path):
    async with KubeApi(tmp_path) as api, looking(api) as seen:
        api.put(pod("a"))
        await until(lambda: seen.names == ["a"])
        told = len(seen.told)
        for number in range(5):
            ready = {"conditions": [{"type": "Ready", "status": str(bool(number % 2))}]}
            api.put(pod("a", status=ready))
        api.put(pod("b"))
        await until(lambda: seen.names == ["a", "b"])
        assert len(seen.told) == told + 1


async def test_a_pod_that_failed_for_good_is_down_for_a_while_and_an_old_one_is_no_server(tmp_path: Path):
    async with KubeApi(tmp_path) as api:
        api.put(pod("evicted-long-ago", status={"phase": "Failed"}))
        async with looking(api, linger=0.05) as seen:
            api.put(pod("a"))
            await until(lambda: seen.names == ["a"])
            api.put(pod("a", status={"phase": "Failed", "podIP": ""}))
            api.put(pod("b"))
            await until(lambda: seen.names is not None and "b" in seen.names)
            await until(lambda: seen.names == ["b"])
        kept = {tuple(sorted(one.instance for one in told)) for told in seen.told}
        assert ("a", "b") in kept, "it stays, so that who watches it sees it down"
        async with looking(api) as seen:
            await until(lambda: seen.names == ["b"])


async def test_a_long_list_comes_in_pages_and_one_that_grows_old_is_read_anew(tmp_path: Path):
    async with KubeApi(tmp_path) as api:
        api.page = 2
        for number in range(5):
            api.put(pod(f"p{number}", f"10.4.1.{number + 1}"))
        async with looking(api) as seen:
            await until(lambda: seen.names == [f"p{number}" for number in range(5)])
            assert api.verbs()[:3] == ["list"] * 3
            assert [query.get("continue", "") for _, query in api.asked[:3]] == ["", "2:105", "4:105"]
        api.asked.clear()
        answer, turns = api._list, iter(range(100))

        def aging(query: dict[str, str], namespace: str | None) -> Any:
            if next(turns) == 1:
                api.version += 1
                api.oldest = api.version
            return answer(query, namespace)

        api._list = aging  # type: ignore[method-assign]
        async with looking(api) as seen:
            await until(lambda: seen.names == [f"p{number}" for number in range(5)])
            assert [query.get("continue", "") for _, query in api.asked[:3]] == ["", "2:105", ""]
            assert seen.finder.failures == 0


async def test_bookmarks_carry_a_watch_on_and_410_has_the_list_read_anew(tmp_path: Path):
    async with KubeApi(tmp_path) as api, looking(api) as seen:
        api.put(pod("a"))
        api.put(pod("b"))
        await until(lambda: seen.names == ["a", "b"] and api.watched == 1)
        api.bookmark()
        marked = str(api.version)
        api.end()
        await until(lambda: api.verbs() == ["list", "watch", "watch"])
        assert api.asked[-1][1]["resourceVersion"] == marked
        await until(lambda: api.watched == 1)
        api.quietly(pod("b"), pod("c"))
        api.expire()
        await until(lambda: seen.names == ["b", "c"])
        await until(lambda: api.watched == 1)
        assert api.verbs()[3:] == ["list", "watch"]
        assert (seen.finder.failures, list(seen.finder.problems())) == (0, [])


async def test_a_cut_connection_is_made_anew_from_where_it_was_and_nothing_is_missed(tmp_path: Path):
    async with KubeApi(tmp_path) as api, looking(api) as seen:
        api.put(pod("a"))
        await until(lambda: seen.names == ["a"] and api.watched == 1)
        seen_to = str(api.version)
        api.refuse["watch"] = (503, "etcdserver: leader changed")
        api.cut()
        await until(lambda: seen.finder.failures >= 2)
        assert seen.names == ["a"], "a failure takes nothing away"
        await until(lambda: "answers 503: etcdserver: leader changed" in seen.finder.error)
        (problem,) = seen.finder.problems()
        assert problem.startswith("kubernetes:models can't be asked for its servers, those that were known stay: ")
        api.delete("a")
        api.put(pod("b"))
        del api.refuse["watch"]
        await until(lambda: seen.names == ["b"])
        await until(lambda: not seen.finder.error)
        assert api.verbs().count("list") == 1
        assert api.asked[-1][1]["resourceVersion"] == seen_to


@pytest.mark.parametrize("verb", ["list", "watch"])
async def test_403_names_the_role_that_is_missing(tmp_path: Path, verb: str):
    async with KubeApi(tmp_path) as api:
        message = (
            'pods is forbidden: User "system:serviceaccount:watch:agent" cannot '
            f'{verb} resource "pods" in API group "" in the namespace "models"'
        )
        api.refuse[verb] = (403, message)
        async with looking(api) as seen:
            await until(lambda: seen.finder.failures > 1)
            await until(lambda: "answers 403" in seen.finder.error)
            error = seen.finder.error
            assert f"the API server answers 403: {message}" in error
            assert f"may not {verb} pods in the namespace models: give it a Role and RoleBinding" in error
            assert "get, list and watch on pods" in error
            del api.refuse[verb]
            api.put(pod("a"))
            await until(lambda: seen.names == ["a"])
            assert seen.finder.error == ""
        api.refuse["list"] = (403, "no")
        async with looking(api, namespaces=["*"]) as seen:
            await until(lambda: "all namespaces: give it a ClusterRole" in seen.finder.error)
            assert api.asked[-1][0] == "/api/v1/pods"


async def test_a_token_that_was_exchanged_is_read_again_and_is_told_nowhere(tmp_path: Path):
    async with KubeApi(tmp_path) as api, looking(api) as seen:
        await until(lambda: api.watched == 1)
        api.tokens = {"second"}
        api.end()
        await until(lambda: "answers 401" in seen.finder.error)
        assert "token_file" in seen.finder.error
        assert TOKEN not in seen.finder.error
        api.token_file.write_text("second\n")
        api.put(pod("a"))
        await until(lambda: seen.names == ["a"])
        assert seen.finder.error == ""


async def test_the_pods_own_account_leads_to_the_server_of_its_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async with KubeApi(tmp_path) as api:
        api.put(pod("a"))
        api.put(pod("b", namespace="others"))
        host, _, port = api.url.removeprefix("https://").partition(":")
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
        async with looking(api, own=True, namespaces=[]) as seen:
            await until(lambda: seen.names == ["a"])
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
        async with looking(api, own=True, namespaces=[]) as seen:
            await until(lambda: "KUBERNETES_SERVICE_HOST is not set" in seen.finder.error)
            assert seen.told == []
        (tmp_path / "namespace").unlink()
        async with looking(api, own=True, namespaces=[]) as seen:
            await until(lambda: "Give namespaces" in seen.finder.error)


async def test_a_certificate_of_another_authority_gets_no_token(tmp_path: Path):
    (tmp_path / "other").mkdir()
    other = KubeApi(tmp_path / "other")
    async with KubeApi(tmp_path) as api:
        api.ca_file = other.ca_file
        async with looking(api) as seen:
            await until(lambda: "certificate is not to be trusted" in seen.finder.error)
            assert (api.asked, seen.told) == ([], [])
        api.ca_file = tmp_path / "none"
        async with looking(api) as seen:
            await until(lambda: "can't be read: No such file" in seen.finder.error)


async def test_an_error_of_the_watch_that_is_none_of_age_has_the_list_read_anew_too(tmp_path: Path):
    async with KubeApi(tmp_path) as api, looking(api) as seen:
        await until(lambda: api.watched == 1)
        status = {"kind": "Status", "status": "Failure", "message": "etcd event received with PrevKv=nil", "code": 500}
        api.quietly(pod("a"))
        api.say({"type": "ERROR", "object": status})
        await until(lambda: seen.names == ["a"])
        assert seen.finder.failures == 1


async def test_one_that_is_made_again_under_its_name_keeps_it(tmp_path: Path):
    async with KubeApi(tmp_path) as api, looking(api) as seen:
        api.put(pod("chat-0"))
        await until(lambda: seen.names == ["chat-0"] and api.watched == 1)
        api.quietly(pod("chat-0", "10.4.1.8", metadata={"uid": "another"}))
        api.expire()
        await until(lambda: seen.one("chat-0").url == "http://10.4.1.8:8000")
        await until(lambda: api.watched == 1)
        going = {"uid": "another", "deletionTimestamp": "2026-05-01T10:09:00Z"}
        api.put(pod("chat-0", "10.4.1.8", metadata=going))
        api.put(pod("chat-0", "fd00::9", metadata={"uid": "a third"}))
        await until(lambda: seen.names == ["chat-0"] and seen.one("chat-0").url == "http://[fd00::9]:8000")


GARBAGE = {
    "no JSON": b"<html>Sign in</html>\n",
    "no event": b'{"kind": "Pod"}\n',
    "no object": b'{"type": "ADDED", "object": 7}\n',
    "a word": b'{"type": "RENAMED", "object": {"metadata": {"name": "a", "uid": "u"}}}\n',
    "deep": b"[" * 100_000 + b"\n",
    "half": b'{"type": "ADDED", "obj',
    "no text": b"\xff\xfe\x00\n",
    "endless": b"x" * (5 << 20),
}


@pytest.mark.parametrize("line", GARBAGE.values(), ids=GARBAGE)
async def test_garbage_in_a_watch_is_counted_and_the_list_read_anew(tmp_path: Path, line: bytes):
    async with KubeApi(tmp_path) as api, looking(api) as seen:
        api.put(pod("a"))
        await until(lambda: seen.names == ["a"] and api.watched == 1)
        api.say(line)
        api.end()
        await until(lambda: seen.finder.failures >= 1)
        await until(lambda: api.verbs().count("list") == 2)
        api.put(pod("b"))
        await until(lambda: seen.names == ["a", "b"])
        assert all(told for told in seen.told[1:]), "nobody left for it"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"nothing",
        b'{"items": 7}',
        b'{"items": [], "metadata": {}}',
        b'{"metadata": {"resourceVersion": "1"}',
    ],
)
async def test_garbage_for_a_list_tells_of_no_server(tmp_path: Path, body: bytes):
    async with KubeApi(tmp_path) as api:
        api.put(pod("a"))
        api.raw = body
        async with looking(api) as seen:
            await until(lambda: seen.finder.failures >= 2)
            assert seen.told == []
            api.raw = None
            await until(lambda: seen.names == ["a"])


async def test_objects_that_are_no_pods_are_passed_over_and_told(tmp_path: Path):
    async with KubeApi(tmp_path) as api:
        odd = [7, {}, {"metadata": {"name": "x", "uid": "u", "labels": ["no"]}}, pod("fine")]
        api.raw = json.dumps({"items": odd, "metadata": {"resourceVersion": "1"}}).encode()
        async with looking(api) as seen:
            await until(lambda: seen.names == ["fine"])
            assert list(seen.finder.problems()) == ["3 objects that kubernetes:models was told of were no pods"]


async def test_of_two_namespaces_one_that_is_forbidden_takes_nothing_from_the_other(tmp_path: Path):
    async with KubeApi(tmp_path) as api:
        api.put(pod("a"))
        answer = api._answer

        async def forbidding(request: Any) -> Any:
            api.refuse = {"list": (403, "not there")} if "/hidden/" in request.path else {}
            return await answer(request)

        api._answer = forbidding  # type: ignore[method-assign]
        async with KubeApiAgain(api), looking(api, namespaces=["models", "hidden"]) as seen:
            await until(lambda: seen.names == ["a"])
            await until(lambda: "in the namespace hidden" in seen.finder.error)
            api.put(pod("b"))
            await until(lambda: seen.names == ["a", "b"])
            assert "in the namespace hidden" in seen.finder.error


class KubeApiAgain:
    """Has a server route anew, by handlers that were put in place of its own."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api

    async def __aenter__(self) -> None:
        await self._api._runner.cleanup()
        await self._api.__aenter__()

    async def __aexit__(self, *_: object) -> None:
        return None


async def test_an_agent_tells_where_the_pod_is_and_that_it_left_on_purpose(tmp_path: Path):
    async with FakeCollector() as collector, KubeApi(tmp_path) as api:
        entry = {"kind": "kubernetes", "namespaces": ["models"], "api": api.url, "token_file": str(api.token_file),
                 "ca_file": str(api.ca_file)}  # fmt: skip
        settings = FREE | {
            "collector": collector.url,
            "host": False,
            "probe": False,
            "discovery": [entry],
            "node": "n1",
        }
        agent = Sidecar(AgentConfig.model_validate(settings), tmp_path / "data")
        stop = asyncio.Event()
        living = asyncio.create_task(agent.run(stop))
        api.put(pod("chat-x2", "127.0.0.1", labels={"app.kubernetes.io/version": "7"}))
        await until(lambda: living.done() or [one.instance for one in agent.targets] == ["chat-x2"])
        api.put(pod("chat-x2", "127.0.0.1", metadata={"deletionTimestamp": "2026-05-01T10:09:00Z"}))
        await until(lambda: agent.targets == [])
        await until(lambda: "target_left" in [one[0] for one in events(collector)])
        stop.set()
        await living
    told = {one[0]: one[3] for one in events(collector) if one[1] == "chat-x2"}
    by = {"by": "kubernetes:models"}
    assert told["target_found"] == by | {"pod": "chat-x2", "namespace": "models", "node": "gpu-7", "version": "7"}
    assert told["target_left"] == by


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{kind: kubernetes, namespaces: ['*', a]}", 'discovery[0].namespaces: ["*"] is every namespace'),
        ("{kind: kubernetes, namespaces: [A_b]}", "discovery[0].namespaces: 'A_b' is no name of a namespace"),
        ("{kind: kubernetes, namespaces: [a, a]}", "discovery[0].namespaces: has a namespace twice"),
        ("{kind: kubernetes, annotated: false}", "discovery[0].selector: is needed"),
        ("{kind: kubernetes, port: 0}", "discovery[0].port: is no port"),
        ("{kind: kubernetes, api: 'http://h', token_file: '/dev/null'}", "discovery[0].api: must be https"),
        ("{kind: kubernetes, api: 'HTTP://h', token_file: '/dev/null'}", "discovery[0].api: must be https"),
        ("{kind: kubernetes, api: 'http://h', ca_file: '/dev/null'}", "discovery[0].ca_file: is for an https server"),
        ("{kind: kubernetes, engine: vlm}", "discovery[0].engine: is no engine known here"),
    ],
)
def test_what_is_wrong_is_told_by_field(tmp_path: Path, entry: str, said: str):
    file = tmp_path / "servescope.yaml"
    file.write_text(f"agent:\n  discovery:\n    - {entry}\n")
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    assert f"agent.{said}" in str(caught.value)
