"""Writes chat.svg: a conversation with the built-in model, as a terminal shows it.

    cargo build --release
    python make_chat_picture.py         # needs tmux

It trains two adapters for a minute each, types the lines of LINES into `burn-peft chat` in tmux, and draws what stands in
the terminal then.
"""

import html
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
PROGRAM = Path(os.environ.get("BURN_PEFT", HERE.parent / "target/release/burn-peft")).resolve()
COLUMNS, ROWS = 80, 24
SESSION = "burn-peft-chat-picture"

CARD = "name: The Grey Heron | eatType: pub | food: vegetarian | area: old town"
LINES = [CARD, "/adapter pt", CARD, "/adapter none", "Who are you?", "/help"]

SIZE, ADVANCE, LINE, MARGIN = 14, 8.43, 19, 16
CLASSES = {"1": "bold", "2": "dim"}


def main():
    with tempfile.TemporaryDirectory() as folder:
        screen = record(Path(folder))
    (HERE / "chat.svg").write_text(picture(screen))


def record(folder):
    """The terminal's lines, with escape sequences, after the conversation."""
    chat = [PROGRAM, "chat", "--temperature", "0", "--adapter", f"pt={folder / 'pt'}"]
    train(folder / "pt")
    tmux("new-session", "-d", "-s", SESSION, "-x", str(COLUMNS), "-y", str(ROWS), *map(str, chat))
    try:
        wait_for_prompt(0)
        for count, line in enumerate(LINES, 1):
            tmux("send-keys", "-t", SESSION, "-l", line)
            tmux("send-keys", "-t", SESSION, "Enter")
            wait_for_prompt(count)
        return capture().rstrip("\n").split("\n")
    finally:
        tmux("kill-session", "-t", SESSION)


def train(output):
    subprocess.run([PROGRAM, "train", "--no-tui", "--output", output], check=True)


def tmux(*arguments):
    return subprocess.run(["tmux", *arguments], check=True, capture_output=True, text=True).stdout


def capture():
    return tmux("capture-pane", "-e", "-p", "-S", "-", "-t", SESSION)


def wait_for_prompt(count):
    """Waits until the terminal ends with a prompt and nothing changes any more."""
    before = None
    for _ in range(600):
        time.sleep(0.1)
        now = capture()
        if now == before and re.sub(r"\x1b\[\d*m", "", now).rstrip().endswith(">"):
            return
        before = now
    raise SystemExit(f"no prompt after line {count}:\n{now}")


def picture(lines):
    width, height = COLUMNS * ADVANCE + 2 * MARGIN, len(lines) * LINE + 2 * MARGIN
    texts = []
    for index, line in enumerate(lines):
        x, classes = 0, ""
        for part in re.split(r"(\x1b\[[\d;]*m)", line):
            if part.startswith("\x1b"):
                codes = part[2:-1].split(";")
                classes = " ".join(CLASSES[code] for code in codes if code in CLASSES)
            elif part:
                place = f'x="{MARGIN + x * ADVANCE:.1f}" y="{MARGIN + (index + 0.75) * LINE:.1f}"'
                length = f'textLength="{len(part) * ADVANCE:.1f}" lengthAdjust="spacing"'
                texts.append(f'<text {place} {length} class="{classes}">{html.escape(part)}</text>')
                x += len(part)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img" aria-label="A conversation in a terminal">
<style>
text {{ font: {SIZE}px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: #e6e6e6; white-space: pre; }}
.bold {{ font-weight: bold; fill: #8fd18f; }}
.dim {{ fill: #9a9a9a; }}
</style>
<rect width="100%" height="100%" rx="8" fill="#1c1e22"/>
{chr(10).join(texts)}
</svg>
"""


if __name__ == "__main__":
    main()
