"""Trains heads on the tasks of make_tasks.py with Hugging Face PEFT: how far a linear probe comes, and how far adapters do.

    python check_tasks.py seq-cls probe p-tuning-v2           also: token-cls qa; prefix-tuning prompt-tuning bitfit lora
    python check_tasks.py qa p-tuning-v2 --lr 0.03 --steps 300

Printed is the score on valid.jsonl and test.jsonl: accuracy for seq-cls, F1 of spans for token-cls (seqeval), and the share of
answers found exactly for qa. PEFT is used without a task of its own, as in `FEATURE_EXTRACTION`, and the head is a
linear layer over the states of the last layer. So all methods share one loop, also those that PEFT refuses for
QUESTION_ANS, and nothing is lost: there too, the head is all that such a task adds.
"""

import argparse
import json
import random
import time
from pathlib import Path

import peft
import torch
from seqeval.metrics import f1_score
from torch.nn.functional import cross_entropy
from transformers import AutoModel, AutoTokenizer, get_linear_schedule_with_warmup

HERE = Path(__file__).parent
COMMON = {"task_type": "FEATURE_EXTRACTION"}
PROMPT = COMMON | {"num_virtual_tokens": 20}
# Method: its PEFT configuration, and its learning rate.
METHODS = {
    "probe": (None, 0.0),
    "prompt-tuning": (lambda: peft.PromptTuningConfig(**PROMPT), 0.3),
    "prefix-tuning": (lambda: peft.PrefixTuningConfig(prefix_projection=True, encoder_hidden_size=256, **PROMPT), 3e-3),
    "p-tuning-v2": (lambda: peft.PrefixTuningConfig(**PROMPT), 0.1),
    "bitfit": (lambda: peft.BeftConfig(target_modules=["q_proj", "k_proj", "v_proj"], **COMMON), 1e-2),
    "lora": (lambda: peft.LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], **COMMON), 3e-3),
}
HEAD_RATE = 1e-2
LONGEST_ANSWER = 30


class Task:
    """Rows as token ids with what is to be found in them: pairs of a cell and a class, or the answer's first and last cell."""

    def __init__(self, folder, kind):
        self.folder, self.kind = folder, kind
        self.tokenizer = AutoTokenizer.from_pretrained(folder / "model")
        rows = {}
        for part in ("train", "valid", "test"):
            lines = (folder / f"task/{kind}/{part}.jsonl").read_text(encoding="utf-8").splitlines()
            rows[part] = [json.loads(line) for line in lines]
        found = {tag for row in rows["train"] for tag in row.get("tags", [row.get("label")])}
        self.names = ["start", "end"] if kind == "qa" else sorted(found)
        self.rows = {part: [getattr(self, kind.replace("-", "_"))(row) for row in rows[part]] for part in rows}

    def ids(self, text):
        return self.tokenizer(text)["input_ids"]

    def seq_cls(self, row):
        ids = self.ids(row["text"])
        return ids, [(len(ids) - 1, self.names.index(row["label"]))]

    def token_cls(self, row):
        ids, cells = [], []
        for index, (token, tag) in enumerate(zip(row["tokens"], row["tags"])):
            cells.append((len(ids), self.names.index(tag)))
            ids += self.ids(" " * (index > 0) + token)
        return ids, cells

    def qa(self, row):
        question, context = self.ids(row["question"]), self.tokenizer(row["context"], return_offsets_mapping=True)
        begin = row["answers"]["answer_start"][0]
        last = begin + len(row["answers"]["text"][0]) - 1
        cells = [
            next(cell for cell, (_, end) in enumerate(context["offset_mapping"]) if end > character)
            for character in (begin, last)
        ]
        return question + context["input_ids"], (len(question), [len(question) + cell for cell in cells])

    def batch(self, rows):
        width = max(len(ids) for ids, _ in rows)
        pad = lambda cell, value: [cell(ids) + [value] * (width - len(ids)) for ids, _ in rows]  # noqa: E731
        ids = pad(list, self.tokenizer.eos_token_id)
        return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(pad(lambda ids: [1] * len(ids), 0))}

    def loss(self, logits, rows, mask):
        if self.kind == "qa":
            logits = logits.masked_fill(mask.unsqueeze(-1) == 0, -1e9).transpose(1, 2)  # [rows, 2, cells]
            return cross_entropy(logits.flatten(0, 1), torch.tensor([cells for _, (_, cells) in rows]).flatten())
        cells = [(row, cell, label) for row, (_, labels) in enumerate(rows) for cell, label in labels]
        row, cell, label = map(list, zip(*cells))
        return cross_entropy(logits[row, cell], torch.tensor(label))

    @torch.no_grad()
    def score(self, logits_of, part):
        gold, predicted = [], []
        for start in range(0, len(self.rows[part]), 50):
            rows = self.rows[part][start : start + 50]
            for (ids, target), logits in zip(rows, logits_of(self.batch(rows))):
                if self.kind == "qa":
                    gold.append(tuple(target[1]))
                    predicted.append(best_span(logits[: len(ids)], target[0]))
                else:
                    gold.append([self.names[label] for _, label in target])
                    predicted.append([self.names[logits[cell].argmax()] for cell, _ in target])
        if self.kind == "token-cls":
            return f1_score(gold, predicted)
        return sum(a == b for a, b in zip(gold, predicted)) / len(gold)


