"""Pod Security's level ``restricted``, field by field.

https://kubernetes.io/docs/concepts/security/pod-security-standards/ (baseline and restricted, of Linux pods).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
_SYSCTLS = {
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
}  # fmt: skip
_SECCOMP = {"RuntimeDefault", "Localhost"}


def faults(spec: dict[str, Any]) -> list[str]:
    """What ``restricted`` refuses of a pod's spec."""
    pod = spec.get("securityContext", {})
    found = [field for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field)]
    found += [f"volume {each['name']}" for each in spec.get("volumes", []) if each.keys() - {"name"} - _VOLUMES]
    found += [f"sysctl {each['name']}" for each in pod.get("sysctls", []) if each["name"] not in _SYSCTLS]
    if pod.get("runAsUser") == 0:
        found.append("pod: runAsUser")
    for container in [*spec.get("initContainers", []), *spec["containers"], *spec.get("ephemeralContainers", [])]:
        found += [f"{container['name']}: {field}" for field, refused in _of_container(container, pod) if refused]
    return found


def _of_container(container: dict[str, Any], pod: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """Each field that is looked at, and whether it is refused."""
    own = container.get("securityContext", {})
    capabilities = own.get("capabilities", {})
    yield "privileged", bool(own.get("privileged"))
    yield "allowPrivilegeEscalation", own.get("allowPrivilegeEscalation") is not False
    yield "capabilities.drop", "ALL" not in capabilities.get("drop", [])
    yield "capabilities.add", bool(set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"})
    yield "runAsNonRoot", own.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True
    yield "runAsUser", own.get("runAsUser") == 0
    yield "seccompProfile", own.get("seccompProfile", pod.get("seccompProfile", {})).get("type") not in _SECCOMP
    yield "procMount", own.get("procMount", "Default") != "Default"
    yield "hostPort", any(port.get("hostPort") for port in container.get("ports", []))
    yield "host of a probe", any("host" in each.get("httpGet", {}) for each in _handlers(container))


def _handlers(container: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        if name in container:
            yield container[name]
    yield from container.get("lifecycle", {}).values()
