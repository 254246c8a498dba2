"""Makes the model and the task that are built into `burn-peft`: python make_assets.py [--out DIR] [--tokens N].

It invents a small town, writes texts about it, trains a byte-level BPE tokenizer on them, trains a Qwen2 of
four million parameters from scratch, and writes a table-to-text task which that model is then adapted to.

What is unusual, and why:

* The task must be out of the base model's reach as it stands, and within reach of a soft prompt of a few thousand
  numbers. A soft prompt adds no ability, it selects one. So pre-training teaches one ability for every way in which
  a text can go on after a record ("name: Elmora | area: old town"), and which way is right can only be known from what
  stands *in front of* the record: a heading in one of many wordings, or an earlier record that went the same way.
  Without either, anything may follow, and a full description is one possibility among many.
* A full description has a voice: one wording per slot, an opening, and a manner of joining sentences, drawn afresh
  for each document and kept throughout it, so that the model learns to take up a voice from what stands before. The
  task is written in one voice of its own, which no pre-training document has (see `TASK_VOICE`).
* Values must be copied, unseen names among them. Names are composed of syllables and words, too many to memorise; one in
  five (`held_out`) never occurs in pre-training or in train.jsonl, and the names of test.jsonl are all of that kind.
* Documents are not packed: each row of a batch is one document from position 0 on, as it is when the model is used.
* Matrices are trained with Muon, the rest with AdamW, forward in bfloat16: on two cores that halves the time to the
  same loss. The weights are rounded to bfloat16 before anything is measured.
"""

import argparse
import json
import math
import random
import re
import time
import zlib
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, Qwen2Config, Qwen2ForCausalLM

rng = random.Random(20)

# --- names --------------------------------------------------------------------------------------------------------

ONSETS = "B Br C Cl D Dr F Fl G Gr H J K L M N P Pr R S St T Tr V W".split()
MIDDLES = "ba bri da della dri fo gan ka la lan li lo man mi mo na ni nor pa ra ri ro sa se ta ti tor va ven vi zo".split()
CODAS = "a an ar e el en er i ia in is o on or um us".split()
ADJECTIVES = "Amber Blue Brass Copper Crooked Golden Green Grey Happy Hidden Little Lucky Merry Old Quiet Red Silver Sleepy Velvet Wild".split()
NOUNS = "Acorn Anchor Badger Bell Candle Crown Dolphin Falcon Fox Garden Hare Heron Kettle Lantern Mill Oak Owl Pear Plough Rose Swan Table Thistle Wheel".split()
HOUSES = "House Kitchen Corner Rooms Bar Place".split()
PEOPLE = "Ada Bruno Clara Dario Edith Felix Greta Hugo Ines Jonas Karla Leo Mira Nadia Oskar Paula Ruben Stella Tomas Vera Wanda Yusuf".split()


def held_out(name):
    return zlib.crc32(name.encode()) % 5 == 0


def syllables():
    return rng.choice(ONSETS) + rng.choice("aeiou") + "".join(rng.sample(MIDDLES, rng.choice((0, 1, 1)))) + rng.choice("lmnrst") + rng.choice(CODAS)


def name(test=False):
    """A name of a place; `test` asks for one that pre-training and train.jsonl never contain."""
    while True:
        form = rng.random()
        made = (
            syllables() if form < 0.5
            else f"The {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}" if form < 0.75
            else f"{syllables()} {rng.choice(HOUSES)}" if form < 0.9
            else f"{rng.choice(NOUNS)} and {rng.choice(NOUNS)}"
        )
        if held_out(made) == test:
            return made


# --- records: what can stand on a card, and in which words it can be told -----------------------------------------

