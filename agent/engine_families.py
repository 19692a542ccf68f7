"""Families that many programs' pages have beside an engine's own, and what they are; told once for all tables.

A page of a model server also tells of its Python runtime, its process and its HTTP layer, and of programs that live in
the same process or are put on the same page by a collector: none of that is the engine's, and all of it is known.
"""

from __future__ import annotations

from typing import Final

_RUNTIME: Final = "Python runtime of the server process"
_PROCESS: Final = "of the server process, which host samples show for every process"
_HTTP: Final = "the HTTP layer's own count; the edge record has every request"
_OTEL: Final = "what OpenTelemetry says of the program, no measurement"
_GO: Final = "runtime of a Go program"

COMMON: Final[dict[str, str]] = {
    **dict.fromkeys(
        (
            "python_gc_objects_collected_total",
            "python_gc_objects_uncollectable_total",
            "python_gc_collections_total",
            "python_info",
        ),
        _RUNTIME,
    ),
    "process_start_time_seconds": "read apart, to notice a restart",
    **dict.fromkeys(
        (
            "process_virtual_memory_bytes",
            "process_virtual_memory_max_bytes",
            "process_resident_memory_bytes",
            "process_cpu_seconds_total",
            "process_open_fds",
            "process_max_fds",
            "process_threads",
            "process_network_receive_bytes_total",
            "process_network_transmit_bytes_total",
        ),
        _PROCESS,
    ),
    **dict.fromkeys(
        (
            "http_requests_total",
            "http_request_size_bytes",
            "http_response_size_bytes",
            "http_request_duration_seconds",
            "http_request_duration_highr_seconds",
        ),
        _HTTP,
    ),
    **dict.fromkeys(("target_info", "otel_scope_info"), _OTEL),
    "rest_client_requests_total": "a controller's requests to Kubernetes",
    "rest_client_request_duration_seconds": "a controller's requests to Kubernetes",
}
"""Families by name, with the reason why no table reads them."""

BEGINNINGS: Final[dict[str, str]] = {
    "go_": _GO,
    "promhttp_": "the page's own handler",
    "scrape_": "written by a scraper",
    "controller_runtime_": "runtime of a Kubernetes controller",
    "workqueue_": "runtime of a Kubernetes controller",
    "certwatcher_": "runtime of a Kubernetes controller",
    "leader_election_": "runtime of a Kubernetes controller",
    "lmcache": "an LMCache in the same process; its own server's page is read as engine lmcache",
    "dynamo_": "NVIDIA Dynamo's runtime around the engine",
    "DCGM_FI_": "GPU samples have it from the driver, each second",
    "envoy_": "a proxy on the same page",
    "istio_": "a proxy on the same page",
}
"""Beginnings of families of other programs on an engine's page, with what they are."""

_BEGINS: Final = tuple(BEGINNINGS)


def is_common(family: str) -> bool:
    """Whether a family is of something that stands beside engines; a ``_created`` twin and a part of a summary are."""
    if family.startswith(_BEGINS):
        return True
    for part in ("_created", "_sum", "_count", "_bucket"):
        name = family.removesuffix(part)
        if name in COMMON or f"{name}_total" in COMMON:
            return True
    return False


def because(reason: str, *families: str) -> dict[str, str]:
    """Families that are left out for the same reason, as a table's ``ignored`` has them."""
    return dict.fromkeys(families, reason)
