"""Pods of Kubernetes that are annotated as the field does it: ``prometheus.io/scrape``, ``port``, ``path``, ``scheme``.

They are listed once and then watched. A pod that is deleted, or told to end, has left on purpose; one that is not ready
is watched as any other. A list that can't be had takes nothing away (decisions 0126 and 0127).
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path  # noqa: TC003 - pydantic reads it at run time
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

import structlog
from pydantic import Field, ValidationError, field_validator, model_validator

from agent.backoff import Backoff
from agent.finder import Elsewhere, Finder, Surroundings
from agent.kubeapi import EVERY_NAMESPACE, AnewError, ApiError, GarbageError, GoneError, PodApi, Query
from agent.pods import OddPodError, Pod, target_of
from base.settings import MustExist
from base.urls import HttpUrl, encrypted
from base.yamlfile import FieldError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import aiohttp

    from agent.finder import Tell
    from agent.target import Target

LINGER_SECONDS: Final = 60.0
"""How long a pod that failed for good stays, down: longer than any rule waits before a server that went down pages."""
MOST: Final = 10_000
_LONGEST_WAIT_SECONDS: Final = 30.0
_STEADY_SECONDS: Final = 10.0
_NAMED: Final = 3
_NAMESPACE: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

log = structlog.get_logger()


class Settings(Elsewhere):
    """Annotated pods of Kubernetes."""

    kind: Literal["kubernetes"]
    namespaces: tuple[str, ...] = Field(
        default=(),
        max_length=100,
        description='Where pods are looked for; `["*"]`: all; empty: the agent\'s own.',
    )
    selector: str = Field(default="", max_length=2000, description="Label selector, such as `app=vllm,tier!=test`.")
    own_node: bool = Field(default=False, description="Only pods on the agent's own node (`agent.node`).")
    annotated: bool = Field(
        default=True, description='Only pods with `prometheus.io/scrape: "true"`; false: all that `selector` names.'
    )
    port: int | str | None = Field(
        default=None, description="Number or name of the port of pods that are not annotated with one."
    )
    deployment: str = Field(
        default="", max_length=100, description="Their deployment; empty: the Deployment or StatefulSet that made each."
    )
    api: HttpUrl = Field(default="", description="Base URL of the API server; empty: that of the agent's own cluster.")
    token_file: Annotated[Path | None, MustExist(home=True, shown=False)] = Field(
        default=None, repr=False, description="File with a token for it; none: that of the agent's service account."
    )
    ca_file: Annotated[Path | None, MustExist()] = Field(
        default=None, description="Authorities it is checked by; none: those of the service account, or the system's."
    )

    @field_validator("namespaces")
    @classmethod
    def _check_namespaces(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if EVERY_NAMESPACE in value and len(value) > 1:
            raise ValueError('["*"] is every namespace: name no other beside it')
        for name in value:
            if name != EVERY_NAMESPACE and not _NAMESPACE.fullmatch(name):
                raise ValueError(f"{name!r} is no name of a namespace: lower-case letters, digits and -")
        if len(set(value)) < len(value):
            raise ValueError("has a namespace twice")
        return value

    @field_validator("port")
    @classmethod
    def _check_port(cls, value: int | str | None) -> int | str | None:
        value = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value
        if isinstance(value, int) and not 1 <= value <= 65535:  # noqa: PLR2004 - ports
            raise ValueError("is no port: 1 to 65535")
        return value

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        if not self.annotated and not self.selector:
            raise FieldError(("selector",), "is needed where pods need no annotation (annotated: false)")
        if self.api and not encrypted(self.api):
            if self.token_file is not None:
                raise FieldError(("api",), "must be https: a token would go to it in plain text")
            if self.ca_file is not None:
                what = "is for an https server, and api is plain http: make that https, or take this out"
                raise FieldError(("ca_file",), what)
        return self

    def finder(self, around: Surroundings) -> Kubernetes:
        """One that watches them."""
        return Kubernetes(self, around, PodApi(self.api, self.token_file, self.ca_file))


class Kubernetes(Finder):
    """Watches pods.

    Args:
        settings: Which.
        around: Tells the node.
        api: Who tells of them.
        first_wait_seconds: Longest wait after a first failure; it doubles with each.
        linger_seconds: How long a pod that failed for good is watched yet.
    """

    def __init__(
        self,
        settings: Settings,
        around: Surroundings,
        api: PodApi,
        *,
        first_wait_seconds: float = 0.5,
        linger_seconds: float = LINGER_SECONDS,
    ) -> None:
        super().__init__(f"kubernetes:{','.join(settings.namespaces)}" if settings.namespaces else "kubernetes")
        self._settings, self._around, self._api = settings, around, api
        self._first_wait, self._linger = first_wait_seconds, linger_seconds
        self._known: dict[str, dict[str, Target]] = {}
        self._names: set[str] = set()
        self._odd: dict[str, dict[str, str]] = {}
        self._errors: dict[str, str] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._malformed = 0
        self._told: list[Target] | None = None
        self._tell: Tell = lambda _targets: None

    async def run(self, tell: Tell) -> None:
        """Tell of the pods of all namespaces, at each change."""
        self._tell, self._told = tell, None
        queries = await self._queries()
        try:
            async with self._api.session() as session, asyncio.TaskGroup() as tasks:
                for query in queries:
                    tasks.create_task(self._follow(session, query), name=f"{self.name} {query.namespace}")
        finally:
            for timer in self._timers.values():
                timer.cancel()
            self._timers.clear()

    def problems(self) -> Iterable[str]:
        """What can't be asked, and pods that want to be watched and can't be."""
        yield from super().problems()
        odd = [reason for of_one in self._odd.values() for reason in of_one.values()]
        yield from odd[:_NAMED]
        if len(odd) > _NAMED:
            yield f"{len(odd) - _NAMED} more pods of {self.name} are not watched for such reasons"
        if self._malformed:
            yield f"{self._malformed} objects that {self.name} was told of were no pods"

    async def _queries(self) -> list[Query]:
        """What to ask: soon, or when a service account is there that names a namespace."""
        fields = f"spec.nodeName={self._around.place.node}" if self._settings.own_node else ""
        backoff, names = Backoff(first=self._first_wait, longest=_LONGEST_WAIT_SECONDS), self._settings.namespaces
        while not names:
            try:
                names = (self._api.own_namespace(),)
                self._errors.pop("", None)
            except ApiError as error:
                self._ill("", error)
                await asyncio.sleep(backoff.failed())
        return [Query(name, self._settings.selector, fields) for name in names]

    async def _follow(self, session: aiohttp.ClientSession, query: Query) -> None:
        loop, backoff = asyncio.get_running_loop(), Backoff(first=self._first_wait, longest=_LONGEST_WAIT_SECONDS)
        version = ""
        while True:
            began = loop.time()
            try:
                if not version:
                    found, version = await self._api.pods(session, query)
                    self._replace(query, found)
                    self._well(query)
                async with self._api.watch(session, query, version) as events:
                    self._well(query)
                    async for kind, body in events:
                        version = self._changed(query, kind, body) or version
                        backoff.succeeded()
            except GoneError as error:
                log.info("pods_listed_anew", by=self.name, namespace=query.namespace, reason=error.what)
                version = ""
            except ApiError as error:
                self._ill(query.namespace, error)
                version = "" if isinstance(error, AnewError) else version
            if loop.time() - began > _STEADY_SECONDS:
                backoff.succeeded()
            await asyncio.sleep(backoff.failed())

    def _replace(self, query: Query, found: Iterable[object]) -> None:
        """A list came: what it has is all there is."""
        before, self._known[query.namespace] = self._known.get(query.namespace, {}), {}
        self._odd[query.namespace] = {}
        self._names = {target.instance for of_one in self._known.values() for target in of_one.values()}
        pods = [pod for body in found if (pod := self._read(body)) is not None]
        # The oldest first: of two with one name it keeps the plain one, also after a new start.
        for pod in sorted(pods, key=lambda one: (one.metadata.creation_timestamp, one.metadata.uid)):
            self._take(query.namespace, pod, before.get(pod.metadata.uid))
        self._say()

    def _changed(self, query: Query, kind: str, body: dict[str, object]) -> str:
        """An event came; the version that it brings, empty where it has none."""
        if kind == "BOOKMARK":
            about = body.get("metadata")
            version = about.get("resourceVersion") if isinstance(about, dict) else None
            return version if isinstance(version, str) else ""
        pod = self._read(body)
        if pod is None:
            return ""
        uid = pod.metadata.uid
        before = self._known.setdefault(query.namespace, {}).get(uid)
        if kind in {"ADDED", "MODIFIED"}:
            self._take(query.namespace, pod, before)
        elif kind == "DELETED":
            self._drop(query.namespace, uid)
        else:
            raise GarbageError(
                f"the watch of pods tells of {kind[:40]!r}, which is no event", "Check what api leads to"
            )
        self._say()
        return pod.metadata.resource_version

    def _read(self, body: object) -> Pod | None:
        """A pod; None for an object that is none, which is counted."""
        try:
            return Pod.model_validate(body)
        except ValidationError:
            self._malformed += 1
            return None

    def _take(self, namespace: str, pod: Pod, before: Target | None) -> None:
        uid = pod.metadata.uid
        self._odd.setdefault(namespace, {}).pop(uid, None)
        if pod.is_leaving or not self._is_wanted(pod):
            self._drop(namespace, uid)
        elif pod.has_failed:
            # One that nobody saw alive is no server that went down.
            if before is not None:
                self._keep(namespace, uid, before)
                if uid not in self._timers:
                    loop = asyncio.get_running_loop()
                    self._timers[uid] = loop.call_later(self._linger, self._buried, namespace, uid)
        elif pod.status.pod_ip:
            self._enter(namespace, pod, before)
        elif before is not None:
            self._keep(namespace, uid, before)

    def _enter(self, namespace: str, pod: Pod, before: Target | None) -> None:
        uid = pod.metadata.uid
        if before is None and sum(map(len, self._known.values())) >= MOST:
            self._odd[namespace][uid] = f"pod {pod.where} is not watched: {MOST} others are"
            return
        try:
            target = target_of(pod, self._settings, before.instance if before else self._free(pod))
            self._keep(namespace, uid, target)
        except OddPodError as error:
            self._drop(namespace, uid)
            self._odd[namespace][uid] = str(error)

    def _free(self, pod: Pod) -> str:
        return pod.plain_name if pod.plain_name not in self._names else pod.whole_name

    def _keep(self, namespace: str, uid: str, target: Target) -> None:
        self._known[namespace][uid] = target
        self._names.add(target.instance)

    def _is_wanted(self, pod: Pod) -> bool:
        return not pod.has_sidecar and (not self._settings.annotated or pod.is_annotated)

    def _buried(self, namespace: str, uid: str) -> None:
        self._drop(namespace, uid)
        self._say()

    def _drop(self, namespace: str, uid: str) -> None:
        if (target := self._known[namespace].pop(uid, None)) is not None:
            self._names.discard(target.instance)
        self._odd.get(namespace, {}).pop(uid, None)
        if (timer := self._timers.pop(uid, None)) is not None:
            timer.cancel()

    def _say(self) -> None:
        targets = [target for of_one in self._known.values() for target in of_one.values()]
        if targets != self._told:
            self._told = targets
            self._tell(targets)

    def _ill(self, namespace: str, error: ApiError) -> None:
        self._errors[namespace] = str(error)
        self.failed("; ".join(dict.fromkeys(self._errors.values())))

    def _well(self, query: Query) -> None:
        self._errors.pop(query.namespace, None)
        if self._errors:
            self.error = "; ".join(dict.fromkeys(self._errors.values()))
        else:
            self.succeeded()
