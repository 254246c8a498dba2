"""Compares `burn-peft bench` with benches/peer.py (transformers and PEFT) on the same settings.

    cargo build --release && python benches/compare.py     the five methods: the table goes to stdout
    python benches/compare.py growth                       against tokens a row, rows and virtual tokens; and a plot
    python benches/compare.py decode --dtype f32 bf16      greedy decoding
    python benches/compare.py --backend cuda …             on an NVIDIA GPU, with a build that has it

The two take turns: ours, the peer, ours, the peer, for --rounds rounds. A figure is the median over rounds, with the
least and the greatest where they differ. Every run is put into --json when it ends, and a run that is in there, of the
same settings and round, with the same machine and the same versions of the peer's packages, is not made again: the
script can be stopped and called again. --fresh is for after a change of the program or of peer.py: it makes the runs
asked for again. In growth, a run that fails (for want of memory, for instance) is kept as such, and that side has no
larger values on that axis.

Install benches/requirements.txt for --python; the plot needs matplotlib where this script runs.
"""

import argparse
import datetime
import importlib.util
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEER = ROOT / "benches/peer.py"
METHODS = {
    "bitfit": "BitFit",
    "prompt-tuning": "Prompt Tuning",
    "p-tuning": "P-Tuning",
    "prefix-tuning": "Prefix Tuning",
    "p-tuning-v2": "P-Tuning v2",
}
# Hidden sizes, which are the width of the encoders that peer.py trains.
SHAPES = {"qwen2.5-0.5b": 896, "qwen2.5-1.5b": 1536, "qwen2.5-3b": 2048, "qwen2.5-7b": 3584}
WITH_ENCODER = ("p-tuning", "prefix-tuning")
SIDES = ("ours", "peer")
# What PyTorch calls the device of a backend.
DEVICES = {"flex": "cpu", "cuda": "cuda"}
# What differs between the modes where an option is not given.
DEFAULTS = {
    "methods": {"methods": list(METHODS), "batch": 4, "seq": 256, "steps": 2, "rounds": 3},
    "growth": {"methods": ["prompt-tuning"], "batch": 4, "seq": 256, "steps": 1, "rounds": 1},
    "decode": {"methods": [], "batch": 1, "seq": 128, "steps": 0, "rounds": 3},
}
# Exit statuses that say nothing of the settings: an argument was refused, or somebody stopped the run.
NOT_MEASURED = (2, -signal.SIGINT, -signal.SIGTERM)
# Key in the JSON of both, axis label.
PANELS = (("step_s", "seconds a step"), ("peak_gib", "peak memory, GiB"))
STYLES = {"ours": ("burn-peft", "o-", "#c2410c"), "peer": ("transformers and PEFT", "s--", "#1d4ed8")}


