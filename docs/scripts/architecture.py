"""Draw the rooms of the code: `docs/images/architecture.svg`, from `docs/explanation/architecture.yaml`.

`python docs/scripts/architecture.py` draws the picture; with `--imports` it first takes the arrows from the import
graph. `tests/docs/test_architecture.py` compares the list with the code and the picture with the list; the
tables of the page are made from the list when the site is built.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grimp
import yaml

DOCS = Path(__file__).resolve().parents[1]
LIST = DOCS / "explanation" / "architecture.yaml"
PICTURE = DOCS / "images" / "architecture.svg"

_BOX = (172, 46)
_STEP = (222, 92)
_LEFT, _TOP, _WIDTH = 150, 44, 1060
_COLOURS = {
    "api": "#7c3aed",
    "harness": "#0f766e",
    "export": "#b45309",
    "train": "#be185d",
    "runtime": "#1d4ed8",
}
_WAYS = {"scan": "#1d4ed8", "checkpoint": "#c2410c"}


def read_list() -> dict[str, Any]:
    """The rooms, their purposes and places, the arrows between them, and the two ways through them."""
    return yaml.safe_load(LIST.read_text(encoding="utf-8"))


def room_of(module: str) -> str | None:
    """The room of a module: `runtime/scan`; the folder for modules that lie in it; None outside of the folders.

    >>> room_of("ptychonnx.runtime.scan.scan"), room_of("ptychonnx.runtime.errors"), room_of("ptychonnx")
    ('runtime/scan', 'runtime', None)
    """
    parts = module.split(".")[1:3]
    if not parts or parts[0] in {"zoo", "__main__"}:
        return None
    if parts[0] == "api" or not (DOCS.parents[0] / Path(*parts)).is_dir():
        return parts[0]
    return "/".join(parts)


def imports() -> dict[str, list[str]]:
    """Which rooms each room imports, from the code. The modules in `runtime` itself are for all and left out."""
    graph = grimp.build_graph("ptychonnx", cache_dir=None)
    found: dict[str, set[str]] = defaultdict(set)
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            room, other = room_of(module), room_of(imported)
            if room and other and other not in {room, "runtime"}:
                found[room].add(other)
    return {room: sorted(found[room]) for room in sorted(found)}


def rooms(content: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each room with its entry in the list."""
    for folder in content["folders"]:
        yield from folder["rooms"].items()


def places(
    content: Mapping[str, Any],
) -> tuple[dict[str, tuple[float, float]], list[tuple[str, float, float]]]:
    """The middle of each box, and name, top and height of each band."""
    middle, bands, top = {}, [], float(_TOP)
    for folder in content["folders"]:
        rows = 1 + max(room["at"][0] for room in folder["rooms"].values())
        height = rows * _STEP[1] - _STEP[1] + _BOX[1] + 44
        bands.append((folder["name"], top, height))
        for name, room in folder["rooms"].items():
            row, column = room["at"]
            middle[name] = (_LEFT + _BOX[0] / 2 + column * _STEP[0], top + 22 + _BOX[1] / 2 + row * _STEP[1])
        top += height + 34
    return middle, bands


