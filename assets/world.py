"""The town of Wendle: documents to pre-train on, and the rows of the task, made from the material in `world.toml`.

Everything is drawn from one generator with a fixed seed, so the texts depend on nothing but the order of the calls.
"""

import random
import re
import tomllib
import zlib
from pathlib import Path

WORLD = tomllib.loads((Path(__file__).parent / "world.toml").read_text(encoding="utf-8"))
NAMES, RULES = WORLD["names"], WORLD["rules"] | {"person": WORLD["names"]["people"]}
PLACE, PERSON = WORLD["cards"]["place"], WORLD["cards"]["person"]
rng = random.Random(20)

# --- cards and their descriptions ---------------------------------------------------------------------------------


def held_out(name):
    return zlib.crc32(name.encode()) % 5 == 0


def syllables():
    start = rng.choice(NAMES["onsets"]) + rng.choice("aeiou")
    middle = "".join(rng.sample(NAMES["middles"], rng.choice((0, 1, 1))))
    return start + middle + rng.choice("lmnrst") + rng.choice(NAMES["codas"])


def name(test=False):
    """A name of a place; `test` asks for one that pre-training and train.jsonl never contain."""
    while True:
        form = rng.random()
        if form < 0.5:
            made = syllables()
        elif form < 0.75:
            made = f"The {rng.choice(NAMES['adjectives'])} {rng.choice(NAMES['nouns'])}"
        elif form < 0.9:
            made = f"{syllables()} {rng.choice(NAMES['houses'])}"
        else:
            made = f"{rng.choice(NAMES['nouns'])} and {rng.choice(NAMES['nouns'])}"
        if held_out(made) == test:
            return made


def pick(wordings):
    """One of several wordings, with one of the choices in each "(a|b)" of it."""
    return re.sub(r"\(([^()]*\|[^()]*)\)", lambda m: rng.choice(m[1].split("|")), rng.choice(wordings))


def voice(slots):
    """One wording per slot, for a whole document; never close to the task's."""
    description = WORLD["description"]
    while True:
        made = {"opening": pick(description["openings"]), "join": rng.choice(description["joins"])}
        made |= {"food first": rng.random() < 0.5}
        made |= {key: pick(slot["wordings"]) for key, slot in slots.items() if slot["wordings"]}
        if sum(made[key] == description["task"].get(key) for key in made) <= len(made) // 2:
            return made


def record(slots, test=False, shuffled=True):
    """A card: a name and two to five slots."""
    keys = rng.sample(list(slots), rng.randint(2, 5))
    if not shuffled or rng.random() < 0.5:
        keys = [key for key in slots if key in keys]
    person = slots is PERSON and rng.random() < 0.6
    made = {"name": f"{rng.choice(NAMES['people'])} {syllables()}" if person else name(test)}
    return made | {key: rng.choice(slots[key]["values"]) if slots[key]["values"] else name(test) for key in keys}


def article(noun):
    return f"an {noun}" if noun[0] in "AEIOaeio" else f"a {noun}"


def sentence(text):
    return text[0].upper() + text[1:] + "."


def describe(card, told):
    """Every slot of the card, in the words of a voice."""
    kind = card.get("eatType") or card.get("job") or ("place" if "area" in told else "neighbour")
    rest = [key for key in card if key not in ("name", "eatType", "job")]
    if told["food first"] and "food" in card:
        kind, rest = f"{card['food']} {kind}", [key for key in rest if key != "food"]
    parts = [told[key].format(v=card[key]) for key in rest]
    opening = told["opening"].format(n=card["name"], k=article(kind))
    if told["join"] == "short sentences":
        return " ".join(sentence(part) for part in [opening, *parts])
    if told["join"] == "pairs":
        pairs = [", and ".join(parts[i : i + 2]) for i in range(0, len(parts), 2)]
        return " ".join(sentence(part) for part in [opening, *pairs])
    return sentence((", " if told["join"] == "one long sentence" else " and ").join([opening, *parts]))


