"""The figure of the night, from night.json to docs/night.svg, by hand.

    python -m bench.night.draw [--rows FILE] [--out FILE]

It has colours for a light and a dark page and a ground of its own; lines differ in their dashes
too. Everything it says in numbers is in the JSON.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import log10
from pathlib import Path
from textwrap import wrap
from typing import Any
from xml.sax.saxutils import escape

from bench.night import ROOT
from bench.night.field import Night
from bench.night.series import CHATS_S

WIDTH, LEFT, RIGHT = 900, 70, 30
PLOT = WIDTH - LEFT - RIGHT
TICKS_S = 30
#: Letters in a line of the caption.
CAPTION = 116

STYLE = """
svg { color-scheme: light dark; }
text { font: 13px system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif; }
text, .ink { fill: #1f2328; }
.ground { fill: #ffffff; }
.quiet { fill: #59636e; font-size: 12px; }
.head { font-size: 18px; font-weight: 600; }
.name { font-weight: 600; }
.right { text-anchor: end; }
.middle { text-anchor: middle; }
.grid { stroke: #d1d9e0; stroke-width: 1; }
.axis { stroke: #818b98; stroke-width: 1; }
.band { fill: #818b98; fill-opacity: .18; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.millpond { stroke: #0067a3; } .line.millpond { stroke-width: 3; }
.cookbook { stroke: #c04a00; stroke-dasharray: 8 3; }
.litellm { stroke: #a3397b; stroke-dasharray: 2 3; }
.arq { stroke: #00795a; stroke-dasharray: 10 3 2 3; }
.dot { stroke: none; }
.cross { fill: none; stroke-width: 2.5; } .cross.millpond, .cross { stroke-dasharray: none; }
.dot.millpond { fill: #0067a3; } .dot.cookbook { fill: #c04a00; }
.dot.litellm { fill: #a3397b; } .dot.arq { fill: #00795a; }
@media (prefers-color-scheme: dark) {
  text, .ink { fill: #f0f6fc; }
  .ground { fill: #0d1117; }
  .quiet { fill: #9198a1; }
  .grid { stroke: #2b323b; }
  .axis { stroke: #9198a1; }
  .millpond { stroke: #58b4f0; } .cookbook { stroke: #f0a04b; }
  .litellm { stroke: #e79ac6; } .arq { stroke: #35cf9f; }
  .dot.millpond { fill: #58b4f0; } .dot.cookbook { fill: #f0a04b; }
  .dot.litellm { fill: #e79ac6; } .dot.arq { fill: #35cf9f; }
}
""".strip()

Value = float | None
#: From a value to its height in a panel, 0 to 1.
Scale = Callable[[float], float]


@dataclass(frozen=True)
class Panel:
    """One set of curves over the seconds of the night."""

    title: str
    curve: str
    top: int
    height: int
    scale: Scale
    ticks: Sequence[tuple[float, str]]


class Drawing:
    """Lines of SVG, from the top down."""

    def __init__(self, told: dict[str, Any]) -> None:
        made = told["night"]
        self.night = Night(**{name: value for name, value in made.items() if name != "scale"})
        self.clients: dict[str, dict[str, Any]] = told["clients"]
        self.seconds = max(len(one["curves"]["answers"]) for one in self.clients.values())
        self.lines: list[str] = []

    def x(self, second: float) -> float:
        return LEFT + PLOT * second / self.seconds

    def add(self, line: str) -> None:
        self.lines.append(line)

    def text(self, x: float, y: float, text: str, looks: str = "") -> None:
        self.add(f'<text x="{x:.1f}" y="{y:.1f}" class="{looks}">{escape(text)}</text>')

    def rule(self, at: tuple[float, float], to: tuple[float, float], looks: str) -> None:
        places = f'x1="{at[0]:.1f}" y1="{at[1]:.1f}" x2="{to[0]:.1f}" y2="{to[1]:.1f}"'
        self.add(f'<line {places} class="{looks}"/>')


def main() -> None:
    asked = options()
    asked.out.write_text(drawn(json.loads(asked.rows.read_text())))


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--rows", type=Path, default=Path(__file__).with_name("night.json"))
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "night.svg")
    return parser.parse_args()


def drawn(told: dict[str, Any]) -> str:
    drawing = Drawing(told)
    drawing.text(LEFT, 34, "One night of one account, one client at a time", "head")
    _legend(drawing, 60)
    panels = _panels(drawing, 100)
    for panel in panels:
        _panel(drawing, panel)
    _kills(drawing, panels[0])
    foot = panels[-1].top + panels[-1].height
    _seconds(drawing, foot)
    _events(drawing, panels)
    bottom = _table(drawing, foot + 76)
    bottom = _caption(drawing, bottom + 12)
    return _whole(drawing, bottom)


def _whole(drawing: Drawing, height: int) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
            f' width="{WIDTH}" height="{height}" role="img" aria-labelledby="title desc">',
            '<title id="title">One night of one account</title>',
            f'<desc id="desc">{escape(_in_words(drawing))}</desc>',
            f"<style>\n{STYLE}\n</style>",
            f'<rect class="ground" width="{WIDTH}" height="{height}" rx="6"/>',
            *drawing.lines,
            "</svg>\n",
        ]
    )


def _in_words(drawing: Drawing) -> str:
    clients = (
        f"{one['title']}: {one['answered']:,} answered in {one['end_s']:.0f} s, {one['lost']:,} "
        f"lost, {one['twice']:,} asked twice, {one['refused']:,} refused with 429, chats waited "
        f"{_wait(one['chat_p95_s'])} at the 95th percentile"
        for one in drawing.clients.values()
    )
    return (
        "Curves over time of answers, refusals and the waits of chats for "
        f"{len(drawing.clients)} clients, and a table. {'; '.join(clients)}."
    )


# ---------------------------------------------------------------- the curves


def _panels(drawing: Drawing, top: int) -> list[Panel]:
    most = max(one["refused"] for one in drawing.clients.values())
    step = _step(most)
    refused_most = step * (int(most / step) + 1)
    return [
        Panel(
            "prompts answered",
            *("answers", top + 24, 180),
            lambda value: value / drawing.night.prompts,
            [(part * drawing.night.prompts / 4, _whole_number(part * drawing.night.prompts / 4))
             for part in range(5)],
        ),
        Panel(
            "calls refused with 429, its chats' included",
            *("refused", top + 258, 110),
            lambda value: value / refused_most,
            [(value, _whole_number(value)) for value in range(0, refused_most + 1, step)],
        ),
        Panel(
            f"chats: from asked to admitted, 95th percentile of {CHATS_S} s (logarithmic)",
            *("chat_p95_s", top + 422, 140),
            lambda value: (log10(min(max(value, 0.005), 50)) - log10(0.005)) / 4,
            [(0.01, "0.01 s"), (0.1, "0.1 s"), (1, "1 s"), (10, "10 s")],
        ),
    ]  # fmt: skip


def _panel(drawing: Drawing, panel: Panel) -> None:
    drawing.text(LEFT, panel.top - 10, panel.title, "name")
    for value, written in panel.ticks:
        y = _y(panel, value)
        drawing.rule((LEFT, y), (LEFT + PLOT, y), "grid" if value else "axis")
        drawing.text(LEFT - 8, y + 4, written, "quiet right")
    for name, one in drawing.clients.items():
        _curve(drawing, panel, name, one["curves"][panel.curve])


def _curve(drawing: Drawing, panel: Panel, name: str, values: Sequence[Value]) -> None:
    places = [
        None if value is None else (drawing.x(second), _y(panel, value))
        for second, value in enumerate(values)
    ]
    for known, run in groupby(places, key=lambda place: place is not None):
        if known:
            points = " ".join(f"{x:.1f},{y:.1f}" for place in run if place for x, y in [place])
            drawing.add(f'<polyline class="line {name}" points="{points}"/>')
    last = next((place for place in reversed(places) if place), None)
    if last:
        drawing.add(f'<circle class="dot {name}" cx="{last[0]:.1f}" cy="{last[1]:.1f}" r="4"/>')


def _kills(drawing: Drawing, answers: Panel) -> None:
    """A cross on each client's curve."""
    for name, one in drawing.clients.items():
        if one["killed_s"] is None:
            continue
        second = int(one["killed_s"])
        before, after = (one["curves"]["answers"][second : second + 2] * 2)[:2]
        value = before + (after - before) * (one["killed_s"] - second)
        x, y = drawing.x(one["killed_s"]), _y(answers, value)
        ways = f"M{x - 5:.1f},{y - 5:.1f}l10,10m-10,0l10,-10"
        drawing.add(f'<path class="cross {name}" d="{ways}"/>')


def _y(panel: Panel, value: float) -> float:
    return panel.top + panel.height * (1 - panel.scale(value))


def _seconds(drawing: Drawing, foot: int) -> None:
    for second in range(0, drawing.seconds, TICKS_S):
        drawing.text(drawing.x(second), foot + 20, f"{second} s", "quiet middle")
    drawing.rule((LEFT, foot), (LEFT + PLOT, foot), "axis")


def _events(drawing: Drawing, panels: Sequence[Panel]) -> None:
    begin_s, end_s = drawing.night.stranger_s
    left, right = drawing.x(begin_s), drawing.x(end_s)
    for panel in panels:
        place = f'x="{left:.1f}" y="{panel.top}" width="{right - left:.1f}"'
        drawing.add(f'<rect class="band" {place} height="{panel.height}"/>')
    share = f"{drawing.night.strangers_share:.0%}"
    drawing.text(
        (left + right) / 2, panels[0].top - 10, f"a stranger asks for {share}", "quiet middle"
    )
    x = drawing.x(max(one["killed_s"] or 0 for one in drawing.clients.values()))
    drawing.text(x + 10, panels[0].top + panels[0].height * 0.62, "×: kill -9", "quiet")


def _legend(drawing: Drawing, y: int) -> None:
    x = LEFT
    for name, one in drawing.clients.items():
        drawing.rule((x, y - 4), (x + 34, y - 4), f"line {name}")
        drawing.text(x + 42, y, one["title"], "name" if name == "millpond" else "")
        x += 82 + 7 * len(one["title"])


# ---------------------------------------------------------------- the table

#: Where each column ends, and what it says of a client.
COLUMNS: Sequence[tuple[int, str, Callable[[dict[str, Any]], str]]] = [
    (320, "lost", lambda one: _whole_number(one["lost"])),
    (410, "asked twice", lambda one: _whole_number(one["twice"])),
    (500, "429s", lambda one: _whole_number(one["refused"])),
    (610, "chat p95", lambda one: _wait(one["chat_p95_s"])),
    (735, "promised end", lambda one: "-" if one["promised_s"] is None else _s(one["promised_s"])),
    (845, "true end", lambda one: _s(one["end_s"]) + ("" if one["finished"] else " (time up)")),
]
ROW = 24


def _table(drawing: Drawing, y: int) -> int:
    for right, title, _ in COLUMNS:
        drawing.text(right, y, title, "quiet right")
    for name, one in drawing.clients.items():
        y += ROW
        drawing.rule((LEFT, y - 17), (LEFT + PLOT, y - 17), "grid")
        looks = "name" if name == "millpond" else ""
        drawing.text(LEFT, y, one["title"], looks)
        for right, _, said in COLUMNS:
            drawing.text(right, y, said(one), f"right {looks}")
    return y + ROW


def _caption(drawing: Drawing, y: int) -> int:
    night = drawing.night
    begin_s, end_s = night.stranger_s
    text = (
        f"{night.prompts:,} prompts under {night.amount} calls in any {night.window_s} s, a chat of"
        f" one token each second. From {begin_s:.0f} to {end_s:.0f} s a stranger asks with the same"
        f" key for {night.strangers_share:.0%} of its limit. After {night.kill_s:.0f} s the busiest"
        " process of the client is killed, and started again. It is a tenth of real time: 6 s stand"
        " for a minute. LiteLLM counts by the minute of the clock, so its clock goes ten times as"
        " fast. Asked twice: calls for a prompt that had been admitted. Promised: said before the"
        " first call, of the prompts alone. All is counted in the simulator's journal."
        " Made by: make night"
    )
    for line in wrap(text, CAPTION):
        drawing.text(LEFT, y, line, "quiet")
        y += 18
    return y + 8


# ---------------------------------------------------------------- figures


def _step(most: float) -> int:
    """A round distance of ticks of which two to five fit below the most."""
    for step in (1, 2, 5):
        for power in range(7):
            if 1 <= most / (step * 10**power) < 5 and most / (step * 10**power) >= 2:
                return int(step * 10**power)
    return 1


def _whole_number(value: float) -> str:
    return f"{value:,.0f}"


def _s(seconds: float) -> str:
    return f"{seconds:.1f} s"


def _wait(seconds: float) -> str:
    return f"{seconds:.2f} s"


if __name__ == "__main__":
    main()
