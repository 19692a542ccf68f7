"""What the agent and its probe cost, each benchmark in a process of its own.

The probe's step, the middleware's request and chunk; twenty pages a second; GPUs and hosts; and vLLM's own throughput,
where it is installed (``make test-vllm``).

    python -m benchmarks.agent [--quick] [--json] [--only NAME …]

Figures and failures are those of ``benchmarks.line``.
"""

from __future__ import annotations

from typing import Final

from benchmarks.line import PROMETHEUS, Benchmark, run_each
from benchmarks.serving import VLLM

BENCHMARKS: Final = (
    Benchmark("probe", 300),
    Benchmark("scrape", 300, needs=PROMETHEUS),
    Benchmark("gpu", 300),
    Benchmark("serving", 3_600, needs=str(VLLM)),
)

if __name__ == "__main__":
    run_each(BENCHMARKS, __doc__)
