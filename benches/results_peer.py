"""One run of results.py with transformers and PEFT: trains on one file, scores another, prints one JSON object.

    python benches/results_peer.py --model DIR --kind qa --method lora --rate 3e-3 --train F --test F --save DIR

What is the same for all: rows in the order of the file, once; AdamW without weight decay, a linear schedule to 0 without
warm-up, gradients clipped at 1; f32 for what trains. --dtype bf16 is the type of a frozen base; full fine-tuning then
computes in bf16 by autocast.

PEFT's prompts are used as a careful user of PEFT has to. PEFT moves neither the labels of tags nor the spans of answers
behind a prompt and refuses prefixes on Qwen2's class for questions, and with a prompt transformers pools a padding
position of every shorter row. So the model is PEFT's for FEATURE_EXTRACTION, on the model without a head. Rows are padded
on the right, the states of the virtual tokens are dropped, and the head is a linear layer on the states of the row's own
tokens: of its last one for classification. It starts as transformers' heads do. Every row then has the logits that it has
alone.

Texts are learned by PEFT's CAUSAL_LM, which has none of this. That run is not scored here: --save gets the adapter, or
the merged checkpoint, for the program.

The tokenizer is read from tokenizer.json itself: transformers 5 puts Qwen2's own splitting rule in the place of the
file's.
"""

import argparse
import collections
import contextlib
import json
import re
import shutil
import string
import sys
import time
from pathlib import Path

import peft
import torch
from seqeval.metrics import f1_score, precision_score, recall_score
from sklearn import metrics
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedTokenizerFast, get_linear_schedule_with_warmup

