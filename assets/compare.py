"""Compares the program's methods with LoRA and full fine-tuning, on the built-in model and task: the README's table.

    cargo build --release && python assets/compare.py              the table goes to stdout, all runs to --json
    python assets/compare.py --seeds 1 --methods bitfit lora       a part of it
    python assets/compare.py --search                              how the two peers' learning rates were found

The program trains its own methods, as `burn-peft train --method M --seed S` does by default. LoRA and full fine-tuning
are made with transformers and PEFT for as many steps of as many rows, with the same schedule and clipping, and merged
into a checkpoint. The program scores everything, so each column has one definition. A run that is in the work folder is
not made again: the script can be stopped and called again, and the folder is to be deleted after a change of the program.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

ASSETS = Path(__file__).resolve().parent
OWN = {
    "bitfit": "BitFit",
    "prompt-tuning": "Prompt Tuning",
    "p-tuning": "P-Tuning",
    "prefix-tuning": "Prefix Tuning",
    "p-tuning-v2": "P-Tuning v2",
}
PEERS = {"lora": "LoRA, r = 8 on q and v (PEFT)", "full": "full fine-tuning (transformers)"}
# What --search tries; check_assets.METHODS has the rates that are used.
RATES = {"lora": (1e-3, 3e-3, 1e-2, 3e-2), "full": (1e-4, 3e-4, 1e-3, 3e-3)}
# Key in the program's JSON, heading, decimals, factor.
SCORES = [
    ("loss", "loss", 3, 1),
    ("slot_accuracy", "slots told, %", 1, 100),
    ("exact_match", "exact, %", 1, 100),
    ("bleu", "BLEU", 3, 1),
]


def arguments(budget):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = ASSETS.parent
    parser.add_argument("--binary", type=Path, default=root / "target/release/burn-peft")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--methods", nargs="+", choices=[*OWN, *PEERS], default=[*OWN, *PEERS], metavar="M")
    parser.add_argument("--steps", type=int, default=budget["max_steps"])
    parser.add_argument("--rows", type=int, default=200, help="test rows to score (default: all 200)")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--work", type=Path, default=root / "target/compare", help="where runs are kept")
    parser.add_argument("--json", type=Path, help="all runs (default: compare.json in the work folder)")
    parser.add_argument("--search", action="store_true", help="losses of the peers on valid.jsonl, first seed")
    return parser.parse_args()


def call(line):
    """The last JSON object a command prints."""
    print("+", *line, file=sys.stderr, flush=True)
    run = subprocess.run([str(word) for word in line], stdout=subprocess.PIPE, text=True)
    if run.returncode != 0:
        raise SystemExit(f"{line[0]} {line[1]}: exit status {run.returncode}")
    return json.loads(run.stdout.strip().splitlines()[-1])


def test_rows(options):
    """A file of the first test rows; None for all, which the program has in it."""
    lines = (ASSETS / "task/test.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    if options.rows >= len(lines):
        return None
    path = options.work / f"test-{options.rows}.jsonl"
    path.write_text("".join(lines[: options.rows]), encoding="utf-8")
    return path


def evaluate(options, *model):
    rows = test_rows(options)
    line = [options.binary, "evaluate", *model, *(["--data", rows] if rows else [])]
    return call([*line, "--json", "--threads", options.threads])


def base(options, _):
    return evaluate(options)


def size(folder, name):
    return (folder / name).stat().st_size


def own(options, folder, method, seed):
    """A run of the program."""
    line = [options.binary, "train", "--method", method, "--seed", seed, "--output", folder, "--no-tui", "--json"]
    rows = test_rows(options)
    line += ["--set", f"data.test={rows}"] if rows else []
    done = call([*line, "--max-steps", options.steps, "--threads", options.threads])
    resolved = tomllib.loads((folder / "run.toml").read_text(encoding="utf-8"))
    return {
        "learning_rate": resolved["train"]["learning_rate"],
        "trainable_params": done["trainable_params"],
        "bytes": size(folder, "adapter_model.safetensors"),
        "before": done["before"],
        "scores": done["after"],
    }


def task(options):
    """The peers' half, which alone needs PyTorch."""
    import torch
    from check_assets import Task

    torch.set_num_threads(options.threads)
    return Task(ASSETS)


