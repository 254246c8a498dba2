"""Writes chat.svg: a conversation with the built-in model, as a terminal shows it.

    cargo build --release
    python make_chat_picture.py         # needs tmux

It trains an adapter, which takes a minute or two, types LINES into `burn-peft chat` in tmux, and draws what stands in the
terminal then.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
PROGRAM = Path(os.environ.get("BURN_PEFT", HERE.parent / "target/release/burn-peft")).resolve()
COLUMNS, ROWS = 80, 24
SESSION = "burn-peft-chat-picture"

CARD = "name: The Grey Heron | eatType: pub | food: vegetarian | area: old town"
LINES = [CARD, "/adapter none", CARD, "Who are you?", "/adapters"]


def main():
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([PROGRAM, "train", "--no-tui", "--output", "pt"], check=True, cwd=folder)
        screen = record(folder)
    draw = [sys.executable, HERE / "terminal_to_svg.py"]
    picture = subprocess.run(draw, input=screen, check=True, capture_output=True, text=True).stdout
    (HERE / "chat.svg").write_text(picture)


def record(folder):
    """What the terminal shows after the conversation, with escape sequences."""
    chat = [PROGRAM, "chat", "--temperature", "0", "--adapter", "pt"]
    size = ["-x", str(COLUMNS), "-y", str(ROWS), "-c", folder]
    tmux("new-session", "-d", "-s", SESSION, *size, *map(str, chat))
    try:
        wait_for_prompt(0)
        for count, line in enumerate(LINES, 1):
            tmux("send-keys", "-t", SESSION, "-l", line)
            tmux("send-keys", "-t", SESSION, "Enter")
            wait_for_prompt(count)
        return capture()
    finally:
        tmux("kill-session", "-t", SESSION)


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


if __name__ == "__main__":
    main()
