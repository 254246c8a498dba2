"""Makes an SVG of what a terminal shows, as `tmux capture-pane -e -p` prints it.

    tmux capture-pane -e -p -t run | python assets/terminal_to_svg.py > assets/dashboard.svg

assets/doctor.svg is `burn-peft doctor --rows 2` in 100 columns and 100 lines, without the sections of the model and of the
rows that are not trained on.
"""

import html
import re
import sys
import unicodedata

CELL_WIDTH, CELL_HEIGHT, FONT_SIZE, MARGIN = 8.4, 17, 14, 12
BACKGROUND, INK = "#16181d", "#d5d9e0"
# The 16 colours of a terminal, by their numbers.
COLORS = [
    "#3a3f4b", "#e06c75", "#98c379", "#e5c07b", "#61afef", "#c678dd", "#56b6c2", "#c8ccd4",
    "#6b7280", "#ff7a85", "#b5e08f", "#ffd98a", "#7cc3ff", "#dd9cf0", "#76d7e3", "#ffffff",
]  # fmt: skip


def color_of(number: int) -> str:
    """A colour of xterm's 256."""
    if number < 16:
        return COLORS[number]
    if number >= 232:
        return "#" + f"{8 + 10 * (number - 232):02x}" * 3
    levels = [0, 95, 135, 175, 215, 255]
    number -= 16
    return "#" + "".join(f"{levels[number // place % 6]:02x}" for place in (36, 6, 1))


def changed(style: dict, codes: list[int]) -> dict:
    """The style after an escape sequence `ESC [ codes m`."""
    style = dict(style)
    codes = codes or [0]
    while codes:
        code = codes.pop(0)
        key = "ink" if code in (38, *range(30, 38), *range(90, 98)) else "background"
        if code == 0:
            style = {}
        elif code in (1, 2, 3, 7):
            style[{1: "bold", 2: "dim", 3: "italic", 7: "reverse"}[code]] = True
        elif code in (38, 48) and codes:
            kind = codes.pop(0)
            if kind == 5:
                style[key] = color_of(codes.pop(0))
            else:
                style[key] = "#" + "".join(f"{codes.pop(0):02x}" for _ in range(3))
        elif code == 2:
            style["ink"] = COLORS[8]
        elif code in range(30, 38) or code in range(40, 48):
            style[key] = COLORS[code % 10]
        elif code in range(90, 98) or code in range(100, 108):
            style[key] = COLORS[8 + code % 10]
        elif code == 39:
            style.pop("ink", None)
        elif code == 49:
            style.pop("background", None)
    return style


def runs_of(line: str, style: dict):
    """Pieces of a line that share a style: where they begin, their text, their style; and the style at its end."""
    pieces, column = [], 0
    for part in re.split(r"(\x1b\[[0-9;]*m)", line):
        if part.startswith("\x1b["):
            codes = [int(code) for code in part[2:-1].split(";") if code]
            style = changed(style, codes)
        elif part:
            pieces.append((column, part, style))
            column += sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in part)
    return pieces, column, style


def main() -> None:
    lines = sys.stdin.read().rstrip("\n").split("\n")
    rows, style, columns = [], {}, 0
    for line in lines:
        pieces, width, style = runs_of(line, style)
        rows.append(pieces)
        columns = max(columns, width)
    width = columns * CELL_WIDTH + 2 * MARGIN
    height = len(rows) * CELL_HEIGHT + 2 * MARGIN
    print(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" '
        f'height="{height}" font-family="ui-monospace, DejaVu Sans Mono, Menlo, monospace" font-size="{FONT_SIZE}">'
    )
    print(f'<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>')
    for row, pieces in enumerate(rows):
        top = MARGIN + row * CELL_HEIGHT
        for column, text, style in pieces:
            ink, background = style.get("ink", INK), style.get("background")
            if style.get("reverse"):
                ink, background = background or BACKGROUND, ink
            left, length = MARGIN + column * CELL_WIDTH, len(text) * CELL_WIDTH
            if background:
                print(
                    f'<rect x="{left:.1f}" y="{top}" width="{length:.1f}" height="{CELL_HEIGHT}" fill="{background}"/>'
                )
            if not text.strip():
                continue
            more = ' font-weight="bold"' if style.get("bold") else ""
            more += ' font-style="italic"' if style.get("italic") else ""
            more += ' fill-opacity="0.65"' if style.get("dim") else ""
            print(
                f'<text x="{left:.1f}" y="{top + CELL_HEIGHT - 5}" fill="{ink}" textLength="{length:.1f}" '
                f'xml:space="preserve"{more}>{html.escape(text)}</text>'
            )
    print("</svg>")


if __name__ == "__main__":
    main()
