"""Draws assets/doctor.svg: what `burn-peft doctor` shows in a terminal of 100 columns.

    python3 assets/make_doctor.py target/release/burn-peft

The program runs in a pseudo-terminal, so that it draws as it does for a person. Only the Python standard library is
needed. Sections that are not named below are left out.
"""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from xml.sax.saxutils import escape

COLUMNS = 100
SECTIONS = ["Run", "First rows", "Tokens of the first row", "Rows: train", "Memory and disk", "First steps", "Result"]
# The least contrast of these on the background is 5 to 1.
COLOURS = {32: "#7ee787", 35: "#d2a8ff", 33: "#f2cc60", 31: "#ff7b72"}
PLAIN, DIM, BACKGROUND = "#e6edf3", "#9198a1", "#0d1117"
CELL, LINE, MARGIN = 8.4, 19, 20


def terminal_output(command):
    """The bytes that a command writes to a terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 60, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(command, stdout=theirs, stderr=subprocess.DEVNULL, env=environment)
    os.close(theirs)
    found = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        found += piece
    if process.wait() != 0:
        sys.exit(f"{' '.join(command)} failed")
    return found.decode()


def spans(line):
    """The stretches of a line with one look: text, colour, whether it is bold."""
    colour, bold, start = PLAIN, False, 0
    for match in re.finditer(r"\x1b\[([0-9;]*)m", line):
        if match.start() > start:
            yield line[start : match.start()], colour, bold
        codes = [int(code or 0) for code in match.group(1).split(";")]
        if codes[:2] == [38, 5]:
            # The first colours of 256 are those of 30 to 37.
            codes = [30 + codes[2]]
        for code in codes:
            if code == 0:
                colour, bold = PLAIN, False
            elif code == 1:
                bold = True
            elif code == 2:
                colour = DIM
            elif code in COLOURS:
                colour = COLOURS[code]
            elif code in (22, 39):
                colour, bold = (PLAIN if code == 39 else colour), False
        start = match.end()
    if start < len(line):
        yield line[start:], colour, bold


def sections(text):
    """The sections of a report with their headings, as lists of lines."""
    found, plain = [], lambda line: re.sub(r"\x1b\[[0-9;]*m", "", line)
    for line in text.replace("\r\n", "\n").rstrip("\n").split("\n"):
        if line and not plain(line).startswith(" "):
            found.append((plain(line), []))
        found[-1][1].append(line)
    return [lines for name, lines in found if any(name.startswith(chosen) for chosen in SECTIONS)]


def svg(lines):
    """The lines as a picture."""
    width, height = COLUMNS * CELL + 2 * MARGIN, len(lines) * LINE + 2 * MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
        ' role="img" aria-label="burn-peft doctor in a terminal">',
        f'<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>',
        '<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, DejaVu Sans Mono, monospace" font-size="14"'
        ' xml:space="preserve">',
    ]
    for row, line in enumerate(lines):
        column, y = 0, MARGIN + LINE * (row + 0.75)
        for text, colour, bold in spans(line):
            if text.strip():
                # A width of its own for each stretch, so that columns stand under each other in every font.
                weight = ' font-weight="bold"' if bold else ""
                parts.append(
                    f'<text x="{MARGIN + column * CELL:g}" y="{y:g}" fill="{colour}"{weight}'
                    f' textLength="{len(text) * CELL:g}" lengthAdjust="spacingAndGlyphs">{escape(text)}</text>'
                )
            column += len(text)
    return "\n".join(parts + ["</g>", "</svg>", ""])


def main():
    program = sys.argv[1] if len(sys.argv) > 1 else "target/release/burn-peft"
    text = terminal_output([program, "doctor", "--rows", "1"])
    lines = [line for section in sections(text) for line in section]
    while lines and not lines[-1].strip():
        lines.pop()
    path = Path(__file__).with_name("doctor.svg")
    path.write_text(svg(lines))
    print(f"{path}: {len(lines)} lines")


if __name__ == "__main__":
    main()
