"""Colours: one palette for light and one for dark pages, and one colour for each signal on every page.

Series colours are told apart by people with deuteranopia and in greyscale; red means broken and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Mode = Literal["light", "dark"]


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours of one mode, as hex.

    Attributes:
        mode: ``light`` or ``dark``.
        page, panel: Backgrounds.
        text, quiet: Text and its quieter kind.
        grid: Rules and borders.
        accent: Interaction, and nothing else.
        broken: What does not work.
        at_risk: An objective in danger.
        nobody: Time that nobody measured.
        series: Eight colours for things without a colour of their own.
        ramp: From the page's background to the strongest tone, for heatmaps.
    """

    mode: Mode
    page: str
    panel: str
    text: str
    quiet: str
    grid: str
    accent: str
    broken: str
    at_risk: str
    nobody: str
    series: tuple[str, ...]
    ramp: tuple[str, ...]


LIGHT: Final = Palette(
    mode="light",
    page="#fbfbfa",
    panel="#f2f2ef",
    text="#1d1f23",
    quiet="#5d6068",
    grid="#e2e2dd",
    accent="#2f5fd0",
    broken="#c0342b",
    at_risk="#9a6700",
    nobody="#cfd1d6",
    series=("#2f5fd0", "#c2671a", "#2a8f78", "#8455b8", "#7a7d85", "#b8860b", "#3b97c4", "#a3496d"),
    ramp=("#fbfbfa", "#d5dff3", "#9db5e8", "#5f86d8", "#2f5fd0", "#16357f"),
)

DARK: Final = Palette(
    mode="dark",
    page="#14161a",
    panel="#1c1f25",
    text="#e4e6ea",
    quiet="#9aa0aa",
    grid="#2c3038",
    accent="#7aa2ff",
    broken="#ff6b5e",
    at_risk="#e0b341",
    nobody="#454b57",
    series=("#7aa2ff", "#e8995a", "#5cc4a8", "#b794e0", "#9aa0aa", "#d9b44a", "#6cc0e8", "#d487a6"),
    ramp=("#14161a", "#1d2b4d", "#2b4a8f", "#4a78d6", "#7aa2ff", "#d3e0ff"),
)

_SLOT: Final = {
    "running": 0,
    "requests": 0,
    "waiting": 1,
    "queue": 1,
    "kv": 2,
    "frontend": 2,
    "prefill": 3,
    "edge": 4,
    "preemptions": 5,
    "decode": 6,
    "tokens": 6,
    "stall": 7,
}


_COMPUTE: Final = ("compute_input", "compute_output", "compute_infer")
"""Triton's parts of computing, from the lightest tint of one colour to the strongest: they stand beside the prefill and
decode of an LLM."""
_NOBODYS: Final = {"transit": "nobody", "unaccounted": "grid"}


def palette(mode: str | None) -> Palette:
    """The palette of a mode; light when the mode is unknown."""
    return DARK if mode == "dark" else LIGHT


def colour_of(signal: str, colours: Palette) -> str:
    """The one colour of a signal or phase.

    Raises:
        KeyError: The signal has no colour yet; give it one here.
    """
    if signal in _NOBODYS:
        return getattr(colours, _NOBODYS[signal])  # type: ignore[no-any-return]
    if signal in _COMPUTE:
        return _tint(colours, colours.series[0], 0.35 + 0.65 * _COMPUTE.index(signal) / (len(_COMPUTE) - 1))
    return colours.series[_SLOT[signal]]


def has_colour(signal: str) -> bool:
    """Whether a signal has a colour of its own."""
    return signal in _SLOT or signal in _NOBODYS or signal in _COMPUTE


def tints(colours: Palette, base: str, count: int) -> list[str]:
    """``count`` tints of one colour from light to strong, for percentiles: p50 light, p99 strong."""
    if count == 1:
        return [base]
    return [_tint(colours, base, 0.6 + 0.4 * step / (count - 1)) for step in range(count)]


def faded(colour: str, alpha: float) -> str:
    """The colour with an opacity, as ``rgba()``."""
    red, green, blue = _channels(colour)
    return f"rgba({red},{green},{blue},{alpha:g})"


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _tint(colours: Palette, base: str, share: float) -> str:
    mixed = (round(a + (b - a) * share) for a, b in zip(_channels(colours.page), _channels(base), strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)
