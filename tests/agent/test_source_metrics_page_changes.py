"""What changes on a server's page is told, and told once."""

from __future__ import annotations

from dataclasses import replace

from tests.kits.metrics_page import FIXTURES, scraping, serving, target, vllm_page


async def test_down_and_up_again_is_told_once_each():
    async with serving() as (server,), scraping([target(server)]) as (seen, source):
        await seen.until(lambda: seen.samples)
        server.page = None
        await seen.until(lambda: sum(values["up"] == 0 for values in seen.of("a")) >= 3)
        whose, values = seen.samples[-1]
        assert values == {"up": 0}
        assert whose["servescope.model"] == "tiny"
        server.page = vllm_page()
        await seen.until(lambda: seen.of("a")[-1]["up"] == 1)
        assert source.stats["a"].failures >= 3
    ups_and_downs = [name for name in seen.names() if name in {"instance_up", "instance_down"}]
    assert ups_and_downs == ["instance_up", "instance_down", "instance_up"]
    firsts = [details.get("first") for name, _, details, _ in seen.events if name == "instance_up"]
    assert firsts == ["true", None]
    assert any("503" in message for name, message, _, _ in seen.events if name == "instance_down")


async def test_a_restart_is_noticed_by_the_start_time():
    async with serving() as (server,), scraping([target(server)]) as (seen, _):
        await seen.until(lambda: seen.samples)
        assert server.page is not None
        server.page = server.page.replace(
            "process_start_time_seconds 1.79548712635e+09", "process_start_time_seconds 1.8e+09"
        )
        server.about = {"version": "0.33.0"}
        await seen.until(lambda: "version_changed" in seen.names())
        await seen.until(lambda: seen.samples[-1][0]["service.version"] == "0.33.0")
        restarted = [values for values in seen.of("a") if values.get("generation_tokens_delta")]
        assert [values["generation_tokens_delta"] for values in restarted] == [13378]
    assert seen.names().count("instance_restarted") == 1
    (change,) = [details for name, _, details, _ in seen.events if name == "version_changed"]
    assert change == {"from": "0.32.0", "to": "0.33.0"}


async def test_a_changed_configuration_is_told_with_what_changed():
    async with serving() as (server,), scraping([target(server)]) as (seen, _):
        await seen.until(lambda: "instance_config" in seen.names())
        assert server.page is not None
        server.page = server.page.replace('num_gpu_blocks="8192"', 'num_gpu_blocks="40"')
        await seen.until(lambda: seen.names().count("instance_config") == 2)
    (change,) = [details for name, _, details, _ in seen.events if name == "config_changed"]
    assert change == {"num_gpu_blocks": "8192 → 40"}


async def test_a_broken_contract_is_told_once_and_so_is_its_end():
    async with serving() as (server,), scraping([target(server)]) as (seen, _):
        await seen.until(lambda: seen.of("a"))
        server.page = vllm_page().replace("vllm:num_preemptions_total", "vllm:num_evicted_total")
        await seen.until(lambda: seen.names().count("contract_broken") == 2)
        count = len(seen.of("a"))
        await seen.until(lambda: len(seen.of("a")) > count + 5)
        assert "preemptions_total" not in seen.of("a")[-1]
        server.page = vllm_page()
        await seen.until(lambda: "contract_mended" in seen.names())
    told = [(details["kind"], details["what"]) for name, _, details, _ in seen.events if name == "contract_broken"]
    assert told == [("unknown", "vllm:num_evicted_total"), ("gone", "preemptions_total")]


async def test_malformed_lines_are_told_once_and_the_rest_is_read():
    async with serving() as (server,), scraping([target(server)]) as (seen, source):
        server.page = vllm_page() + "broken{\n"
        await seen.until(lambda: len(seen.of("a")) >= 4)
        assert source.stats["a"].malformed_lines >= 1
    assert seen.names().count("page_malformed") == 1
    assert seen.of("a")[-1]["running"] == 10


async def test_a_changed_setting_that_only_props_tells_is_a_change_too():
    async with serving() as (server,):
        server.page = (FIXTURES / "llamacpp/metrics_busy.txt").read_text()
        server.about = {"build_info": "b1", "model_alias": "tiny", "total_slots": 4}
        async with scraping([target(server)]) as (seen, _):
            await seen.until(lambda: "instance_config" in seen.names())
            server.about = {"build_info": "b1", "model_alias": "tiny", "total_slots": 8}
            server.page = None
            await seen.until(lambda: "instance_down" in seen.names())
            server.page = (FIXTURES / "llamacpp/metrics_busy.txt").read_text()
            await seen.until(lambda: seen.names().count("instance_config") == 2)
    (change,) = [details for name, _, details, _ in seen.events if name == "config_changed"]
    assert change == {"total_slots": "4 → 8"}


async def test_another_engine_in_the_same_place_is_recognised():
    async with serving() as (server,), scraping([target(server)]) as (seen, _):
        await seen.until(lambda: seen.samples)
        server.page = (FIXTURES / "llamacpp/metrics_busy.txt").read_text()
        server.about = {"build_info": "b1", "model_alias": "tiny"}
        await seen.until(lambda: seen.samples[-1][0]["servescope.engine"] == "llamacpp")
        assert seen.of("a")[-1]["running"] == 2


async def test_repeated_series_are_told_once_and_counted_once():
    page = 'vllm:num_requests_running{engine="0",model_name="x"} 2\n'
    async with serving() as (server,), scraping([target(server)]) as (seen, _):
        server.page = page + page.replace('engine="0",model_name="x"', 'model_name="x",engine="0"')
        await seen.until(lambda: sum(values.get("running") == 2 for values in seen.of("a")) >= 3)
    (told,) = [message for name, message, _, _ in seen.events if name == "page_malformed"]
    assert "1 repeat a series" in told
    assert "line 2: the same series as line 1" in told


async def test_a_version_that_is_unloaded_is_no_restart():
    def versions(**finished: int) -> str:
        lines = [f'nv_inference_request_success{{model="m",version="{name}"}} {n}\n' for name, n in finished.items()]
        return "".join(lines)

    async with serving() as (server,):
        server.page = versions(v1=5000, v2=400)
        async with scraping([target(server, engine="triton")]) as (seen, _):
            await seen.until(lambda: seen.of("a"))
            server.page = versions(v2=403)
            await seen.until(lambda: seen.of("a")[-1].get("requests_finished_total") == 403)
            server.page = versions(v2=405, v3=1)
            await seen.until(lambda: seen.of("a")[-1].get("requests_finished_total") == 406)
    assert sum(values.get("requests_finished_delta", 0) for values in seen.of("a")) == 6
    assert "instance_restarted" not in seen.names()


async def test_a_server_that_comes_up_tells_its_pod():
    async with serving() as (server,):
        own = replace(target(server), pod="chat-0", namespace="models", node="n1")
        async with scraping([own]) as (seen, _):
            await seen.until(lambda: seen.samples)
    (details,) = [details for name, _, details, _ in seen.events if name == "instance_up"]
    assert details == {"first": "true", "pod": "chat-0", "namespace": "models", "node": "n1"}