def positive(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: it must be a whole number, 1 or more")
    return int(text)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    several = {"type": positive, "nargs": "+", "metavar": "N"}
    one = {"type": positive, "metavar": "N"}
    parser.add_argument("what", nargs="?", choices=DEFAULTS, default="methods", help="default: methods")
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/burn-peft")
    parser.add_argument("--python", default=sys.executable, help="what runs peer.py (default: what runs this)")
    parser.add_argument("--backend", choices=DEVICES, default="flex", help="ours; the peer has its device (default: flex)")
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-0.5b")
    parser.add_argument("--methods", nargs="+", choices=METHODS, metavar="M", help="growth takes the first one")
    parser.add_argument("--batch", **one, help="default: 4; decode: 1")
    parser.add_argument("--seq", **one, help="default: 256; decode: 128")
    parser.add_argument("--labels", **one, default=64, help="default: 64; in growth, no more than a row has tokens")
    parser.add_argument("--virtual-tokens", **one, default=20, help="default: 20")
    parser.add_argument("--new-tokens", **one, default=32, help="decode only (default: 32)")
    parser.add_argument("--dtype", nargs="+", choices=["f32", "bf16"], default=["f32"], help="decode takes several")
    parser.add_argument("--recompute", action="store_true", help="gradient checkpointing, on both sides")
    parser.add_argument("--threads", **one, default=os.cpu_count(), help="on both sides (default: one a core)")
    parser.add_argument("--steps", **one, help="steps of a run, which tells their median (default: 2; growth: 1)")
    parser.add_argument("--rounds", **one, help="default: 3; growth: 1")
    seqs, batches, tokens = [128, 256, 512, 1024, 2048, 4096], [1, 2, 4, 8, 16, 32], [1, 20, 50, 100, 200, 500]
    parser.add_argument("--seqs", **several, default=seqs, help="growth: tokens a row, at the least of --batches")
    parser.add_argument("--batches", **several, default=batches, help="growth: rows, at the least of --seqs")
    parser.add_argument("--tokens", **several, default=tokens, help="growth: virtual tokens, at --batch and --seq")
    parser.add_argument("--json", type=Path, default=ROOT / "target/bench/compare.json", help="all runs, as they are")
    parser.add_argument("--fresh", action="store_true", help="make runs again that are in --json")
    parser.add_argument("--plot", type=Path, default=ROOT / "docs/performance-growth.svg", help="growth's plot")
    options = parser.parse_args()
    for name, value in DEFAULTS[options.what].items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.what != "decode" and len(options.dtype) > 1:
        parser.error(f"--dtype: {options.what} takes one")
    if options.what == "decode" and options.recompute:
        parser.error("--recompute: decoding has nothing to recompute")
    if not options.binary.exists():
        parser.error(f"--binary {options.binary}: no such file; cargo build --release makes it")
    # A bare name would be looked for among the installed programs.
    options.binary = options.binary.resolve()
    # Told now, not behind hours of runs.
    if options.what == "growth" and importlib.util.find_spec("matplotlib") is None:
        parser.error("growth plots with matplotlib, which is not installed")
    return options


def machine(options):
    """The processor, its cores, and the versions of what the peer is made with."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    if options.backend == "cuda":
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        gpu = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]
        name = f"{gpu.replace(',', ', driver')}; {name}"
    packages = ["torch", "transformers", "peft"]
    code = f"from importlib.metadata import version\nprint(*(f'{{p}} {{version(p)}}' for p in {packages}), sep=', ')"
    asked = subprocess.run([options.python, "-c", code], capture_output=True, text=True)
    if asked.returncode != 0:
        raise SystemExit(f"{asked.stderr}--python {options.python}: install benches/requirements.txt there")
    return f"{name}, {os.cpu_count()} cores; {asked.stdout.strip()}"


def where(options):
    return f"{options.threads} threads" if options.backend == "flex" else options.backend


def device(options):
    """Named where it is not the CPU."""
    return {} if options.backend == "flex" else {"backend": options.backend}


def training(options, method, **changes):
    """The settings of a training run, by the name of the flag that both sides have for each."""
    settings = {
        "shape": options.shape,
        "method": method,
        "batch": options.batch,
        "seq": options.seq,
        "labels": options.labels,
        "virtual_tokens": options.virtual_tokens,
        "dtype": options.dtype[0],
        "steps": options.steps,
        "recompute": options.recompute,
        "threads": options.threads,
        **device(options),
        **changes,
    }
    if method == "bitfit":
        del settings["virtual_tokens"]
    return settings


def sections(options):
    """The tables to make: caption, heading of the first column, and a label and settings for each row."""
    recompute = ", recomputing" if options.recompute else ""
    common = f"{options.shape}, {options.dtype[0]}, {where(options)}{recompute}"
    size = f"batch {options.batch}, {options.seq} tokens a row"
    timed = f"rounds {options.rounds}, steps a round {options.steps}"
    if options.what == "methods":
        rows = [(METHODS[method], training(options, method)) for method in options.methods]
        what = f"{options.labels} of them supervised, {options.virtual_tokens} virtual tokens (BitFit: none)"
        return [(f"{common}; {size}, {what}; {timed}", "method", rows)]
    if options.what == "decode":
        decoding = {key: getattr(options, key) for key in ("shape", "batch", "seq", "new_tokens", "threads")}
        # Decoding has no labels, but the program refuses its default of them for a short prompt.
        decoding |= device(options)
        rows = [(dtype, {**decoding, "labels": 1, "dtype": dtype}) for dtype in options.dtype]
        what = f"batch {options.batch}, {options.new_tokens} tokens behind {options.seq}"
        return [(f"{options.shape}, {where(options)}; {what}; rounds {options.rounds}", "dtype", rows)]

    method = options.methods[0]
    virtual = "" if method == "bitfit" else f", {options.virtual_tokens} virtual tokens"
    seqs, batches, tokens = (sorted(set(values)) for values in (options.seqs, options.batches, options.tokens))
    axes = [
        ("tokens a row", "seq", seqs, {"batch": batches[0]}, f"batch {batches[0]}{virtual}"),
        ("batch", "batch", batches, {"seq": seqs[0]}, f"{seqs[0]} tokens a row{virtual}"),
    ]
    if method != "bitfit":
        axes.append(("virtual tokens", "virtual_tokens", tokens, {}, size))
    found = []
    for heading, key, values, fixed, what in axes:
        rows = [(value, training(options, method, **fixed, **{key: value})) for value in values]
        for _, settings in rows:
            settings["labels"] = min(options.labels, settings["seq"])
        what = f"{what}, up to {options.labels} tokens a row supervised"
        found.append((f"{METHODS[method]}, {common}; {what}; {timed}", heading, rows))
    return found


def call(line):
    """The last JSON object a command prints, or how it failed."""
    print("+", *line, file=sys.stderr, flush=True)
    run = subprocess.run([str(word) for word in line], capture_output=True, text=True)
    print(run.stderr, end="", file=sys.stderr, flush=True)
    if run.returncode in NOT_MEASURED:
        raise SystemExit(f"{line[0]} {line[1]}: exit status {run.returncode}")
    if run.returncode != 0:
        return {"failed": run.returncode, "stderr": run.stderr[-1000:]}
    return {"result": json.loads(run.stdout.strip().splitlines()[-1])}


def command(options, side, settings):
    line = [options.binary, "bench"] if side == "ours" else [options.python, PEER]
    for key, value in settings.items():
        if key == "backend" and side == "peer":
            key, value = "device", DEVICES[value]
        if value is not False:
            line += [f"--{key.replace('_', '-')}", *([] if value is True else [value])]
    if side == "ours" and settings.get("method") in WITH_ENCODER:
        line += ["--set", f"method.encoder_hidden_size={SHAPES[settings['shape']]}"]
    return [*line, "--json"]


def write(path, value):
    """Whole or not at all: a stopped script leaves no half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    part.replace(path)


def one_run(options, kept, asked):
    """The run that is asked for: of those kept, or made now and kept."""
    line = command(options, asked["side"], asked["settings"])
    for run in kept:
        if asked.items() <= run.items():
            made = datetime.datetime.fromisoformat(run["date"]).timestamp()
            old = asked["side"] == "ours" and made < options.binary.stat().st_mtime
            notes = [f"round {asked['round']} of {run['date']}"]
            notes += [f"failed with exit status {run['failed']}"] if "failed" in run else []
            notes += ["older than the program: --fresh makes it again"] if old else []
            print("=", *line, f"({'; '.join(notes)})", file=sys.stderr, flush=True)
            return run
    outcome = call(line)
    if "failed" in outcome and options.what != "growth":
        raise SystemExit(f"{line[0]} {line[1]}: exit status {outcome['failed']}")
    run = {**asked, "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"), **outcome}
    kept.append(run)
    write(options.json, {"runs": kept})
    return run


