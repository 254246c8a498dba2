"""The five methods on real tasks and a real model, beside their peers: the second table of docs/results.md.

    python benches/results.py --model DIR --data DIR --out DIR     the missing runs, then the table
    python benches/results.py … --tasks ner-en --methods bitfit lora --seeds 0      a part of them
    python benches/results.py … --table                            the table of the runs that are there
    python benches/results.py … --search --methods lora            the rates that the peers were searched over

The model is a folder in Hugging Face layout. The data are folders NAME with train.jsonl, valid.jsonl and test.jsonl; the
keys of the rows say what the task is: {"text", "label"}, {"tokens", "tags"}, {"context", "question", "answers"} or
{"prompt", "completion"}. Neither is part of this repository.

Every run of a seed sees the same rows, --steps times --batch-size of them, once, and is scored on the same test rows.
results_rows.py says which. The order of the rows is the program's own for its methods and the file's for the peers.

The program trains its methods with their default settings, and scores them. results_peer.py says what the peers are and
how they are trained. A run is one file in the output folder, written whole or not at all. It is not made again, so the
script can be stopped, and called again with more tasks, methods or seeds. A run that fails is reported and left out.
Each file has the tokens a second of training too, which compare only where nothing else ran.
Install benches/requirements.txt. Where other programs use the processor, OMP_WAIT_POLICY=PASSIVE or --threads 1 spares
PyTorch's threads from spinning.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

from results_rows import Task, folder, write

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
# The program's own default for heads; the other peers have it too.
HEAD_RATE = 3e-3
# The rates of the other peers, not searched for yet: --search prints what to put here.
RATES = {"lora": 3e-3, "full": 1e-4, "peft-prompt-best": 3e-2, "peft-p-tuning-best": 1e-3, "peft-prefix-best": 1e-2}
SEARCHED = {
    "lora": (1e-3, 3e-3, 1e-2),
    "full": (3e-5, 1e-4, 3e-4),
    "peft-prompt-best": (1e-2, 3e-2, 1e-1),
    "peft-p-tuning-best": (3e-4, 1e-3, 3e-3),
    "peft-prefix-best": (3e-3, 1e-2, 3e-2),
}
# More steps than a run has: no checkpoint but the last.
NEVER = 1_000_000


def positive(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: it must be a whole number, 1 or more")
    return int(text)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/burn-peft")
    parser.add_argument("--tasks", nargs="+", default=["foods-en", "ner-en", "qa-en", "e2e-en"], metavar="NAME")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="M")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=positive, default=100)
    parser.add_argument("--batch-size", type=positive, default=8)
    parser.add_argument("--length", type=positive, default=128, help="tokens of the longest row")
    parser.add_argument("--rows", type=positive, default=300, help="test rows")
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32", help="of the frozen base")
    parser.add_argument("--threads", type=positive, default=os.cpu_count())
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--table", action="store_true", help="make no run")
    mode.add_argument("--search", action="store_true", help="the first seed at several rates, scored on valid.jsonl")
    return parser.parse_args()


def call(line):
    """The last JSON object that a command prints."""
    print("+", *line, file=sys.stderr, flush=True)
    run = subprocess.run([str(word) for word in line], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(run.stdout.strip().splitlines()[-1])


def evaluate(options, adapter, rows, model=None, quick=False):
    line = [options.binary, "evaluate", "--model", model or options.model, "--dtype", options.dtype]
    line += ["--threads", options.threads, "--data", rows, "--json"]
    line += ["--adapter", adapter] if adapter else []
    return call(line + (["--no-generate"] if quick else []))


def own(options, task, method, seed, rate, held_out, work):
    """A run of the program; without a rate, at the program's own."""
    line = [options.binary, "train", "--model", options.model, "--dtype", options.dtype, "--threads", options.threads]
    line += ["--task", task.kind, "--method", method, "--data", task.train(seed), "--output", work / "adapter"]
    line += ["--max-steps", options.steps, "--seed", seed, "--no-tui", "--json"]
    settings = {
        "data.max_length": options.length,
        "train.per_device_train_batch_size": options.batch_size,
        "train.save_steps": NEVER,
    } | ({"train.learning_rate": rate} if rate else {})
    for key, value in settings.items():
        line += ["--set", f"{key}={value}"]
    done = call(line)
    resolved = tomllib.loads((work / "adapter/run.toml").read_text(encoding="utf-8"))
    records = map(json.loads, (work / "adapter/metrics.jsonl").read_text(encoding="utf-8").splitlines())
    speeds = [record["tokens_per_second"] for record in records if "tokens_per_second" in record]
    return {
        "tokens_per_second": statistics.harmonic_mean(speeds),
        "learning_rate": resolved["train"].get("learning_rate"),
        "trainable_params": done["trainable_params"],
        "scores": evaluate(options, work / "adapter", held_out, quick=options.search),
    }