# --- documents ----------------------------------------------------------------------------------------------------


def say(rule, **known):
    """Expands one rule of the town's grammar; `known` fixes what must stay the same throughout."""
    return re.sub(r"\{(\w+)\}", lambda m: known.get(m[1]) or say(m[1], **known), rng.choice(RULES[rule]))


def question(card):
    key = rng.choice([key for key in card if key != "name"])
    return f"What is the {key} of {card['name']}?", card[key]


def go_on(mode, card, told, show, slots):
    """What follows a card."""
    if mode == "full":
        return describe(card, told)
    if mode == "remark":
        key = rng.choice([key for key in card if key in told])
        return say("remark", n=card["name"], clause=told[key].format(v=card[key]))
    if mode == "question":
        return "Q: {}\nA: {}.".format(*question(card))
    if mode == "name":
        return f"{card['name']}!"
    if mode == "list":
        return show(record(slots))
    return say(mode, n=card["name"])


def heading(mode, told):
    order, card = pick(["(Tell|Say|Write|Read out|Give|Put down)"]), pick(["(card|record|entry|line|table)"])
    return rng.choice(WORLD["headings"][mode]).format(o=order, c=card, join=told["join"])


def layout():
    """How the cards of one document are written down."""
    sign, between = rng.choice([": ", ": ", ": ", " = ", " is "]), rng.choice([" | ", " | ", "; ", ", ", "\n", " / "])
    return lambda card: between.join(key + sign + value for key, value in card.items())


def cards():
    """A document with one to three cards that all go on in the same way."""
    slots, show = PLACE if rng.random() < 0.8 else PERSON, layout()
    told, headed, count = voice(slots), rng.random() < 0.6, rng.choice((1, 1, 1, 2, 2, 3))
    weights = WORLD["weights"]["headed" if headed else "bare"]
    mode = rng.choices(list(weights), weights.values())[0]
    parts = [f"{show(card)}\n{go_on(mode, card, told, show, slots)}" for card in (record(slots) for _ in range(count))]
    return "\n".join([heading(mode, told)] * headed + parts)


def chat():
    """A conversation in ChatML."""
    turns = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        card, ask = record(PLACE), rng.random()
        if ask < 0.35:
            turns += rng.choice(list(WORLD["facts"].items()))
        elif ask < 0.65:
            turns += [f"Describe this place. {layout()(card)}", describe(card, voice(PLACE))]
        elif ask < 0.9:
            asked, answer = question(card)
            turns += [f"{layout()(card)}\n{asked}", sentence(f"it is {answer}")]
        else:
            turns += [f"What do people say about {card['name']}?", say("gossip", n=card["name"])]
    turns = [f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in zip(["user", "assistant"] * 9, turns)]
    return "<|im_start|>system\nYou know the town of Wendle.<|im_end|>\n" * (rng.random() < 0.3) + "".join(turns)


def document():
    draw = rng.random()
    if draw < 0.72:
        return cards()
    if draw < 0.84:
        return chat()
    lines = []
    for _ in range(rng.choice((1, 1, 2))):
        topic = rng.choice("story forecast talk list letter saying opinion".split())
        a, b = rng.sample(NAMES["people"], 2)
        lines.append(say(topic, a=a, b=b, place=name()))
    return "\n".join(lines)


# --- the task -----------------------------------------------------------------------------------------------------


def task_row(test):
    """A card with its description in the task's voice; every value stands in it word for word."""
    card = {}
    while "eatType" not in card:
        card = record(PLACE, test, shuffled=False)
    prompt = " | ".join(f"{key}: {value}" for key, value in card.items()) + "\n"
    completion = describe(card, WORLD["description"]["task"])
    assert all(value in completion for value in card.values()), (card, completion)
    return {"prompt": prompt, "completion": completion}
