"""Plays a recording into a collector, over the same wire as live data.

Nothing in a replay is drawn by chance: ids and bodies follow from the recording and the shift, a batch's id from its
body. So a replay that is repeated with the same shift is the same batches, and changes nothing (unless asked to). A
shift moves every time and, with it, every trace and span id, so that a looped recording is new each time round.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import heapq
import signal
import sys
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

import click
import structlog

from agent.otlp.emit import SignalKind
from agent.recording.folder import Recording, recordings_in
from agent.recording.playback import Item, Playback
from agent.ship import Sender
from base.errors import ServescopeError
from base.keys import Keys, ensure_keys
from base.logs import log_to_stderr
from base.signing import REPLAYED

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    Send = Callable[[SignalKind, bytes, str], Awaitable[bool]]

_SLICE_SECONDS: Final = 10.0
_LIVE_SLICE_SECONDS: Final = 1.0
_MAX_BODY_BYTES: Final = 1_000_000
_PAUSE_SECONDS: Final = 2.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Slice:
    """What of one signal is sent together. ``at``: Unix seconds (shifted) when the last of it had been seen."""

    at: float
    signal: SignalKind
    body: bytes

    @property
    def batch_id(self) -> str:
        """Follows from the content, so that a repeat is known as one."""
        return REPLAYED + hashlib.sha256(self.signal.encode() + self.body).hexdigest()[:32]


async def replay(
    folder: Path,
    send: Send | str,
    *,
    shift_to_now: bool = False,
    loop: bool = False,
    realtime: bool | None = None,
    again: bool = False,
    keys: Keys | None = None,
    now: float | None = None,
) -> dict[str, object]:
    """Play the recording in a folder, or those in its subfolders together.

    Args:
        folder: A recording's folder.
        send: Takes (signal, OTLP body, batch id) and tells whether it was new; or the collector's base URL.
        shift_to_now: Move all times so that the recording ends now (begins now when played in real time).
        loop: Play again and again in real time, with fresh ids each time, until cancelled.
        realtime: Wait for each moment to come instead of sending at once; by default only when looped.
        again: Store what was stored before once more: its rows were deleted since, or have expired.
        keys: Keys that sign what goes to a URL.
        now: Unix seconds to take for now.

    Returns:
        ``{"recordings": [names], "start", "end" (Unix seconds as stored), "requests", "samples", "spans", "events",
        "batches", "repeated" (batches the collector had already: they changed nothing)}``.

    Raises:
        RecordingError: There is no recording, or it can't be read.
        ServescopeError: The collector refuses it or can't be reached.
    """
    async with contextlib.AsyncExitStack() as stack:
        if isinstance(send, str):
            sender = await stack.enter_async_context(Sender(send, keys.agent_hmac if keys else None))
            send = sender.deliver
        recordings = await asyncio.to_thread(recordings_in, folder)
        live = loop if realtime is None else realtime
        while True:
            report = await _play(recordings, send, shift=shift_to_now or loop, live=live, again=again, now=now)
            if not loop:
                return report
            log.info("replayed", **report)
            await asyncio.sleep(_PAUSE_SECONDS)


async def _play(
    recordings: list[Recording], send: Send, *, shift: bool, live: bool, again: bool, now: float | None
) -> dict[str, object]:
    spans = [recording.span_seconds() for recording in recordings]
    start, end = min(begin for begin, _ in spans), max(last for _, last in spans)
    moment = time.time() if now is None else now
    # Whole milliseconds: the id of a request is made of them.
    shift_ns = round((moment - (start if live else end)) * 1000) * 1_000_000 if shift else 0
    plays = [Playback(recording, shift_ns) for recording in recordings]
    items = heapq.merge(*(play.items() for play in plays), key=lambda item: item.at)
    batches = repeated = 0
    for part in slices(items, _LIVE_SLICE_SECONDS if live else _SLICE_SECONDS):
        if live:
            await asyncio.sleep(max(0.0, part.at - time.time()))
        # A loop never plays the same again: its batches need no longer memory than a live sender's.
        batch_id = part.batch_id.removeprefix(REPLAYED) if live else part.batch_id
        if again:
            batch_id = uuid.uuid4().hex
        repeated += not await send(part.signal, part.body, batch_id)
        batches += 1
    counts = sum((play.counts for play in plays), start=Counter[str]())
    return {
        "recordings": [recording.name for recording in recordings],
        "start": start + shift_ns / 1e9,
        "end": end + shift_ns / 1e9,
        **{name: counts[name] for name in ("requests", "samples", "spans", "events")},
        "batches": batches,
        "repeated": repeated,
    }


def slices(items: Iterable[Item], seconds: float) -> Iterator[Slice]:
    """Merge items (in order of time) into bodies of at most so many seconds and about 1 MB.

    A boundary lies where an item's own time says, never where the clock happens to be.
    """
    waiting: dict[SignalKind, list[Item]] = {kind: [] for kind in get_args(SignalKind)}

    def close(kind: SignalKind) -> Slice:
        held, waiting[kind] = waiting[kind], []
        return Slice(held[-1].at, kind, b"".join(item.body for item in held))

    until = float("-inf")
    for item in items:
        if item.at >= until:
            yield from [close(kind) for kind, held in waiting.items() if held]
            until = item.at + seconds
        waiting[item.signal].append(item)
        if sum(len(one.body) for one in waiting[item.signal]) >= _MAX_BODY_BYTES:
            yield close(item.signal)
    yield from [close(kind) for kind, held in waiting.items() if held]


@click.command(context_settings={"auto_envvar_prefix": "SERVESCOPE"})
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--collector", default="http://127.0.0.1:4318", show_default=True, help="Base URL of the collector.")
@click.option("--shift-to-now", is_flag=True, help="Move all times so that the recording ends now.")
@click.option("--loop", is_flag=True, help="Play in real time again and again, with fresh ids.")
@click.option("--data", type=click.Path(file_okay=False, path_type=Path), help="Data folder whose key signs.")
def main(folder: Path, collector: str, shift_to_now: bool, loop: bool, data: Path | None) -> None:
    """Play a recording into a collector."""
    log_to_stderr()
    try:
        keys = ensure_keys(data / "keys") if data else None
        asyncio.run(_until_stopped(folder, collector, shift_to_now=shift_to_now, loop=loop, keys=keys))
    except ServescopeError as error:
        click.echo(f"replay: {error}", err=True)
        sys.exit(1)


async def _until_stopped(folder: Path, collector: str, *, shift_to_now: bool, loop: bool, keys: Keys | None) -> None:
    task = asyncio.create_task(replay(folder, collector, shift_to_now=shift_to_now, loop=loop, keys=keys))
    running = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        running.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


if __name__ == "__main__":
    main()
