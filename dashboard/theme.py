"""Colours: one palette for light and one for dark pages, and one colour for each signal on every page.

Series colours are told apart by people with deuteranopia and in greyscale; red means broken and nothing else. Words
have a contrast of at least 4.5 to 1 to what they stand on, lines and areas one of 3 to 1 (WCAG 2.2, 1.4.3 and 1.4.11);
of a heatmap alone the low end is the page itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Mode = Literal["light", "dark"]
READABLE: Final = 4.5
"""Least contrast of words."""
SEEN: Final = 3.0
"""Least contrast of lines and areas."""
_STEPS: Final = 20
_LADDER: Final = 0.4
"""How far the strongest of several tints lies from the lightest: a share of the way from the page to the colour."""


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
    at_risk="#8f6000",
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
    "gpu": 0,
    "slowed": 5,
    "cpu": 3,
    "cpu_waits": 1,
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
        return tints(colours, colours.series[0], len(_COMPUTE))[_COMPUTE.index(signal)]
    return colours.series[_SLOT[signal]]


def has_colour(signal: str) -> bool:
    """Whether a signal has a colour of its own."""
    return signal in _SLOT or signal in _NOBODYS or signal in _COMPUTE


def tints(colours: Palette, base: str, count: int) -> list[str]:
    """``count`` tints of one colour from light to strong, for percentiles: p50 light, p99 strong.

    The lightest can still be seen; the strongest is the colour itself, or goes on towards the text where that one is
    too light for all tints to lie before it.
    """
    if count == 1:
        return [base]
    light = next(
        share / _STEPS
        for share in range(round((1 - _LADDER) * _STEPS), _STEPS + 1)
        if share == _STEPS or contrast(_mixed(colours.page, base, share / _STEPS), colours.page) >= SEEN
    )
    places = [light + _LADDER * step / (count - 1) for step in range(count)]
    return [
        _mixed(colours.page, base, place) if place <= 1 else _mixed(base, colours.text, place - 1) for place in places
    ]


def ink(colours: Palette, colour: str) -> str:
    """The colour as words can have it on page and panel: itself, or as much nearer to the text as it takes."""
    for share in range(_STEPS + 1):
        found = _mixed(colour, colours.text, share / _STEPS)
        if min(contrast(found, colours.page), contrast(found, colours.panel)) >= READABLE:
            return found
    return colours.text


def unmeasured(signal: str) -> bool:
    """Whether it is time that nobody measured: drawn hatched, for its colour is faint."""
    return signal in _NOBODYS


def contrast(one: str, other: str) -> float:
    """Contrast of two colours, 1 to 21, as WCAG 2.2 defines it by their relative luminance."""
    dark, bright = sorted(map(_luminance, (one, other)))
    return (bright + 0.05) / (dark + 0.05)


def faded(colour: str, alpha: float) -> str:
    """The colour with an opacity, as ``rgba()``."""
    red, green, blue = _channels(colour)
    return f"rgba({red},{green},{blue},{alpha:g})"


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _luminance(colour: str) -> float:
    parts = [channel / 255 for channel in _channels(colour)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)  # noqa: PLR2004 - sRGB's
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _mixed(start: str, end: str, share: float) -> str:
    mixed = (round(a + (b - a) * share) for a, b in zip(_channels(start), _channels(end), strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)