def best_span(logits, context):
    sums = logits[context:, 0].unsqueeze(1) + logits[context:, 1]
    allowed = torch.ones_like(sums).triu().tril(LONGEST_ANSWER - 1)
    best = sums.masked_fill(allowed == 0, -1e9).argmax().item()
    return context + best // len(sums), context + best % len(sums)


def adapt(task, method, lr, steps, batch_size=16, seed=0):
    """The function from a batch to logits, trained."""
    torch.manual_seed(seed)
    model = AutoModel.from_pretrained(task.folder / "model", dtype=torch.float32)
    head = torch.nn.Linear(model.config.hidden_size, len(task.names))
    config, own_lr = METHODS[method]
    model = peft.get_peft_model(model, config()) if config else model.requires_grad_(False)
    # PEFT returns the states of a prompt's tokens, too.
    logits_of = lambda batch: head(model(**batch).last_hidden_state[:, -batch["input_ids"].shape[1] :])  # noqa: E731
    adapter = [p for p in model.parameters() if p.requires_grad]
    groups = [{"params": adapter, "lr": lr or own_lr}] * bool(adapter) + [{"params": head.parameters(), "lr": HEAD_RATE}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    schedule = get_linear_schedule_with_warmup(optimizer, steps // 20, steps)
    order, mean, start = [], None, time.time()
    for step in range(1, steps + 1):
        if len(order) < batch_size:
            order = random.Random(seed + step).sample(task.rows["train"], len(task.rows["train"]))
        rows = [order.pop() for _ in range(batch_size)]
        model.train(bool(adapter))
        batch = task.batch(rows)
        loss = task.loss(logits_of(batch), rows, batch["attention_mask"])
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*adapter, *head.parameters()], 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        mean = loss.item() if mean is None else 0.95 * mean + 0.05 * loss.item()
        if step % 100 == 0:
            model.eval()
            valid = task.score(logits_of, "valid")
            print(f"  step {step:4}  loss {mean:.3f}  valid {valid:.3f}  {(time.time() - start) / step:.2f} s/step", flush=True)
    model.eval()
    return logits_of


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("task", choices=["seq-cls", "token-cls", "qa"])
    arguments.add_argument("methods", nargs="+", choices=METHODS)
    arguments.add_argument("--assets", type=Path, default=HERE)
    arguments.add_argument("--lr", type=float)
    arguments.add_argument("--steps", type=int, default=600)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--threads", type=int, default=1)
    arguments = arguments.parse_args()
    torch.set_num_threads(arguments.threads)
    task = Task(arguments.assets, arguments.task)
    for method in arguments.methods:
        logits_of = adapt(task, method, arguments.lr, arguments.steps, seed=arguments.seed)
        valid, test = task.score(logits_of, "valid"), task.score(logits_of, "test")
        print(f"{arguments.task} {method}: valid {valid:.3f}, test {test:.3f}", flush=True)


if __name__ == "__main__":
    main()
