"""Adapts the built-in model to the built-in task with Hugging Face PEFT, and measures what that changes.

    python check_assets.py prompt-tuning            also: p-tuning prefix-tuning p-tuning-v2 bitfit lora full none
    python check_assets.py p-tuning --lr 0.01 --steps 300

Printed before and after: the loss per supervised token on test.jsonl, the share of slot values that stand in the
greedy completions, the share of completions equal to the reference, and BLEU. compare.py trains with this file's code
too, and has the program score the result.
"""

import argparse
import json
import math
import random
import re
import time
from collections import Counter
from pathlib import Path

import peft
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, get_linear_schedule_with_warmup

HERE = Path(__file__).parent
COMMON = {"task_type": "CAUSAL_LM"}
PROMPT = COMMON | {"num_virtual_tokens": 20}
# Method: its PEFT configuration, and a learning rate that suits it on this model. Those of LoRA and full fine-tuning come
# from `compare.py --search`.
METHODS = {
    "prompt-tuning": (lambda: peft.PromptTuningConfig(prompt_tuning_init="SAMPLE_VOCAB", **PROMPT), 0.3),
    "p-tuning": (lambda: peft.PromptEncoderConfig(encoder_hidden_size=256, **PROMPT), 3e-3),
    "prefix-tuning": (lambda: peft.PrefixTuningConfig(prefix_projection=True, encoder_hidden_size=256, **PROMPT), 3e-3),
    "p-tuning-v2": (lambda: peft.PrefixTuningConfig(**PROMPT), 3e-2),
    "bitfit": (lambda: peft.BeftConfig(target_modules=["q_proj", "k_proj", "v_proj"], **COMMON), 1e-2),
    "lora": (lambda: peft.LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], **COMMON), 1e-2),
    "full": (None, 3e-4),
    "none": (None, 0.0),
}


class Task:
    """The model and the rows of a folder such as this one."""

    def __init__(self, folder):
        self.folder = folder
        self.tokenizer = AutoTokenizer.from_pretrained(folder / "model")
        self.end = self.tokenizer.eos_token_id
        self.rows = {}
        for part in ("train", "valid", "test"):
            lines = (folder / f"task/{part}.jsonl").read_text(encoding="utf-8").splitlines()
            self.rows[part] = [json.loads(line) for line in lines]

    def batch(self, rows):
        ids, labels = [], []
        for row in rows:
            prompt = self.tokenizer(row["prompt"])["input_ids"]
            completion = self.tokenizer(row["completion"])["input_ids"] + [self.end]
            ids.append(prompt + completion)
            labels.append([-100] * len(prompt) + completion)
        width = max(map(len, ids))
        return {
            "input_ids": torch.tensor([row + [self.end] * (width - len(row)) for row in ids]),
            "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids]),
            "labels": torch.tensor([row + [-100] * (width - len(row)) for row in labels]),
        }

    def model(self):
        return AutoModelForCausalLM.from_pretrained(self.folder / "model", dtype=torch.float32)

    @torch.no_grad()
    def loss(self, model, part):
        """Mean over all supervised tokens."""
        model.eval()
        total = tokens = 0
        for start in range(0, len(self.rows[part]), 50):
            batch = self.batch(self.rows[part][start : start + 50])
            supervised = int((batch["labels"] >= 0).sum())
            total, tokens = total + model(**batch).loss.item() * supervised, tokens + supervised
        return total / tokens

    @torch.no_grad()
    def measure(self, model, title, count, show=3):
        loss = self.loss(model, "test")
        texts, found, names = [], [], []
        rows = self.rows["test"][:count]
        for row in rows:
            ids = self.tokenizer(row["prompt"], return_tensors="pt")
            made = model.generate(**ids, max_new_tokens=80, eos_token_id=self.end, pad_token_id=self.end)[0]
            texts.append(self.tokenizer.decode(made[ids["input_ids"].shape[1] :], skip_special_tokens=True))
            values = [slot.split(": ", 1)[1] for slot in row["prompt"].strip().split(" | ")]
            told = [bool(re.search(rf"\b{re.escape(value)}\b", texts[-1])) for value in values]
            found, names = found + told, names + told[:1]
        references = [row["completion"] for row in rows]
        exact = sum(text == reference for text, reference in zip(texts, references)) / len(rows)
        print(
            f"{title}: loss {loss:.3f}, slots told {sum(found) / len(found):.1%}, "
            f"names {sum(names) / len(names):.1%}, exact {exact:.1%}, BLEU {bleu(texts, references):.1f}"
        )
        for row, text in list(zip(rows, texts))[:show]:
            print(f"  {row['prompt']!r}\n    {text!r}", flush=True)


def bleu(texts, references):
    """Corpus BLEU-4 over words and punctuation."""
    split = re.compile(r"\w+|[^\w\s]").findall
    matched, possible, lengths = [0] * 4, [0] * 4, [0, 0]
    for text, reference in zip(map(split, texts), map(split, references)):
        lengths = [lengths[0] + len(text), lengths[1] + len(reference)]
        for n in range(4):
            a, b = (Counter(tuple(w[i : i + n + 1]) for i in range(len(w) - n)) for w in (text, reference))
            matched[n], possible[n] = matched[n] + sum((a & b).values()), possible[n] + sum(a.values())
    if not all(matched):
        return 0.0
    mean = sum(math.log(m / p) for m, p in zip(matched, possible)) / 4
    return 100 * math.exp(mean + min(0, 1 - lengths[1] / lengths[0]))


def adapt(task, method, steps, lr=None, batch_size=16, seed=0):
    """The model, trained by one of METHODS; without a rate, at the method's own."""
    torch.manual_seed(seed)
    model = task.model()
    config, own_lr = METHODS[method]
    if config:
        model = peft.get_peft_model(model, config())
        model.print_trainable_parameters()
    train(model, task, steps, lr or own_lr, batch_size, seed)
    return model


def train(model, task, steps, lr, batch_size, seed):
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0)
    schedule = get_linear_schedule_with_warmup(optimizer, math.ceil(steps * 0.05), steps)
    order, times, mean = [], [], None
    for step in range(1, steps + 1):
        if len(order) < batch_size:
            order = random.Random(seed + step).sample(task.rows["train"], len(task.rows["train"]))
        batch = task.batch([order.pop() for _ in range(batch_size)])
        start = time.time()
        model.train()
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        times.append(time.time() - start)
        mean = loss.item() if mean is None else 0.95 * mean + 0.05 * loss.item()
        if step in (1, 10, 25, 50) or step % 100 == 0:
            print(f"  step {step:4}  loss {mean:.3f}  {sorted(times)[len(times) // 2]:.3f} s/step", flush=True)
    print(f"  {sum(times):.0f} s in steps")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("method", choices=METHODS)
    arguments.add_argument("--assets", type=Path, default=HERE)
    arguments.add_argument("--lr", type=float)
    arguments.add_argument("--steps", type=int, default=400)
    arguments.add_argument("--batch", type=int, default=16)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--rows", type=int, default=200, help="test rows to complete")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--tune-only", action="store_true", help="do not measure the base first")
    arguments = arguments.parse_args()
    torch.set_num_threads(arguments.threads)
    task = Task(arguments.assets)
    if not arguments.tune_only:
        task.measure(task.model(), "base", arguments.rows)
    if arguments.method != "none":
        model = adapt(task, arguments.method, arguments.steps, arguments.lr, arguments.batch, arguments.seed)
        task.measure(model, arguments.method, arguments.rows)


if __name__ == "__main__":
    main()
