"""What ``servescope demo`` runs beside Servescope itself: servers, their traffic, a recording that plays again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from demo import vllm_server
from servescope.launch.plan import Plan, make_plan, python
from servescope.launch.ports import Ports
from servescope.launch.supervisor import Part

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT: Final = Path(__file__).parent.parent
SETTINGS: Final = {"dashboard": {"recordings": "include"}}
"""Of its configuration; the recording is part of what there is to see, and pages say so."""
RECORDING: Final = Path(__file__).parent / "recordings" / "kv_exhaustion"
SLOS: Final = Path(__file__).parent / "slos.yaml"
_NOTES: Final = (
    "",
    "What to look at:",
    "  Overview      live within a minute: a tritonserver and a llama.cpp server, real, with traffic of five tenants",
    "  KV cache      {kv_cache}",
    "  Requests      click one: its phases, and what the engine was doing",
    "  Incidents     every two and a half minutes a tenant floods the vision model; see its page arrive",
)


def notes(*, live_vllm: bool) -> tuple[str, ...]:
    """What to tell the person at the terminal."""
    shown = (
        "a real vLLM, up after a minute or two; every three minutes a tenant floods its KV cache"
        if live_vllm
        else "a real vLLM whose KV cache is flooded: a recording, labelled so, playing again and again"
    )
    return tuple(line.format(kv_cache=shown) for line in _NOTES)


def build(data: Path, *, live_vllm: bool, vllm: str, port_base: int | None, say: Callable[[str], None]) -> Plan:
    """Lay out the demo over a data folder.

    Args:
        data: Data folder.
        live_vllm: A real vLLM on the CPU instead of the recording.
        vllm: Path of an installed ``vllm`` program; "" uses ``.venv-vllm``, installed on first use.
        port_base: First of a row of fixed ports for Servescope.
        say: Prints a line.

    Raises:
        PortInUseError: A port that was asked for is taken.
        VllmUnavailableError: There is no vllm program at that path, or ours can't be installed.
    """
    # Here and not in the server's own process: a wrong path is said at once, and two minutes of installing are shown.
    program = vllm_server.program(vllm, say) if live_vllm else None
    data.mkdir(parents=True, exist_ok=True)
    ports = Ports(say)
    triton = ports.take_row("tritonserver", 18000, 3)  # HTTP, gRPC, metrics
    llama = ports.take("llama.cpp", 18080)
    targets: list[dict[str, Any]] = [
        {
            "instance": "triton-a", "deployment": "vision", "engine": "triton", "url": f"http://127.0.0.1:{triton}",
            "metrics_url": f"http://127.0.0.1:{triton + 2}/metrics",
        },
        {
            "instance": "llama-a", "deployment": "chat", "engine": "llamacpp", "url": f"http://127.0.0.1:{llama}",
            "metrics_url": f"http://127.0.0.1:{llama}/metrics",
        },
    ]  # fmt: skip
    if live_vllm:
        port = ports.take("vLLM", 18100)
        targets.append({
            "instance": "vllm-a", "deployment": "tiny", "engine": "vllm", "url": f"http://127.0.0.1:{port}",
            "metrics_url": f"http://127.0.0.1:{port}/metrics",
        })  # fmt: skip
    slos = SLOS if SLOS.exists() else None
    plan = make_plan(data, SETTINGS, targets, slos=slos, port_base=port_base, ports=ports, say=say)
    receiver = plan.urls["agent_otlp"].removeprefix("http://")
    servers = [
        Part(
            "triton-a",
            python("demo.triton_server", "--venv", ROOT / ".venv-triton", "--folder", data / "triton",
                          "--port", triton, "--otlp", receiver, "--service", "triton-a"),
            ready_url=f"http://127.0.0.1:{triton}/v2/health/ready", required=False,
        ),
        Part(
            "llama-a", python("demo.llamacpp_server", "--port", llama, "--folder", data / "llama"),
            ready_url=f"http://127.0.0.1:{llama}/health", required=False,
        ),
    ]  # fmt: skip
    taps = plan.urls["taps"]
    clients = ["--vision", taps["triton-a"], "--chat", taps["llama-a"]]
    if program is not None:
        servers.append(Part(
            "vllm-a",
            python("demo.vllm_server", "--port", targets[2]["url"].rsplit(":", 1)[1], "--folder", data / "vllm",
                          "--otlp", plan.urls["agent_otlp"], "--service", "vllm-a", "--vllm", program),
        ))  # fmt: skip
        clients += ["--completions", taps["vllm-a"]]
    # Servers first: an agent that finds none would tell of an outage that was none.
    plan.parts = [
        *servers,
        *plan.parts,
        Part("traffic", python("demo.traffic", *clients)),
    ]
    if program is None:
        plan.parts.append(Part(
            "recording",
            python("agent.recording.replay", RECORDING, "--collector", plan.urls["otlp"], "--data", data, "--loop",
                          "--shift-to-now"),
        ))  # fmt: skip
    return plan