def peer(options, folder, method, seed, batch_size):
    """A run of transformers and PEFT."""
    from check_assets import METHODS, adapt

    with contextlib.redirect_stdout(sys.stderr):
        model = adapt(task(options), method, options.steps, batch_size=batch_size, seed=seed)
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    merged = folder / "merged"
    shutil.copytree(ASSETS / "model", merged)
    if method == "lora":
        model.save_pretrained(folder)
        model = model.merge_and_unload()
    model.save_pretrained(merged)
    saved = size(folder, "adapter_model.safetensors") if method == "lora" else size(merged, "model.safetensors")
    return {
        "learning_rate": METHODS[method][1],
        "trainable_params": trainable,
        "bytes": saved,
        "scores": evaluate(options, "--model", merged),
    }


def kept(options, name, make, *rest):
    """The run of that name: from the work folder, or made now and put there."""
    name = f"{name}-steps{options.steps}-rows{options.rows}"
    path = options.work / f"{name}.json"
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    folder = options.work / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    run = make(options, folder, *rest)
    # Only the figures stay: the checkpoints of all peers would fill a small disk.
    shutil.rmtree(folder)
    write(path, run)
    return run


def write(path, value):
    """Whole or not at all: a stopped run leaves no half a file that would count as made."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    part.replace(path)


def spread(values, decimals, factor=1):
    values = [value * factor for value in values]
    mean, low, high = (f"{f(values):.{decimals}f}" for f in (statistics.fmean, min, max))
    return mean if low == high else f"{mean} ({low}–{high})"


def table(frozen, runs, options):
    yield f"{options.steps} steps; {options.rows} test rows; mean (least–greatest) over seeds " + ", ".join(
        map(str, options.seeds)
    )
    yield ""
    headings = ["", "trained", "KiB on disk", "learning rate", *(heading for _, heading, _, _ in SCORES)]
    yield "| " + " | ".join(headings) + " |"
    yield "|---" * len(headings) + "|"
    rows = [("the base, frozen", [{"trainable_params": 0, "scores": frozen}])]
    names = OWN | PEERS
    rows += [(names[method], [run for run in runs if run["method"] == method]) for method in options.methods]
    for name, found in rows:
        first = found[0]
        cells = [name, f"{first['trainable_params']:,}"]
        cells += [f"{first['bytes'] / 1024:,.0f}", f"{first['learning_rate']:g}"] if "bytes" in first else ["", ""]
        for key, _, decimals, factor in SCORES:
            cells.append(spread([run["scores"][key] for run in found], decimals, factor))
        yield "| " + " | ".join(cells) + " |"


def valid_loss(options, _, rows, method, rate, batch_size, seed):
    from check_assets import adapt

    with contextlib.redirect_stdout(sys.stderr):
        model = adapt(rows, method, options.steps, rate, batch_size, seed)
    return {"loss": rows.loss(model, "valid")}


def search(options, batch_size):
    rows, seed = task(options), options.seeds[0]
    print(f"loss on valid.jsonl after {options.steps} steps, seed {seed}")
    for method in (method for method in options.methods if method in PEERS):
        for rate in RATES[method]:
            name = f"search-{method}-{rate:g}-seed{seed}"
            found = kept(options, name, valid_loss, rows, method, rate, batch_size, seed)
            print(f"{method:6}{rate:8g}  {found['loss']:.4f}", flush=True)


def main():
    budget = tomllib.loads((ASSETS / "run.toml").read_text(encoding="utf-8"))["train"]
    options = arguments(budget)
    batch_size = budget["per_device_train_batch_size"]
    options.work.mkdir(parents=True, exist_ok=True)
    if options.search:
        return search(options, batch_size)
    frozen, runs = kept(options, "base", base), []
    for seed in options.seeds:
        for method in options.methods:
            make, rest = (peer, [batch_size]) if method in PEERS else (own, [])
            run = kept(options, f"{method}-seed{seed}", make, method, seed, *rest)
            runs.append({"method": method, "seed": seed, "steps": options.steps, **run})
    write(options.json or options.work / "compare.json", {"rows": options.rows, "base": frozen, "runs": runs})
    print("\n".join(table(frozen, runs, options)))


if __name__ == "__main__":
    main()
