"""Makes the tasks for heads over the built-in model: python make_tasks.py [--out DIR].

Rows to classify, to tag and to answer, in `task/seq-cls`, `task/token-cls` and `task/qa`, from the material of
`world.toml`.

What is unusual, and why:

* A linear probe of the frozen model must not solve them. The last layer's state at a token tells what comes next, and what
  the token is in its own sentence can be read from it all the same: a probe tags the values of a description by their kind with
  an F1 of 0.99. Nor is a question about a card a task where the text ends in the "A:" of pre-training: the model then
  holds the answer ready, and a probe is right in 98 % of the rows. So each task joins two things that stand apart: a question
  or an order, and the value it asks for.
* An adapter must learn them in a few hundred steps from 800 rows. With two places in a text, of which one is asked for, P-Tuning
  v2 was no better than the probe after 300 steps, so each text is about one place.
* All names of places in the test rows are of the kind that occurs neither in pre-training nor in the other rows.
"""

import argparse
import json
import re
from pathlib import Path

import world
from world import PLACE, describe, name, record, voice

HERE = Path(__file__).parent
SIZES = {"train": 800, "valid": 100, "test": 200}
rng = world.rng


def long_card(test):
    """A card of at least five slots, in any order."""
    while True:
        card = record(PLACE, test)
        if "eatType" in card and len(card) >= 5:
            return card


# --- questions ----------------------------------------------------------------------------------------------------

QUESTIONS = {
    "eatType": ["What kind of place is this?", "What is it?"],
    "food": ["What food does it serve?", "Which dishes are there?"],
    "priceRange": ["How are the prices?", "What does one pay?"],
    "customer rating": ["What is its rating?", "How do guests rate it?"],
    "area": ["In which part of town is it?", "Where is it?"],
    "familyFriendly": ["Who is welcome?", "Is it for children?"],
    "near": ["What is it near to?", "What is its neighbour?"],
}


def qa(test):
    """A description of a place, and a question about one of its slots."""
    while True:
        card = long_card(test)
        context = describe(card, voice(PLACE))
        key = rng.choice([key for key in card if key != "name"])
        if context.count(card[key]) == 1:
            break
    answers = {"text": [card[key]], "answer_start": [context.index(card[key])]}
    return {"context": context, "question": rng.choice(QUESTIONS[key]), "answers": answers}


# --- tags ---------------------------------------------------------------------------------------------------------

# Types of entities, and the word that asks for each.
TYPES = {
    "name": ("NAME", "name"),
    "eatType": ("KIND", "kind"),
    "food": ("FOOD", "food"),
    "priceRange": ("PRICE", "price"),
    "customer rating": ("RATING", "rating"),
    "area": ("AREA", "area"),
    "familyFriendly": ("GUESTS", "guests"),
    "near": ("NEAR", "near"),
}


def words(text, values):
    """Words, and their tags in BIO; `values` are pieces of the text, and the type of each."""
    begins = {text.index(value): (value, kind) for value, kind in values}
    tokens, tags, kind, end = [], [], None, 0
    for word in re.finditer(r"\w+|[^\w\s]", text):
        tokens.append(word[0])
        if word.start() in begins:
            value, kind = begins[word.start()]
            end = word.start() + len(value)
            tags.append(f"B-{kind}")
        else:
            tags.append(f"I-{kind}" if word.start() < end else "O")
    return tokens, tags


def token_cls(test):
    """An order with two types, and a description, of whose values only those of the two types have tags."""
    card = long_card(test)
    asked = rng.sample(list(card), 2)
    tokens, tags = words(describe(card, voice(PLACE)), [(card[key], TYPES[key][0]) for key in asked])
    order = [TYPES[asked[0]][1], "and", TYPES[asked[1]][1], ":"]
    return {"tokens": order + tokens, "tags": ["O"] * len(order) + tags}


# --- classes ------------------------------------------------------------------------------------------------------

# What can be asked of a place, and the values that mean yes and no.
ASKED = {
    "priceRange": (
        ["Are prices low?", "Is the bill small?"],
        ["cheap", "low", "fair"],
        ["moderate", "high", "steep"],
    ),
    "customer rating": (
        ["Do guests like it?", "Is the rating good?"],
        ["4 out of 5", "5 out of 5", "good", "excellent"],
        ["1 out of 5", "2 out of 5", "poor", "average"],
    ),
    "familyFriendly": (
        ["Is it family friendly?", "Is there a table for a child?"],
        ["family friendly", "child friendly"],
        ["adults only"],
    ),
}


def seq_cls(test):
    """A card and a question whose answer is yes or no."""
    card = {"name": name(test)}
    for key in rng.sample(["eatType", *ASKED], 4):
        card[key] = rng.choice(rng.choice(ASKED[key][1:]) if key in ASKED else PLACE[key]["values"])
    key = rng.choice(list(ASKED))
    questions, yes, _ = ASKED[key]
    text = " | ".join(f"{slot}: {value}" for slot, value in card.items()) + "\n" + rng.choice(questions)
    return {"text": text, "label": "yes" if card[key] in yes else "no"}


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--out", type=Path, default=HERE)
    out = arguments.parse_args().out / "task"
    rng.seed(21)
    for task, row in (("seq-cls", seq_cls), ("token-cls", token_cls), ("qa", qa)):
        (out / task).mkdir(parents=True, exist_ok=True)
        seen = set()
        for part, size in SIZES.items():
            lines = []
            while len(lines) < size:
                line = json.dumps(row(test=part == "test"), separators=(",", ":"))
                if line not in seen:
                    seen.add(line)
                    lines.append(line)
            (out / task / f"{part}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