IGNORED = -100
TOKENS = 20
# transformers' `initializer_range`, by which its heads start.
SPREAD = 0.02
# Tokens of the longest answer that is looked for, as in transformers' example.
LONGEST_ANSWER = 30
CONFIGS = {
    "full": None,
    "lora": lambda: peft.LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"]),
    "peft-prompt": lambda: peft.PromptTuningConfig(num_virtual_tokens=TOKENS),
    "peft-prompt-best": lambda: peft.PromptTuningConfig(num_virtual_tokens=TOKENS, prompt_tuning_init="SAMPLE_VOCAB"),
    "peft-p-tuning": lambda: peft.PromptEncoderConfig(num_virtual_tokens=TOKENS),
    "peft-p-tuning-best": lambda: peft.PromptEncoderConfig(num_virtual_tokens=TOKENS),
    "peft-prefix": lambda: peft.PrefixTuningConfig(num_virtual_tokens=TOKENS),
    # It starts as keys and values of a text: in PEFT's comparison the best start.
    "peft-prefix-best": lambda: peft.PrefixTuningConfig(num_virtual_tokens=TOKENS),
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--kind", choices=["seq-cls", "token-cls", "qa", "causal-lm"], required=True)
    parser.add_argument("--method", choices=CONFIGS, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--head-rate", type=float, help="of the head (default: --rate)")
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--save", type=Path, required=True, help="folder for an adapter or a checkpoint of causal-lm")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--threads", type=int)
    return parser.parse_args()


class Rows:
    """The rows of a file as token ids with what is to be learned of them."""

    def __init__(self, path, tokenizer, names):
        self.tokenizer, self.names = tokenizer, names
        lines = path.read_text(encoding="utf-8").splitlines()
        self.rows = [json.loads(line) for line in lines]

    def ids(self, text):
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def example(self, row):
        """Token ids and their target."""
        if "label" in row:
            return self.ids(row["text"]), self.names.index(row["label"])
        if "tags" in row:
            # The first piece of a word has its tag.
            words = [self.ids(" " + word) for word in row["tokens"]]
            tags = [[self.names.index(tag)] + [IGNORED] * (len(ids) - 1) for ids, tag in zip(words, row["tags"])]
            return sum(words, []), sum(tags, [])
        if "answers" in row:
            return self.question(row)
        prompt, completion = self.ids(row["prompt"]), self.ids(row["completion"]) + [self.tokenizer.eos_token_id]
        return prompt + completion, [IGNORED] * len(prompt) + completion

    def question(self, row):
        """Target: first and last token of the answer."""
        question, spans, answers = self.ids(row["question"]), self.spans(row), row["answers"]
        start = answers["answer_start"][0]
        end = start + len(answers["text"][0])
        inside = [place for place, (low, high) in enumerate(spans) if high > start and low < end]
        return question + self.ids(row["context"]), (len(question) + inside[0], len(question) + inside[-1])

    def spans(self, row):
        return self.tokenizer(row["context"], add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]

    def batches(self, size):
        """Rows, ids and mask [batch, width], targets."""
        for start in range(0, len(self.rows), size):
            rows = self.rows[start : start + size]
            ids, targets = zip(*map(self.example, rows))
            lengths = torch.tensor([len(row) for row in ids])
            padded = torch.tensor([row + [0] * (int(lengths.max()) - len(row)) for row in ids])
            yield rows, padded, torch.arange(int(lengths.max())) < lengths[:, None], targets


class WithHead(torch.nn.Module):
    """Logits: [batch, classes] of rows, [batch, width, classes] of tokens."""

    def __init__(self, base, kind, classes):
        super().__init__()
        self.base, self.of_rows = base, kind == "seq-cls"
        self.score = torch.nn.Linear(base.config.hidden_size, classes, bias=not self.of_rows)
        torch.nn.init.normal_(self.score.weight, std=SPREAD)
        if not self.of_rows:
            torch.nn.init.zeros_(self.score.bias)

    def forward(self, ids, mask):
        states = self.base(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        states = states[:, -ids.shape[1] :].float()  # without those of a prompt
        if self.of_rows:
            states = states[torch.arange(len(ids)), mask.sum(1) - 1]
        return self.score(states)


def flat(targets, width):
    return torch.tensor([row + [IGNORED] * (width - len(row)) for row in targets]).flatten()


def loss_of(model, kind, ids, mask, targets):
    if kind == "causal-lm":
        labels = flat(targets, ids.shape[1]).view_as(ids)
        return model(input_ids=ids, attention_mask=mask.long(), labels=labels).loss
    logits, cross_entropy = model(ids, mask), torch.nn.functional.cross_entropy
    if kind == "seq-cls":
        return cross_entropy(logits, torch.tensor(targets))
    if kind == "token-cls":
        return cross_entropy(logits.flatten(0, 1), flat(targets, ids.shape[1]))
    logits = logits.masked_fill(~mask[:, :, None], -torch.inf)
    return sum(cross_entropy(logits[:, :, end], torch.tensor(targets)[:, end]) for end in (0, 1)) / 2


def train(model, rows, options, precision):
    """Trains, and returns tokens a second."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    head = list(model.score.parameters()) if isinstance(model, WithHead) else []
    others = [parameter for parameter in parameters if all(parameter is not one for one in head)]
    groups = [{"params": others}, {"params": head, "lr": options.head_rate or options.rate}]
    optimizer = torch.optim.AdamW(groups, lr=options.rate, weight_decay=0.0)
    batches = list(rows.batches(options.batch_size))
    schedule = get_linear_schedule_with_warmup(optimizer, 0, len(batches))
    model.train()
    tokens, started = 0, time.perf_counter()
    for step, (_, ids, mask, targets) in enumerate(batches, 1):
        with precision():
            loss = loss_of(model, options.kind, ids, mask, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        tokens += int(mask.sum())
        print(f"step {step}/{len(batches)}  loss {loss.item():.4f}", file=sys.stderr, flush=True)
    return tokens / (time.perf_counter() - started)


@torch.no_grad()
def predictions(model, rows, size, precision):
    """Of each row: a class; the tags of its words; the text of an answer."""
    model.eval()
    for found, ids, mask, targets in rows.batches(size):
        with precision():
            logits = model(ids, mask)
        for row, row_logits, target in zip(found, logits, targets):
            if "label" in row:
                yield rows.names[row_logits.argmax()]
            elif "tags" in row:
                yield [rows.names[scores.argmax()] for scores, tag in zip(row_logits, target) if tag != IGNORED]
            else:
                spans = rows.spans(row)
                first = len(rows.example(row)[0]) - len(spans)
                start, end = best_span(row_logits[first : first + len(spans)])
                yield row["context"][spans[start][0] : spans[end][1]].strip()


def best_span(logits):
    """The pair with the greatest sum of start and end, the end not before the start and not too far behind it."""
    sums = logits[:, 0, None] + logits[None, :, 1]
    allowed = torch.ones_like(sums, dtype=torch.bool).triu().tril(LONGEST_ANSWER - 1)
    return divmod(int(sums.masked_fill(~allowed, -torch.inf).argmax()), len(logits))


def scores_of(kind, rows, predicted):
    if kind == "seq-cls":
        expected = [row["label"] for row in rows]
        accuracy = metrics.accuracy_score(expected, predicted)
        return {"accuracy": accuracy, "f1_macro": metrics.f1_score(expected, predicted, average="macro")}
    if kind == "token-cls":
        expected = [row["tags"] for row in rows]
        scores = {"precision": precision_score, "recall": recall_score, "f1": f1_score}
        return {name: float(score(expected, predicted, zero_division=0)) for name, score in scores.items()}
    found = [[squad(text, answer) for answer in row["answers"]["text"]] for row, text in zip(rows, predicted)]
    exact, f1 = (sum(max(scores[of] for scores in row) for row in found) / len(rows) for of in (0, 1))
    return {"exact_match": exact, "f1": f1}


def squad(text, answer):
    """SQuAD's exact match and F1 of an answer."""

    def words(text):
        text = "".join(letter for letter in text.lower() if letter not in string.punctuation)
        return re.sub(r"\b(a|an|the)\b", " ", text).split()

    ours, theirs = words(text), words(answer)
    same = sum((collections.Counter(ours) & collections.Counter(theirs)).values())
    return float(ours == theirs), 2 * same / (len(ours) + len(theirs)) if same else 0.0


def adapted(options, tokenizer):
    """The model with what is trained of it."""
    config, text = CONFIGS[options.method], options.kind == "causal-lm"
    low = options.dtype == "bf16" and config
    model = (AutoModelForCausalLM if text else AutoModel).from_pretrained(
        options.model, dtype=torch.bfloat16 if low else torch.float32
    )
    if not config:
        return model
    config = config()
    config.task_type = "CAUSAL_LM" if text else "FEATURE_EXTRACTION"
    if options.method != "peft-prefix-best":
        return peft.get_peft_model(model, config)
    # As initialize_kv_prefix_from_text does, which fails where the model has no head.
    with torch.no_grad(), options.train.open(encoding="utf-8") as lines:
        ids = tokenizer("".join(line for line, _ in zip(lines, range(TOKENS))), return_tensors="pt")["input_ids"]
        cache = model(input_ids=ids[:, :TOKENS], use_cache=True).past_key_values
    model = peft.get_peft_model(model, config)
    peft.initialize_kv_prefix_from_past_key_values(model, past_key_values=cache)
    return model


def main():
    options = arguments()
    torch.manual_seed(options.seed)
    if options.threads:
        torch.set_num_threads(options.threads)
    special = json.loads((options.model / "tokenizer_config.json").read_text(encoding="utf-8"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(options.model / "tokenizer.json"), eos_token=special["eos_token"]
    )
    train_rows = Rows(options.train, tokenizer, [])
    found = train_rows.rows
    train_rows.names = sorted({name for row in found for name in row.get("tags", [row.get("label")]) if name})
    model = adapted(options, tokenizer)
    if options.kind != "causal-lm":
        model = WithHead(model, options.kind, len(train_rows.names) or 2)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    full = options.dtype == "bf16" and not CONFIGS[options.method]
    precision = (lambda: torch.autocast("cpu", torch.bfloat16)) if full else contextlib.nullcontext
    speed = train(model, train_rows, options, precision)
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    made = {"tokens_per_second": speed, "trainable_params": trainable}
    if options.kind == "causal-lm":
        save(model, options)
    else:
        rows = Rows(options.test, tokenizer, train_rows.names)
        predicted = list(predictions(model, rows, options.batch_size, precision))
        made["scores"] = scores_of(options.kind, rows.rows, predicted)
    print(json.dumps(made))


def save(model, options):
    if options.method not in ("lora", "full"):
        return model.save_pretrained(options.save / "adapter")
    merged = options.save / "merged"
    shutil.copytree(options.model, merged, ignore=shutil.ignore_patterns("*.safetensors*", "*.bin"))
    model = model.merge_and_unload() if options.method == "lora" else model
    model.save_pretrained(merged)


if __name__ == "__main__":
    main()