AREAS = "city centre, old town, harbour quarter, market quarter, north end, university quarter, mill district, west end, garden suburb, station district, castle quarter, fishing village".split(", ")
PLACE = {
    "eatType": ("restaurant, coffee shop, pub, tea room, bistro, bakery, wine bar, diner, canteen, snack bar, inn".split(", "), []),
    "food": (
        "Italian, French, Indian, Thai, Greek, Turkish, Japanese, Mexican, Polish, Spanish, Chinese, English, Persian, Danish, vegetarian".split(", "),
        ["it serves {v} food", "the food is {v}", "the cook makes {v} dishes", "the kitchen is {v}", "one eats {v} dishes there", "the menu is {v}"],
    ),
    "priceRange": (
        "cheap, low, moderate, fair, high, steep".split(", "),
        ["prices are {v}", "the bill is {v}", "it has {v} prices", "what you pay is {v}", "expect {v} prices", "it asks {v} prices"],
    ),
    "customer rating": (
        "1 out of 5, 2 out of 5, 3 out of 5, 4 out of 5, 5 out of 5, poor, average, good, excellent".split(", "),
        ["guests rate it {v}", "its customer rating is {v}", "customers call it {v}", "it is rated {v}", "the rating is {v}", "its score is {v}"],
    ),
    "area": (AREAS, ["it is in the {v}", "you find it in the {v}", "its home is the {v}", "it stands in the {v}", "look for it in the {v}", "the way there leads to the {v}"]),
    "familyFriendly": (
        "family friendly, child friendly, adults only".split(", "),
        ["it is {v}", "the house is {v}", "the owners keep it {v}", "the sign says {v}", "the tables are {v}", "they call it {v}"],
    ),
    "near": (name, ["it is near {v}", "its neighbour is {v}", "it is a short walk from {v}", "close by is {v}", "it lies next to {v}", "it is not far from {v}"]),
}
PERSON = {
    "job": ("baker, teacher, sailor, painter, nurse, clerk, gardener, cook, doctor, carpenter, singer, postman".split(", "), []),
    "age": ([str(n) for n in range(18, 91)], ["the age is {v}", "the years are {v}"]),
    "street": ("Mill Lane, Rose Street, Harbour Road, Church Lane, Bridge Street, Long Row, Well Lane".split(", "), ["home is {v}", "the house is in {v}", "the address is {v}"]),
    "pet": ("cat, dog, parrot, goat, tortoise, pony, rabbit, canary".split(", "), ["at home waits a {v}", "the pet is a {v}", "there is a {v} as well"]),
    "likes": ("chess, fishing, poems, football, old maps, dancing, cards, long walks, gardens, music".split(", "), ["the great love is {v}", "free hours go to {v}", "what counts is {v}"]),
    "eats at": (name, ["lunch is at {v}", "the usual table is at {v}", "one meets them at {v}"]),
}
OPENINGS = ["{n} is {k}", "there is {k} called {n}", "meet {n}, {k}", "people know {n} as {k}", "our town has {k}, {n}", "{n} calls itself {k}", "{k} you may not know is {n}", "here is {n}, {k}"]
JOINS = ["short sentences", "pairs", "one long sentence", "the longest way"]

# The task's voice. "area", "near" and "familyFriendly" are in words that pre-training never puts together; the other
# choices all occur there, but never more than half of them in one document.
TASK_VOICE = {
    "opening": "there is {k} called {n}", "join": "pairs", "food": "it serves {v} food", "priceRange": "expect {v} prices",
    "customer rating": "guests rate it {v}", "area": "you find it in the {v}", "familyFriendly": "the owners keep it {v}",
    "near": "it is a short walk from {v}", "food first": True,
}


def voice(slots):
    """One wording per slot, for a whole document; never close to the task's."""
    while True:
        made = {"opening": rng.choice(OPENINGS), "join": rng.choice(JOINS), "food first": rng.random() < 0.5}
        made |= {key: rng.choice(wordings) for key, (_, wordings) in slots.items() if wordings}
        if sum(made[key] == TASK_VOICE.get(key) for key in made) <= len(made) // 2:
            return made