def measure(options, host, kept, settings, sides):
    """The runs of these settings, by side; none for a side of which one failed."""
    found = {side: [] for side in sides}
    for number in range(1, options.rounds + 1):
        for side in list(found):
            run = one_run(options, kept, {"side": side, "round": number, "machine": host, "settings": settings})
            if "failed" in run:
                del found[side]
            else:
                found[side].append(run)
        trainable = {side: runs[-1]["result"].get("trainable") for side, runs in found.items()}
        if len(set(trainable.values())) > 1:
            told = ", ".join(f"{side} {number}" for side, number in trainable.items())
            raise SystemExit(
                f"{settings['method']}: the two train different numbers of parameters ({told}) and do not compare; "
                "once they do, call again with --fresh"
            )
    return found


def over_rounds(found, side, key):
    """The values of a key; none where a run failed, or where the platform does not tell the peak."""
    values = [run["result"][key] for run in found.get(side, [])]
    return [] if None in values else values


def median(found, side, key):
    values = over_rounds(found, side, key)
    return statistics.median(values) if values else None


def spread(found, side, key, decimals, factor=1):
    values = [value * factor for value in over_rounds(found, side, key)]
    if not values:
        return "–"
    middle, low, high = (f"{f(values):,.{decimals}f}" for f in (statistics.median, min, max))
    return middle if low == high else f"{middle} ({low}–{high})"


def ratio(above, below):
    return "–" if above is None or below is None else f"{above / below:.2f}"


def per_second(options, seconds):
    return "–" if seconds is None else f"{options.batch / seconds:,.1f}"


