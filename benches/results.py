"""The five methods on real tasks and a real model, beside their peers: the second table of docs/results.md.

    python benches/results.py --model DIR --data DIR               the missing runs, then the table
    python benches/results.py … --tasks ner-en --methods bitfit lora --seeds 0      a part of them
    python benches/results.py … --part valid --set train.learning_rate=3e-3,1e-2     a search: a run for each value
    python benches/results.py --table                              the table of the runs that are there

The model is a folder in Hugging Face layout. The data are folders NAME with train.jsonl, valid.jsonl and test.jsonl; the
keys of the rows say what the task is: {"text", "label"}, {"tokens", "tags"}, {"context", "question", "answers"} or
{"prompt", "completion"}. Neither is part of this repository; the figures of the runs are, in docs/results.jsonl, a line for
each run.

Every run of a seed sees the same rows, --steps times --batch-size of them, once, and is scored on the same rows.
results_rows.py says which. The order of the rows is the program's own for its methods and the file's for the peers.

The program trains its methods with their default settings, but for those of --set, and scores them. results_peer.py says
what the peers are and how they are trained; of --set they know the learning rate. A run that is in the file is not made
again, so the script can be stopped, called again with more tasks, methods or seeds, and run twice at a time on different
ones. A run that fails is reported and left out. A new line has the tokens a second of training too, which compare only where
nothing else ran; for that reason docs/results.jsonl has none.
Install benches/requirements.txt. Where other programs use the processor, OMP_WAIT_POLICY=PASSIVE or --threads 1 spares
PyTorch's threads from spinning.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from results_rows import COLUMNS, Task

ROOT = Path(__file__).resolve().parent.parent
PEER = ROOT / "benches/results_peer.py"
OWN = {
    "linear-probe": "the head alone",
    "bitfit": "BitFit",
    "prompt-tuning": "Prompt Tuning",
    "p-tuning": "P-Tuning",
    "prefix-tuning": "Prefix Tuning",
    "p-tuning-v2": "P-Tuning v2",
}
PEERS = {
    "lora": "LoRA, r = 8 on q and v (PEFT)",
    "full": "full fine-tuning (transformers)",
    "peft-prompt": "PEFT's Prompt Tuning, as it comes",
    "peft-prompt-best": "PEFT's Prompt Tuning, at its best",
    "peft-p-tuning": "PEFT's P-Tuning, as it comes",
    "peft-p-tuning-best": "PEFT's P-Tuning, at its best",
    "peft-prefix": "PEFT's Prefix Tuning, as it comes",
    "peft-prefix-best": "PEFT's Prefix Tuning, at its best",
}
METHODS = OWN | PEERS
# PEFT names no learning rate. "As it comes" is PEFT's configuration with the rate of transformers' TrainingArguments, which
# the head has too.
AS_IT_COMES = 5e-5
# The program's own defaults for heads; the other peers have them too.
HEAD_RATES = {"seq-cls": 3e-3, "token-cls": 1e-2, "qa": 3e-3}
# The rates of the other peers, not searched for yet: --part valid and --set find what to put here.
RATES = {"lora": 3e-3, "full": 1e-4, "peft-prompt-best": 3e-2, "peft-p-tuning-best": 1e-3, "peft-prefix-best": 1e-2}
LEARNING_RATE = "train.learning_rate"
# What runs of one table have in common.
SHARED = ("model", "dtype", "steps", "batch_size", "length", "rows", "part", "settings")
# More steps than a run has: no checkpoint but the last.
NEVER = 1_000_000


def positive(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: it must be a whole number, 1 or more")
    return int(text)


def setting(text):
    """KEY=VALUE,VALUE as pairs of key and value."""
    key, equals, values = text.partition("=")
    if not (key and equals and values):
        raise argparse.ArgumentTypeError(f"{text}: it must be KEY=VALUE")
    return [(key, value) for value in values.split(",")]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="its last name is that in the file of runs")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--runs", type=Path, default=ROOT / "docs/results.jsonl", help="the file of runs")
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/burn-peft")
    parser.add_argument("--tasks", nargs="+", default=["foods-en", "ner-en", "qa-en", "e2e-en"], metavar="NAME")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="M")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=positive, default=100)
    parser.add_argument("--batch-size", type=positive, default=8)
    parser.add_argument("--length", type=positive, default=128, help="tokens of the longest row")
    parser.add_argument("--rows", type=positive, default=300, help="rows to be scored on")
    parser.add_argument("--part", choices=["test", "valid"], default="test", help="where they are from")
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="bf16", help="of the frozen base")
    parser.add_argument("--threads", type=positive, default=os.cpu_count())
    parser.add_argument(
        "--set", type=setting, action="append", default=[], metavar="KEY=VALUE[,VALUE]", dest="settings"
    )
    parser.add_argument("--table", action="store_true", help="make no run")
    options = parser.parse_args()
    if not options.table and not (options.model and options.data):
        parser.error("--model and --data are needed for runs")
    return options


def call(line):
    """The last JSON object that a command prints."""
    print("+", *line, file=sys.stderr, flush=True)
    run = subprocess.run([str(word) for word in line], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(run.stdout.strip().splitlines()[-1])


def evaluate(options, adapter, rows, model=None):
    line = [options.binary, "evaluate", "--model", model or options.model, "--dtype", options.dtype]
    line += ["--threads", options.threads, "--data", rows, "--json"]
    line += ["--adapter", adapter] if adapter else []
    return call(line + (["--no-generate"] if options.part == "valid" else []))


def own(options, task, method, seed, settings, work):
    """A run of the program."""
    line = [options.binary, "train", "--model", options.model, "--dtype", options.dtype, "--threads", options.threads]
    line += ["--task", task.kind, "--method", method, "--data", task.train(seed), "--output", work / "adapter"]
    line += ["--max-steps", options.steps, "--seed", seed, "--no-tui", "--json"]
    fixed = {
        "data.max_length": options.length,
        "train.per_device_train_batch_size": options.batch_size,
        "train.save_steps": NEVER,
    }
    for key, value in (fixed | settings).items():
        line += ["--set", f"{key}={value}"]
    done = call(line)
    resolved = tomllib.loads((work / "adapter/run.toml").read_text(encoding="utf-8"))
    records = map(json.loads, (work / "adapter/metrics.jsonl").read_text(encoding="utf-8").splitlines())
    speeds = [record["tokens_per_second"] for record in records if "tokens_per_second" in record]
    return {
        "learning_rate": resolved["train"].get("learning_rate"),
        "trainable_params": done["trainable_params"],
        "tokens_per_second": statistics.harmonic_mean(speeds),
        "scores": evaluate(options, work / "adapter", task.held_out()),
    }


def peer(options, task, method, seed, settings, work):
    """A run of transformers and PEFT. What learned to write is scored by the program: one definition of BLEU."""
    rate = float(settings.get(LEARNING_RATE, RATES.get(method, AS_IT_COMES)))
    line = [sys.executable, PEER, "--model", options.model, "--kind", task.kind, "--method", method, "--rate", rate]
    line += ["--train", task.train(seed), "--test", task.held_out(), "--save", work, "--dtype", options.dtype]
    line += ["--batch-size", options.batch_size, "--seed", seed, "--threads", options.threads]
    line += ["--head-rate", HEAD_RATES[task.kind]] if method in RATES and task.kind in HEAD_RATES else []
    made = call(line)
    if task.kind == "causal-lm":
        merged, adapter = ((work / name if (work / name).exists() else None) for name in ("merged", "adapter"))
        made["scores"] = evaluate(options, adapter, task.held_out(), merged)
    return {"learning_rate": rate, **made}


def base(options, task, _method, _seed, _settings, _work):
    """What the base writes without an adapter."""
    return {"trainable_params": 0, "scores": evaluate(options, None, task.held_out())}


def run(options, task, method, seed, settings):
    """The figures of a run, None if it failed."""
    make = base if method == "base" else own if method in OWN else peer
    # Only the figures stay: the checkpoints of all peers would fill a small disk.
    with tempfile.TemporaryDirectory() as work:
        try:
            made = make(options, task, method, seed, settings, Path(work))
        except subprocess.CalledProcessError as error:
            print(f"{task.name}, {method}, seed {seed}: exit status {error.returncode}", file=sys.stderr)
            return None
    made["scores"] = {key: value for key, value in made["scores"].items() if isinstance(value, (int, float))}
    return made


def shared(options, settings):
    """What a run has in common with the others of its table, by the names of SHARED."""
    values = {key: getattr(options, key) for key in SHARED if key not in ("model", "settings")}
    return {"model": options.model.name if options.model else None, "settings": settings} | values


def runs_of(options, settings):
    """The runs of the file that may stand in one table, by task, method and seed."""
    lines = options.runs.read_text(encoding="utf-8").splitlines() if options.runs.exists() else []
    wanted = shared(options, settings)
    same = lambda run: all(run[key] == wanted[key] for key in SHARED if wanted[key] is not None)
    found = [run for run in map(json.loads, lines) if same(run)]
    if len(models := {run["model"] for run in found}) > 1:
        sys.exit(f"{options.runs} has runs of {', '.join(sorted(models))}: choose one with --model")
    return {(run["task"], run["method"], run["seed"]): run for run in found}


def plan(options, tasks, settings):
    """Every run of the table, seed by seed, so that an early table is complete for few seeds."""
    for seed in options.seeds:
        for task in tasks:
            text = task.kind == "causal-lm"
            if text and seed == options.seeds[0] and not settings:
                yield task, "base", seed
            yield from ((task, method, seed) for method in options.methods if not (text and method == "linear-probe"))


def make_missing(options, settings):
    """Makes the runs that are not in the file; whether none failed."""
    whole = True
    with tempfile.TemporaryDirectory() as work:
        options.work = Path(work)
        for task, method, seed in plan(options, [Task(options, name) for name in options.tasks], settings):
            if (task.name, method, seed) in runs_of(options, settings):
                continue
            made = run(options, task, method, seed, settings)
            whole &= made is not None
            if made:
                named = {"task": task.name, "kind": task.kind, "method": method, "seed": seed}
                with options.runs.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(shared(options, settings) | named | made) + "\n")
    return whole


def cell(found, key, decimals, factor):
    values = [value * factor for value in (run["scores"].get(key) for run in found) if value is not None]
    if not values:
        return ""
    mean = f"{statistics.fmean(values):.{decimals}f}"
    return f"{mean} ± {statistics.stdev(values):.{decimals}f}" if len(values) > 1 else mean


def table(options, searched):
    """A row for each method, and each of its settings where some are searched."""
    found = {tuple(settings.items()): list(runs_of(options, settings).values()) for settings in searched}
    wanted = lambda run: run["task"] in options.tasks and run["seed"] in options.seeds
    found = {settings: list(filter(wanted, runs)) for settings, runs in found.items()}
    kinds = {run["task"]: run["kind"] for runs in found.values() for run in runs}
    kinds = {task: kinds[task] for task in options.tasks if task in kinds}
    # A search goes by the loss, which few rows show better than what is right or wrong.
    loss = {"loss": ("loss", 3, 1)} if options.part == "valid" else {}
    columns = [(task, *column) for task, kind in kinds.items() for column in (COLUMNS[kind] | loss).items()]
    scored = {(run["task"], key) for runs in found.values() for run in runs for key in run["scores"]}
    columns = [column for column in columns if column[:2] in scored]
    yield f"Mean ± standard deviation over the seeds {', '.join(map(str, options.seeds))}."
    yield ""
    yield "| " + " | ".join(["", "trained"] + [f"{task}: {heading}" for task, _, (heading, *_) in columns]) + " |"
    yield "|---" * (len(columns) + 2) + "|"
    for (method, title), settings in itertools.product(({"base": "the base, frozen"} | METHODS).items(), found):
        runs = [run for run in found[settings] if run["method"] == method]
        if not runs:
            continue
        title = ", ".join([title, *(f"{key.rpartition('.')[2]} {value}" for key, value in settings)])
        # With the smallest head of the tasks.
        cells = [title, f"{min(run['trainable_params'] for run in runs):,}"]
        cells += [cell([run for run in runs if run["task"] == task], key, *form) for task, key, (_, *form) in columns]
        yield "| " + " | ".join(cells) + " |"


def main():
    options = arguments()
    searched = list(map(dict, itertools.product(*options.settings)))
    # All of them, whatever fails.
    whole = options.table or all([make_missing(options, settings) for settings in searched])
    print("\n".join(table(options, searched)))
    return not whole


if __name__ == "__main__":
    sys.exit(main())