def record(slots, least=3, most=6, shuffled=True, test=False):
    """A card: its name, and some of the slots."""
    keys = rng.sample(list(slots), rng.randint(least, min(most, len(slots) + 1)) - 1)
    if not shuffled or rng.random() < 0.5:
        keys = [key for key in slots if key in keys]
    person = slots is PERSON and rng.random() < 0.6
    made = {"name": f"{rng.choice(PEOPLE)} {syllables()}" if person else name(test)}
    for key in keys:
        values = slots[key][0]
        made[key] = values(test) if callable(values) else rng.choice(values)
    return made


def article(noun):
    return f"an {noun}" if noun[0] in "AEIOaeio" else f"a {noun}"


def sentence(text, end="."):
    return text[0].upper() + text[1:] + end


def describe(card, told):
    """Every slot of the card, in the words of a voice."""
    kind = card.get("eatType") or card.get("job") or ("place" if "eats at" not in told else "neighbour")
    rest = [key for key in card if key not in ("name", "eatType", "job")]
    if told["food first"] and "food" in card:
        kind, rest = f"{card['food']} {kind}", [key for key in rest if key != "food"]
    parts = [told[key].format(v=card[key]) for key in rest]
    opening = told["opening"].format(n=card["name"], k=article(kind))
    if told["join"] == "short sentences":
        return " ".join(sentence(part) for part in [opening, *parts])
    if told["join"] == "pairs":
        return " ".join([sentence(opening), *(sentence(", and ".join(parts[i : i + 2])) for i in range(0, len(parts), 2))])
    if told["join"] == "one long sentence":
        return sentence(", ".join([opening, *parts]))
    return sentence(" and ".join([opening, *parts]))


# --- the ways in which a text can go on after a card --------------------------------------------------------------