def table(options, heading, measured):
    decode = options.what == "decode"
    if decode:
        headings = [heading, "ours ms", "peer ms", "ratio (peer / ours, higher is better)"]
        headings += ["tokens/s ours", "tokens/s peer"]
    else:
        headings = [heading, "ours s", "peer s", "time ratio (peer / ours, higher is better)"]
        headings += ["ours GiB", "peer GiB", "memory ratio (ours / peer, lower is better)"]
    yield "| " + " | ".join(headings) + " |"
    yield "|---" + "|---:" * (len(headings) - 1) + "|"
    for label, found in measured:
        key, decimals, factor = ("token_s", 1, 1e3) if decode else ("step_s", 2 if options.backend == "flex" else 4, 1)
        time = {side: median(found, side, key) for side in SIDES}
        peak = {side: median(found, side, "peak_gib") for side in SIDES} if not decode else {}
        cells = [str(label), *(spread(found, side, key, decimals, factor) for side in SIDES)]
        cells.append(ratio(time["peer"], time["ours"]))
        if decode:
            cells += [per_second(options, time[side]) for side in SIDES]
        else:
            cells += [*(spread(found, side, "peak_gib", 2) for side in SIDES), ratio(peak["ours"], peak["peer"])]
        yield "| " + " | ".join(cells) + " |"


def failures(kept, host, rows, measured):
    """What the dashes stand for."""
    for (label, settings), (_, found) in zip(rows, measured, strict=True):
        for run in kept:
            same = run["machine"] == host and run["settings"] == settings
            if same and "failed" in run and run["side"] not in found:
                yield f"{run['side']} at {label}: exit status {run['failed']}"


def dates(tables):
    """Of the runs, which are not all of today where some were kept."""
    found = [found for *_, measured in tables for _, found in measured]
    days = sorted({run["date"].partition("T")[0] for sides in found for runs in sides.values() for run in runs})
    return " to ".join(days[:1] + days[1:][-1:]) or "no runs"


def plot(options, tables):
    """Time above, memory below; a column for each axis."""
    from matplotlib import rcParams
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

    # The same figures make the same file.
    rcParams["svg.hashsalt"] = "burn-peft"
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    figure = Figure(figsize=(4 * len(tables), 6.5), layout="constrained")
    panels = figure.subplots(len(PANELS), len(tables), squeeze=False)
    for column, (_, heading, measured) in enumerate(tables):
        for row, (key, label) in enumerate(PANELS):
            panel, seen = panels[row][column], []
            for side, (name, style, color) in STYLES.items():
                points = [(value, median(found, side, key)) for value, found in measured]
                xs = [x for x, y in points if y is not None]
                ys = [y for _, y in points if y is not None]
                seen += ys
                panel.plot(xs, ys, style, color=color, label=name, markersize=4)
            # Both axes are logarithmic or neither, so that a straight line is steady growth; and from zero for what
            # grows little, lest a small change look large.
            if seen and max(seen) >= 8 * min(seen):
                panel.set_xscale("log", base=2)
                panel.set_yscale("log", base=2)
                panel.xaxis.set(major_locator=FixedLocator([value for value, _ in measured]))
                panel.yaxis.set(major_locator=LogLocator(2))
                for axis in (panel.xaxis, panel.yaxis):
                    axis.set(minor_locator=NullLocator(), major_formatter=plain)
            else:
                panel.set_ylim(0, 1.15 * max(seen, default=1))
            panel.grid(alpha=0.3)
            panel.set_xlabel(heading)
            panel.set_ylabel(label)
    panels[0][0].legend()
    figure.suptitle(f"{METHODS[options.methods[0]]}, {options.shape}, {options.dtype[0]}")
    options.plot.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.plot, format="svg", metadata={"Date": None})
    print(f"plot: {options.plot}", file=sys.stderr)


def main():
    options = arguments()
    host = machine(options)
    asked = sections(options)
    kept = json.loads(options.json.read_text(encoding="utf-8"))["runs"] if options.json.exists() else []
    if options.fresh:
        again = [settings for *_, rows in asked for _, settings in rows]
        kept = [run for run in kept if run["settings"] not in again]
    tables = []
    for caption, heading, rows in asked:
        sides, measured = SIDES, []
        for label, settings in rows:
            found = measure(options, host, kept, settings, sides)
            sides = tuple(found)
            measured.append((label, found))
        tables.append((caption, heading, measured))
    print(f"{dates(tables)}; {host}")
    for (caption, heading, measured), (*_, rows) in zip(tables, asked, strict=True):
        print("", caption, "", *table(options, heading, measured), sep="\n")
        failed = list(failures(kept, host, rows, measured))
        if failed:
            print("", f"–: not measured ({'; '.join(failed)})", sep="\n")
    if options.what == "growth":
        plot(options, tables)


if __name__ == "__main__":
    main()
