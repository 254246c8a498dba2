"""The rows of results.py: the same for the program and its peers, cut to a number of tokens beforehand.

The end of a text is cut off, and of a context all but a stretch in which the answer stands anywhere. A prompt and its
completion are left out where they do not fit. A training file has every label of its task, and a test file no other.
"""

import itertools
import json
import random

from tokenizers import Tokenizer

# The key of the rows that shows a kind of task.
KEYS = {"seq-cls": "label", "token-cls": "tags", "qa": "answers", "causal-lm": "completion"}
# The columns of each kind: of a score, its heading, decimals and factor.
COLUMNS = {
    "seq-cls": {"accuracy": ("accuracy, %", 1, 100)},
    "token-cls": {"f1": ("span F1, %", 1, 100)},
    "qa": {"f1": ("F1, %", 1, 100), "exact_match": ("exact, %", 1, 100)},
    "causal-lm": {"loss": ("loss", 3, 1), "bleu": ("BLEU", 3, 1)},
}
# Room for what the program puts between the parts of a row, and for the eos.
MARGIN = 4


class Task:
    """A folder of rows, and the files that runs are made of."""

    def __init__(self, options, name):
        self.options, self.name, self.source = options, name, options.data / name
        first = json.loads((self.source / "test.jsonl").read_text(encoding="utf-8").partition("\n")[0])
        self.kind = next(kind for kind, key in KEYS.items() if key in first)

    def rows(self, part):
        lines = (self.source / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def fitted(self, rows, count, chance):
        """The first rows that are not None when they are cut."""
        tokenizer = Tokenizer.from_file(str(self.options.model / "tokenizer.json"))
        cut = (fitted(row, tokenizer, self.options.length - MARGIN, chance) for row in rows)
        return list(itertools.islice((row for row in cut if row), count))

    def train(self, seed):
        """Rows of one epoch: one for each label, then others, mixed; from the start again if there are too few."""

        def make():
            chance = random.Random(f"{self.name} {seed}")
            rows, wanted = self.rows("train"), self.options.steps * self.options.batch_size
            chance.shuffle(rows)
            seen, first, others = set(), [], []
            for row in rows:
                new = labels(row) - seen
                seen |= new
                (first if new else others).append(row)
            chosen = self.fitted(first + others, wanted, chance)
            chosen = list(itertools.islice(itertools.cycle(chosen), wanted))
            chance.shuffle(chosen)
            return chosen

        return self.file(f"train-{seed}", make)

    def held_out(self):
        """The first rows, without those that have a label of which no row is to learn from."""
        part = self.options.part

        def make():
            known = set().union(*map(labels, self.rows("train")))
            rows = (row for row in self.rows(part) if labels(row) <= known)
            return self.fitted(rows, self.options.rows, random.Random(f"{self.name} {part}"))

        return self.file(part, make)

    def file(self, name, make):
        path = self.options.work / f"{self.name}-{name}.jsonl"
        if not path.exists():
            lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in make()]
            path.write_text("".join(lines), encoding="utf-8")
        return path


def labels(row):
    return set(row["tags"]) if "tags" in row else {row["label"]} if "label" in row else set()


def fitted(row, tokenizer, room, chance):
    """The row, cut to so many tokens; None if nothing to learn would be left."""
    spans = lambda text: tokenizer.encode(text, add_special_tokens=False).offsets
    if "label" in row:
        return row | {"text": row["text"][: [end for _, end in spans(row["text"])][:room][-1]]}
    if "tags" in row:
        ends = itertools.accumulate(len(spans(" " + word)) for word in row["tokens"])
        count = sum(end <= room for end in ends)
        return {"tokens": row["tokens"][:count], "tags": row["tags"][:count]} if count else None
    if "context" in row:
        return around_the_answer(row, spans(row["context"]), room - len(spans(row["question"])), chance)
    return row if len(spans(row["prompt"]) + spans(row["completion"])) <= room else None


def around_the_answer(row, spans, room, chance):
    """The context cut to a stretch of words with the first answer at a random place in it."""
    context, answers = row["context"], row["answers"]
    if len(spans) <= room:
        return row
    if not answers["text"]:
        return None
    low = answers["answer_start"][0]
    high = low + len(answers["text"][0])
    inside = [place for place, (start, end) in enumerate(spans) if end > low and start < high]
    if inside[-1] - inside[0] >= room:
        return None
    first = chance.randint(max(0, inside[-1] + 1 - room), min(inside[0], len(spans) - room))
    start, end = spans[first][0], spans[first + room - 1][1]
    if start > 0:
        start = min(low, context.find(" ", start) + 1)
    if end < len(context):
        end = max(high, context.rfind(" ", 0, end))
    kept = [(text, at - start) for text, at in zip(answers["text"], answers["answer_start"])]
    kept = [(text, at) for text, at in kept if at >= 0 and start + at + len(text) <= end]
    texts, places = (list(column) for column in zip(*kept))
    answers = {"text": texts, "answer_start": places}
    return {"context": context[start:end], "question": row["question"], "answers": answers}