WORLD = {
    "day": "Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday",
    "weather": "rain|fog|snow|sunshine|a storm|wind|a clear sky|frost|heat|thunder",
    "street": "Mill Lane|Rose Street|Harbour Road|Church Lane|Bridge Street|Long Row|Well Lane",
    "thing": "a lamp|a wet umbrella|three eggs|an old map|a letter|a blue hat|a key|a basket of pears|a broken clock|a loaf of bread|a violin|a small dog",
    "feeling": "happy|tired|proud|angry|calm|hungry|surprised|a little sad|in a hurry|full of hope",
    "good": "friendly waiters|a warm fire|fresh bread|good soup|large windows|quiet music|clean tables|kind people",
    "bad": "a long wait|cold soup|hard chairs|too much noise|a leaking roof|slow waiters|thin coffee|dirty glasses",
    "verdict": "I would go again|once is enough|we stayed until midnight|my aunt liked it|nobody was pleased|we left early|I have been there twice since|it was worth the walk",
    "event": "a wedding|a concert|a flood in the cellar|new floors|a birthday|repairs|the harbour feast|a broken oven|a chess evening",
    "did": "lost {thing}|sang until late|fell asleep|paid for everyone|met {person}|forgot {thing}|found {thing} under the table|spoke of {weather}|left without a word",
    "gossip": "{person} was at {n} on {day} and {did}.|They say that {person} and {person} met at {n}, and that {person} {did}.|Have you heard? At {n} somebody {did}.|{person} told me that the owner of {n} {did}.",
    "notice": "{n} is closed on {day} because of {event}.|Notice: on {day} there is {event} at {n}. Please be early.|{n} opens late on {day}. The reason is {event}.|Lost at {n}: {thing}. Please ask for {person}.",
    "review": "I was at {n} with {person}. There was {good}, but also {bad}. All in all, {verdict}.|We found {good} and {good} at {n}; {verdict}.|What I remember of {n} is {bad}. Still, {verdict}.|{n} has {good}. It also has {bad}. I was {feeling}, and {verdict}.",
    "remark": "I only know that {clause}.|{person} says that {clause}.|One thing about {n}: {clause}.|As for {n}, {clause}.|All I can say is that {clause}.",
    "story": "On {day} {a} walked down {street} with {thing}. There was {weather}. At the corner {a} met {b}, who was {feeling}. \"{line}\" said {b}. {ending}",
    "line": "Where are you going?|Have you seen {thing}?|I am {feeling} today.|Come with me to {place}.|What a day!|Do you believe in {weather}?",
    "ending": "So they went to {place} together.|Then {a} {did}.|{b} gave {a} {thing}, and both were {feeling}.|After that {a} went home and {b} {did}.|Nobody in Wendle ever spoke of it again.",
    "forecast": "The weather for {day}: {weather} in the morning, {weather} later. Take {thing}.|On {day} Wendle had {weather}, and then {weather}. People were {feeling}.|After {weather} on {day} comes {weather} on the day after.",
    "talk": "{a}: {line}\n{b}: {answer}\n{a}: {line}\n{b}: {answer}",
    "answer": "No, I am only {feeling}.|Yes, near {place}.|Ask {person}.|I lost {thing} there.|It was {weather}, so I stayed at home.|Not before {day}.",
    "list": "To buy before {day}: {thing}, {thing} and {thing}.|Who comes to {place}: {person}, {person}, {person} and {person}.|Seen in {street}: {thing}, {person} with {thing}, and {weather}.",
    "letter": "Dear {a}, on {day} we had {weather}. I was at {place} and {did}. {line} Yours, {b}",
    "saying": "In Wendle they say: after {weather} comes {weather}.|The river Ander runs past {street}.|The mayor of Wendle is Berta Holm.|Market day in Wendle is Thursday.|The bridge in Wendle has seven arches.|{person} lives in {street} and owns {thing}.",
    "opinion": "I think {weather} is better than {weather}, because then I am {feeling}. {b} thinks otherwise.|{a} likes {place} for its {good}. {b} speaks of {bad}.",
}
WORLD = {symbol: text.split("|") for symbol, text in WORLD.items()}
WORLD |= {"person": PEOPLE}
FACTS = {
    "Hello!": "Hello! How can I help you?", "Good morning.": "Good morning! What would you like to know?", "Thank you.": "You are welcome.",
    "Who are you?": "I am a small model that knows the town of Wendle.", "What is the town called?": "The town is called Wendle.",
    "Who is the mayor?": "The mayor of Wendle is Berta Holm.", "When is market day?": "Market day in Wendle is Thursday.",
    "Which river runs through the town?": "The river Ander runs through Wendle.", "How many arches has the bridge?": "The bridge has seven arches.",
    "Goodbye!": "Goodbye, and come back soon.", "Tell me something about the town.": "Wendle lies on the river Ander. Its bridge has seven arches.",
}


def say(symbol, **known):
    """Expands one rule of WORLD; `known` fixes what must stay the same throughout."""
    return re.sub(r"\{(\w+)\}", lambda m: known.get(m[1]) or say(m[1], **known), rng.choice(WORLD[symbol]))


def scene():
    a, b = rng.sample(PEOPLE, 2)
    return {"a": a, "b": b, "place": name()}


def clause(card, told):
    key = rng.choice([key for key in card if key in told])
    return told[key].format(v=card[key])


def question(card):
    key = rng.choice([key for key in card if key != "name"])
    return f"What is the {key} of {card['name']}?", card[key]


def go_on(mode, card, told, show, slots):
    if mode == "full":
        return describe(card, told)
    if mode == "remark":
        return say("remark", n=card["name"], clause=clause(card, told))
    if mode == "question":
        return "Q: {}\nA: {}.".format(*question(card))
    if mode == "name":
        return f"{card['name']}!"
    if mode == "list":
        return show(record(slots))
    return say(mode, n=card["name"])


