"""Servers that are named by URL: on the command line, or in an entry of the configuration."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlunsplit

from pydantic import Field, field_validator

from agent.finder import Entry, Finder, Surroundings, free_name
from agent.pages.fetch import split_url
from agent.target import Target
from base.errors import ConfigError
from base.redact import shown
from base.urls import http_url

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from agent.finder import Tell

_NAME: Final = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")


class Settings(Entry):
    """Model servers by their URLs alone; what is more to say of one stands in ``agent.targets``."""

    kind: Literal["static"]
    urls: tuple[str, ...] = Field(min_length=1, repr=False, description="URL or NAME=URL of each server.")

    @field_validator("urls")
    @classmethod
    def _check_urls(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            targets_of(value)
        except ConfigError as error:
            raise ValueError(str(error).replace("--target ", "")) from None
        return value

    def finder(self, around: Surroundings) -> Static:  # noqa: ARG002 - they are where they are
        """One that names them."""
        return Static(targets_of(self.urls))


class Static(Finder):
    """Names the same servers for as long as it runs."""

    def __init__(self, targets: Sequence[Target]) -> None:
        super().__init__("static")
        self._targets = targets

    async def run(self, tell: Tell) -> None:
        """Tell of them, once."""
        tell(self._targets)
        await asyncio.Event().wait()


def target_of(url: str, taken: Collection[str] = ()) -> Target:
    """The target that ``--target URL`` means; nothing is asked yet, the engine shows with its first page.

    Args:
        url: Base URL of a server or URL of its metrics page, optionally ``NAME=URL``.
        taken: Instance names in use already.

    Raises:
        ConfigError: It is no URL, or gives a name that is taken.
    """
    name, mark, address = url.partition("=")
    if not mark or "/" in name or ":" in name:
        name, address = "", url
    try:
        parts = split_url(address)
        http_url(parts.geturl())
    except ValueError:  # its text says the same again
        parts = split_url("")
    if not parts.hostname:
        raise ConfigError(f"--target {shown(url)} is not a URL", "Give one such as http://127.0.0.1:8000 or NAME=URL")
    if name and not _NAME.match(name):
        raise ConfigError(f"--target {shown(url)}: {name!r} is no name for a server", "Use letters, digits and ._-")
    if name in taken:
        raise ConfigError(f"--target {shown(url)}: another server is called {name}", "Give each a name of its own")
    is_page = parts.path.rstrip("/").endswith("metrics")
    wanted = name or re.sub(r"[^A-Za-z0-9.-]", "-", f"{parts.hostname}-{parts.port or parts.scheme}")
    instance = free_name(wanted, taken)
    whole = urlunsplit(parts).rstrip("/")
    return Target(instance, deployment=wanted, url="" if is_page else whole, metrics_url=whole if is_page else "")


def targets_of(urls: Iterable[str], known: Iterable[Target] = ()) -> list[Target]:
    """The targets that several ``--target`` mean, after those that are known.

    Raises:
        ConfigError: One is no URL, has a name that another has, or is the server of another.
    """
    found = list(known)
    for url in urls:
        target = target_of(url, {each.instance for each in found})
        same = next((each for each in found if (each.url, each.metrics_url) == (target.url, target.metrics_url)), None)
        if same is not None:
            raise ConfigError(
                f"--target {shown(url)} is the server of {same.instance} already", "Leave one of the two out"
            )
        found.append(target)
    return found