def draw(content: Mapping[str, Any]) -> str:
    """The picture as SVG."""
    middle, bands = places(content)
    height = bands[-1][1] + bands[-1][2] + 66
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" '
        'font-family="system-ui, sans-serif" font-size="14" fill="#1c2430">',
        "<title>Rooms of the code, imports between them, the way of a scan and of a checkpoint</title>",
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L10 5L0 10z" fill="#64748b"/></marker></defs>',
        f'<rect width="{_WIDTH}" height="{height:.0f}" fill="#ffffff"/>',
    ]
    for index, (name, top, tall) in enumerate(bands):
        colour = _COLOURS[name]
        lines.append(
            f'<rect x="16" y="{top:.0f}" width="{_WIDTH - 32}" height="{tall:.0f}" rx="8" fill="{colour}" '
            'opacity="0.08"/>'
        )
        lines.append(
            f'<text x="32" y="{top + 30:.0f}" font-size="17" font-weight="600" fill="{colour}">{name}</text>'
        )
        if index:
            above = top - 34
            lines.append(
                f'<path d="M76 {above + 3:.0f}V{top - 3:.0f}" stroke="{colour}" stroke-width="9" opacity="0.35"/>'
                f'<text x="90" y="{above + 22:.0f}" font-size="12" fill="#64748b">imports only downwards</text>'
            )
    for room, others in content["imports"].items():
        for other in others:
            if room.partition("/")[0] == other.partition("/")[0]:
                lines.append(_arrow(middle[room], middle[other]))
    for name, room in rooms(content):
        x, y = middle[name]
        colour = _COLOURS[name.partition("/")[0]]
        label = room.get("label") or name.partition("/")[2] or f"{name}: own modules"
        lines.append(
            f'<rect x="{x - _BOX[0] / 2:.0f}" y="{y - _BOX[1] / 2:.0f}" width="{_BOX[0]}" height="{_BOX[1]}" rx="6" '
            f'fill="#ffffff" stroke="{colour}" stroke-width="1.5"/>'
            f'<text x="{x:.0f}" y="{y + 5:.0f}" text-anchor="middle">{label}</text>'
        )
    for place, (way, colour) in enumerate(_WAYS.items()):
        for number, step in enumerate(content["ways"][way], 1):
            x, y = middle[step["room"]]
            x += _BOX[0] / 2 - 4 - 22 * place
            y -= _BOX[1] / 2
            lines.append(
                f'<circle cx="{x:.0f}" cy="{y:.0f}" r="10" fill="{colour}"/><text x="{x:.0f}" y="{y + 4.5:.1f}" '
                f'text-anchor="middle" font-size="12" font-weight="600" fill="#ffffff">{number}</text>'
            )
        x = 40 + 330 * place
        lines.append(
            f'<circle cx="{x}" cy="{height - 34:.0f}" r="10" fill="{colour}"/>'
            f'<text x="{x + 18}" y="{height - 29:.0f}">the way of a {way}</text>'
        )
    lines.append(
        f'<path d="M700 {height - 34:.0f}H740" stroke="#64748b" marker-end="url(#tip)"/>'
        f'<text x="750" y="{height - 29:.0f}">imports, inside a folder</text></svg>'
    )
    return "\n".join(lines) + "\n"


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> str:
    """A curve from the box around one point to the box around another."""
    (x1, y1), (x2, y2) = start, end
    half_width, half_height = _BOX[0] / 2, _BOX[1] / 2
    side = 1 if x2 > x1 else -1
    if y1 == y2 and abs(x2 - x1) <= _STEP[0]:
        points = [(x1 + side * half_width, y1), (x2 - side * half_width, y2)]
    elif y1 == y2:
        low = y1 - half_height
        points = [
            (x1 + side * 40, low),
            (x1 + side * 90, low - 18),
            (x2 - side * 90, low - 18),
            (x2 - side * 40, low),
        ]
    else:
        down = 1 if y2 > y1 else -1
        shift = 0.18 * (x2 - x1) if abs(x2 - x1) < 400 else side * 60
        out, into = x1 + shift + 12 * down, x2 - shift + 12 * down
        low, high = y1 + down * half_height, y2 - down * half_height
        points = [(out, low), (out, low + down * 24), (into, high - down * 24), (into, high)]
    first, *rest = (f"{x:.0f} {y:.0f}" for x, y in points)
    path = f"M{first}{'C' if len(rest) > 1 else 'L'}{' '.join(rest)}"
    return f'<path d="{path}" fill="none" stroke="#64748b" stroke-width="1.2" marker-end="url(#tip)"/>'


def tables(content: Mapping[str, Any]) -> dict[str, str]:
    """The tables of the page: the rooms, and each way through them."""
    found = {}
    lines = ["| room | subject | imports |", "| --- | --- | --- |"]
    for name, room in rooms(content):
        others = ", ".join(f"`{other}`" for other in content["imports"].get(name, [])) or "–"
        lines.append(f"| `{name}` | {room['subject']} | {others} |")
    found["rooms"] = "\n".join(lines)
    for way, steps in content["ways"].items():
        lines = ["| | room | step |", "| --- | --- | --- |"]
        lines += [f"| {number} | `{step['room']}` | {step['step']} |" for number, step in enumerate(steps, 1)]
        found[way] = "\n".join(lines)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--imports", action="store_true", help="take the arrows from the import graph first")
    if parser.parse_args().imports:
        head = LIST.read_text(encoding="utf-8").partition("imports:\n")[0]
        arrows = "".join(f"  {room}: [{', '.join(others)}]\n" for room, others in imports().items())
        LIST.write_text(f"{head}imports:\n{arrows}", encoding="utf-8")
    content = read_list()
    PICTURE.write_text(draw(content), encoding="utf-8")


if __name__ == "__main__":
    main()