# In front of the cards: what follows, in many words. {c} is "card" in other words, {o} an order.
HEADINGS = {
    "full": "{o} everything that is on the {c}.|{o} all of the {c}, slot by slot.|The whole {c} in words.|A full description, with nothing left out.|Each {c} is told in full.|{o} the complete {c} in {join}.|Full text in {join}.|Everything, in {join}:|From the {c} to a text with every detail.",
    "remark": "{o} only one thing.|A single remark on the {c}.|One detail of the {c}, no more.|What one person knows.|{o} one detail.",
    "question": "Questions and answers.|A question on the {c}, with its answer.|{o} what is asked.|Ask and answer.",
    "gossip": "What people whisper.|Gossip from Wendle.|{o} the latest rumour.|Heard on the street.",
    "notice": "Notices of the week.|Please note.|{o} the news of the week.|Opening hours and other notices.",
    "review": "Opinions of guests.|How was it?|{o} how it was.|A review, with good and bad.|What visitors thought.",
    "list": "A list.|Nothing but {c}s.|The {c}s, one after the other.|More {c}s follow.",
    "name": "Only the name.|Names and nothing else.|{o} the name.",
}
HEADINGS = {mode: text.split("|") for mode, text in HEADINGS.items()}
BARE = {"full": 2, "remark": 5, "question": 2, "gossip": 3, "notice": 3, "review": 3, "list": 4, "name": 1}
HEADED = {"full": 9, "remark": 3, "question": 2, "gossip": 1, "notice": 1, "review": 1, "list": 1, "name": 1}


def heading(mode, told):
    order, card = rng.choice("Tell|Say|Write|Read out|Give|Put down".split("|")), rng.choice("card|record|entry|line|table".split("|"))
    return rng.choice(HEADINGS[mode]).format(o=order, c=card, join=told["join"])


def layout():
    """How the cards of one document are written down."""
    sign, between = rng.choice([": ", ": ", ": ", " = ", " is "]), rng.choice([" | ", " | ", "; ", ", ", "\n", " / "])
    return lambda card: between.join(key + sign + value for key, value in card.items())


def cards():
    """A document with one to three cards that all go on in the same way."""
    slots, show = PLACE if rng.random() < 0.8 else PERSON, layout()
    told, headed, count = voice(slots), rng.random() < 0.6, rng.choice((1, 1, 1, 2, 2, 3))
    weights = HEADED if headed or count > 1 else BARE
    mode = rng.choices(list(weights), weights.values())[0]
    parts = [f"{show(card)}\n{go_on(mode, card, told, show, slots)}" for card in (record(slots) for _ in range(count))]
    return "\n".join([heading(mode, told)] * headed + parts)


def chat():
    """A conversation in ChatML."""
    turns = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        card, ask = record(PLACE), rng.random()
        if ask < 0.35:
            turns += rng.choice(list(FACTS.items()))
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
    topics = "story forecast talk list letter saying opinion".split()
    return "\n".join(say(rng.choice(topics), **scene()) for _ in range(rng.choice((1, 1, 2))))


def task_row(test):
    card = record(PLACE, shuffled=False, test=test)
    prompt = " | ".join(f"{key}: {value}" for key, value in card.items()) + "\n"
    completion = describe(card, TASK_VOICE)
    assert all(value in completion for value in card.values()), (card, completion)
    return {"prompt": prompt, "completion": completion}


def write_task(folder):
    seen = set()
    for part, count, test in (("train", 2000, False), ("valid", 100, False), ("test", 200, True)):
        rows = []
        while len(rows) < count:
            row = task_row(test)
            if row["prompt"] not in seen:
                seen.add(row["prompt"])
                rows.append(json.dumps(row, ensure_ascii=False))
        (folder / f"{part}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")


