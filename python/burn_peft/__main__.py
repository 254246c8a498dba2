"""Runs the program that came in the same wheel."""

import os
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

NAME = "burn-peft" + (sysconfig.get_config_var("EXE") or "")


def places():
    """Where the program can be, the likeliest place first."""
    # The installer noted it: also for a user's own packages, or under a prefix.
    try:
        files = metadata.files("burn-peft") or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == NAME:
            yield Path(file.locate())
    yield Path(sysconfig.get_path("scripts"), NAME)
    # `pip install --target`.
    yield Path(__file__).parent.parent / "bin" / NAME


def program():
    """The path of the program."""
    for place in places():
        if place.is_file():
            return str(place.resolve())
    sys.exit(f"error: {NAME} is not where pip put it; install the wheel again")


def main():
    """Becomes the program, or where a process cannot, runs it and ends as it does."""
    command = [program(), *sys.argv[1:]]
    if os.name == "posix":
        os.execv(command[0], command)
    process = subprocess.Popen(command)
    while True:
        try:
            sys.exit(process.wait())
        except KeyboardInterrupt:
            # The program has the signal too, and saves its work first.
            continue


if __name__ == "__main__":
    main()
