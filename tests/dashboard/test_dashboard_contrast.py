"""Contrast of our own colours on what they stand on (WCAG 2.2): words 4.5 to 1, lines and areas 3 to 1."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from dashboard.drawings import phase_stack
from dashboard.figures import Trace, lines, percentiles
from dashboard.theme import _SLOT, DARK, LIGHT, Palette, colour_of, contrast, ink, tints, unmeasured
from tests.dashboard.test_dashboard_figures import STYLE, TIMES

PALETTES = pytest.mark.parametrize("palette", [LIGHT, DARK], ids=lambda palette: palette.mode)


@pytest.mark.parametrize(
    ("one", "other", "told"), [("#000000", "#ffffff", 21.0), ("#ffffff", "#ffffff", 1.0), ("#777777", "#ffffff", 4.48)]
)
def test_contrast_is_as_the_guideline_counts_it(one: str, other: str, told: float) -> None:
    assert contrast(one, other) == pytest.approx(told, abs=0.005)
    assert contrast(other, one) == contrast(one, other)


@PALETTES
@pytest.mark.parametrize("name", ["text", "quiet", "broken", "at_risk", "accent"])
def test_words_can_be_read_on_page_and_panel(palette: Palette, name: str) -> None:
    for ground in (palette.page, palette.panel):
        assert contrast(getattr(palette, name), ground) >= 4.5


@PALETTES
def test_the_word_on_a_button_can_be_read(palette: Palette) -> None:
    assert contrast(palette.page, palette.accent) >= 4.5


@PALETTES
def test_every_series_and_signal_can_be_seen(palette: Palette) -> None:
    named = [colour_of(signal, palette) for signal in (*_SLOT, "compute_input", "compute_output", "compute_infer")]
    for colour in (*palette.series, *named):
        assert contrast(colour, palette.page) >= 3.0, colour


@PALETTES
@pytest.mark.parametrize("signal", _SLOT)
def test_tints_go_from_what_can_be_seen_to_what_is_strong(palette: Palette, signal: str) -> None:
    shades = [contrast(shade, palette.page) for shade in tints(palette, colour_of(signal, palette), 4)]
    assert shades == sorted(shades)
    assert shades[0] >= 3.0
    assert shades[-1] >= 1.5 * shades[0]


@PALETTES
def test_names_at_the_ends_of_lines_can_be_read(palette: Palette) -> None:
    style = replace(STYLE, colours=palette)
    values = {name: [0.1] * 6 for name in ("p50", "p90", "p95", "p99")}
    drawn = [
        percentiles(TIMES, values, style, title="t", signal="decode"),
        *(lines(TIMES, [Trace("one", [1.0] * 6, colour)], style, title="t", unit="s") for colour in palette.series),
    ]
    for figure in drawn:
        assert figure.layout.annotations
        for label in figure.layout.annotations:
            assert contrast(label.font.color, palette.page) >= 4.5, label.text


@PALETTES
def test_ink_keeps_what_can_be_read_already(palette: Palette) -> None:
    assert ink(palette, palette.text) == palette.text
    assert ink(palette, palette.accent) == palette.accent
    assert contrast(ink(palette, palette.grid), palette.panel) >= 4.5


@PALETTES
def test_time_that_nobody_measured_is_hatched_where_its_colour_is_faint(palette: Palette) -> None:
    for signal in ("transit", "unaccounted"):
        assert unmeasured(signal)
        assert contrast(palette.quiet, colour_of(signal, palette)) >= 3.0
    assert not unmeasured("decode")


def test_phases_that_nobody_measured_are_drawn_hatched() -> None:
    phases = [SimpleNamespace(phase=name, seconds=[1.0] * 6) for name in ("decode", "transit")]
    look = SimpleNamespace(style=STYLE, arrivals=STYLE)
    figure = phase_stack(SimpleNamespace(times=TIMES, phases=phases), look)  # type: ignore[arg-type]
    decode, transit = figure.data[:2]  # type: ignore[attr-defined]
    assert decode.marker.pattern.shape is None
    assert transit.marker.pattern.shape == "/"