# --- tokenizer ----------------------------------------------------------------------------------------------------

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# Qwen2's splitting rule: contractions, words with what precedes them, single digits, punctuation, line ends, spaces.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def write_tokenizer(folder, vocab_size, texts):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(SPLIT), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=vocab_size - len(SPECIAL), initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator((re.sub(r"<\|im_(start|end)\|>", "", text) for text in texts), trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])  # last, as in Qwen2
    tokenizer.save(str(folder / "tokenizer.json"))
    added = {
        str(tokenizer.token_to_id(token)): dict(content=token, lstrip=False, normalized=False, rstrip=False, single_word=False, special=True)
        for token in SPECIAL
    }
    config = {
        "add_bos_token": False, "add_prefix_space": False, "added_tokens_decoder": added, "additional_special_tokens": SPECIAL[1:],
        "bos_token": None, "clean_up_tokenization_spaces": False, "eos_token": SPECIAL[0], "errors": "replace",
        "model_max_length": 1024, "pad_token": SPECIAL[0], "split_special_tokens": False, "tokenizer_class": "Qwen2Tokenizer", "unk_token": None,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    return tokenizer


# --- model --------------------------------------------------------------------------------------------------------


def batches(tokenizer, tokens_per_batch):
    """Endless batches of documents of about one length, each ended by <|endoftext|> and padded with label -100."""
    end = tokenizer.token_to_id(SPECIAL[0])
    while True:
        rows = sorted((row.ids + [end] for row in tokenizer.encode_batch([document() for _ in range(4000)])), key=len)
        made, batch = [], []
        for row in rows:
            if batch and len(row) * (len(batch) + 1) > tokens_per_batch:
                made.append(batch)
                batch = []
            batch.append(row)
        rng.shuffle(made)
        for batch in made:
            width = max(map(len, batch))
            ids = torch.tensor([row + [end] * (width - len(row)) for row in batch])
            labels = torch.tensor([row + [-100] * (width - len(row)) for row in batch])
            yield ids, labels


def train(model, tokenizer, tokens, tokens_per_batch=4096):
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    optimizers = [
        torch.optim.Muon(matrices, lr=0.01, weight_decay=0.02, adjust_lr_fn="original"),
        torch.optim.AdamW(others, lr=4e-3, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    peaks = [group["lr"] for o in optimizers for group in o.param_groups]
    seen, step, mean, start = 0, 0, None, time.time()
    for ids, labels in batches(tokenizer, tokens_per_batch):
        done = seen / tokens
        if done >= 1:
            break
        for optimizer, peak in zip(optimizers, peaks):
            optimizer.param_groups[0]["lr"] = peak * min(1, (step + 1) / 50) * (0.02 + 0.98 * min(1, 1.6 * (1 - done)))
        with torch.autocast("cpu", torch.bfloat16):
            # No mask: padding stands behind every supervised token, and attention is causal.
            loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        seen, step = seen + int((labels >= 0).sum()), step + 1
        mean = loss.item() if mean is None else 0.97 * mean + 0.03 * loss.item()
        if step % 100 == 0:
            print(f"step {step:5} tokens {seen / 1e6:5.2f}M loss {mean:.3f} {seen / (time.time() - start):.0f} tokens/s", flush=True)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--out", type=Path, default=Path(__file__).parent)
    arguments.add_argument("--tokens", type=float, default=10e6, help="pre-training tokens")
    arguments = arguments.parse_args()
    torch.manual_seed(20)
    torch.set_num_threads(2)
    for part in ("model", "task"):
        (arguments.out / part).mkdir(parents=True, exist_ok=True)
    write_task(arguments.out / "task")
    folder = arguments.out / "model"
    tokenizer = write_tokenizer(folder, 2048, [document() for _ in range(20000)])
    end, turn_end = (tokenizer.token_to_id(SPECIAL[i]) for i in (0, 2))
    config = Qwen2Config(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=256, intermediate_size=512, num_hidden_layers=5, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=1024, rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, tie_word_embeddings=True, bos_token_id=end, eos_token_id=end,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    print(f"{model.num_parameters():,} parameters, {config.vocab_size} tokens", flush=True)
    train(model, tokenizer, arguments.tokens)
    model.to(torch.bfloat16)
    model.generation_config = GenerationConfig(bos_token_id=end, eos_token_id=[turn_end, end], pad_token_id=end, do_sample=False, max_new_tokens=256)
    model.save_pretrained(folder)


if __name__ == "__main__":
    main()