def peer(options, task, method, seed, rate, held_out, work):
    """A run of transformers and PEFT. What learned to write is scored by the program: one definition of BLEU."""
    rate = rate or RATES.get(method, AS_IT_COMES)
    line = [sys.executable, PEER, "--model", options.model, "--kind", task.kind, "--method", method, "--rate", rate]
    line += ["--train", task.train(seed), "--test", held_out, "--save", work, "--dtype", options.dtype]
    line += ["--batch-size", options.batch_size, "--seed", seed, "--threads", options.threads]
    line += ["--head-rate", HEAD_RATE] if method in RATES else []
    run = call(line)
    if task.kind == "causal-lm":
        merged, adapter = ((work / name if (work / name).exists() else None) for name in ("merged", "adapter"))
        run["scores"] = evaluate(options, adapter, held_out, merged, quick=options.search)
    return {"learning_rate": rate, **run}


def base(options, task, _method, _seed, _rate, held_out, _work):
    """What the base writes without an adapter."""
    return {"trainable_params": 0, "scores": evaluate(options, None, held_out)}


def path_of(options, task, method, seed, rate=None):
    rate = f"-rate{rate:g}" if rate else ""
    return folder(options) / f"{task.name}-{method}{rate}-seed{seed}.json"


def run(options, task, method, seed, rate=None):
    """The run from the output folder, or made now and put there; None if it failed."""
    path = path_of(options, task, method, seed, rate)
    if not path.exists():
        make = base if method == "base" else own if method in OWN else peer
        work = path.with_suffix(".work")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        try:
            held_out = task.held_out("valid" if options.search else "test")
            made = make(options, task, method, seed, rate, held_out, work)
        except subprocess.CalledProcessError as error:
            print(f"{path.stem}: exit status {error.returncode}", file=sys.stderr)
            return None
        finally:
            # Only the figures stay: the checkpoints of all peers would fill a small disk.
            shutil.rmtree(work)
        made["scores"].pop("per_example", None)
        write(path, json.dumps({"task": task.name, "method": method, "seed": seed, **made}, indent=2) + "\n")
    return json.loads(path.read_text(encoding="utf-8"))


def plan(options, tasks):
    """Every run of the table, seed by seed, so that an early table is complete for few seeds."""
    for seed in options.seeds:
        for task in tasks:
            text = task.kind == "causal-lm"
            yield from ((task, "base", seed) for _ in [0] if text and seed == options.seeds[0])
            yield from ((task, method, seed) for method in options.methods if not (text and method == "linear-probe"))


def cell(found, key, decimals, factor):
    values = [value * factor for value in (run["scores"].get(key) for run in found) if value is not None]
    if not values:
        return ""
    mean = f"{statistics.fmean(values):.{decimals}f}"
    return f"{mean} ± {statistics.stdev(values):.{decimals}f}" if len(values) > 1 else mean


def table(options, tasks):
    headings = ["", "trained"] + [f"{task.name}: {column[1]}" for task in tasks for column in task.columns]
    yield f"Mean ± standard deviation over the seeds {', '.join(map(str, options.seeds))}."
    yield ""
    yield "| " + " | ".join(headings) + " |"
    yield "|---" * len(headings) + "|"
    for method, title in ({"base": "the base, frozen"} | METHODS).items():
        found = {}
        for task in tasks:
            paths = (path_of(options, task, method, seed) for seed in options.seeds)
            found[task] = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
        if not any(found.values()):
            continue
        # With the smallest head of the tasks.
        trained = min(run["trainable_params"] for runs in found.values() for run in runs)
        cells = [title, f"{trained:,}"]
        cells += [cell(found[task], key, *form) for task in tasks for key, _, *form in task.columns]
        yield "| " + " | ".join(cells) + " |"
    missing = sum(not path_of(options, *planned).exists() for planned in plan(options, tasks))
    if missing:
        yield ""
        yield f"{missing} runs are missing."


def search(options, tasks):
    for method in (method for method in options.methods if method in SEARCHED):
        for task in tasks:
            for rate in SEARCHED[method]:
                found = run(options, task, method, options.seeds[0], rate)
                scores = found["scores"] if found else {}
                figures = ", ".join(f"{key} {scores[key]:.4f}" for key, *_ in task.columns if key in scores)
                print(f"{task.name:14}{method:20}{rate:<8g}{figures}", flush=True)


def main():
    options = arguments()
    tasks = [Task(options, name) for name in options.tasks]
    if options.search:
        return search(options, tasks)
    failed = False
    if not options.table:
        failed = None in [run(options, *planned) for planned in plan(options, tasks)]
    print("\n".join(table(options, tasks)))
    return failed


if __name__ == "__main__":
    sys.exit(main())
