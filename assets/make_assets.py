"""Makes the model and the task that are built into `burn-peft`: python make_assets.py [--out DIR] [--tokens N].

From `world.py` it takes texts about an invented small town, trains a byte-level BPE tokenizer on them, trains a
Qwen2 of 3.5 million parameters from scratch, and writes a table-to-text task which that model is then adapted to.

What is unusual, and why:

* The task must be out of the base model's reach as it stands, and within reach of a soft prompt of a few thousand
  numbers. A soft prompt adds no ability, it selects one. So pre-training teaches one ability for every way in which
  a text can go on after a card ("name: Elmora | area: old town"), and which way is right can only be known from what
  stands *in front of* the card: a heading in one of many wordings, or an earlier card that went the same way.
  Without either, anything may follow, and a full description is the rarest of the possibilities.
* A full description has a voice: one wording per slot, an opening, and a manner of joining sentences, drawn afresh
  for each document and kept throughout it, so that the model learns to take up a voice from what stands before. The
  task is written in one voice of its own (`description.task` in `world.toml`), to which no voice of pre-training
  comes close. Each of its wordings does occur there: a model this small has no others that could be selected.
* Values must be copied, unseen names among them. Names are composed of syllables and words, too many to memorise; one
  in five (`world.held_out`) never occurs in pre-training or train.jsonl, and all names in test.jsonl are of that kind.
* Documents are not packed: each row of a batch is one document from position 0 on, as it is when the model is used.
* Matrices are trained with Muon, the rest with AdamW, and the forward pass runs in bfloat16. The weights are rounded
  to bfloat16 before anything is measured.
"""

import argparse
import json
import re
import time
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, Qwen2Config, Qwen2ForCausalLM

from world import document, rng, task_row

HERE = Path(__file__).parent


def write_task(folder):
    seen = set()
    for part, count, test in (("train", 2000, False), ("valid", 100, False), ("test", 200, True)):
        rows = []
        while len(rows) < count:
            row = task_row(test)
            if row["prompt"] not in seen:
                seen.add(row["prompt"])
                rows.append(json.dumps(row))
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
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=vocab_size - len(SPECIAL), initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator((re.sub(r"<\|im_(start|end)\|>", "", text) for text in texts), trainer)
    # After the vocabulary, as in Qwen2.
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.save(str(folder / "tokenizer.json"))
    flags = dict(lstrip=False, normalized=False, rstrip=False, single_word=False, special=True)
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {str(tokenizer.token_to_id(token)): {"content": token, **flags} for token in SPECIAL},
        "additional_special_tokens": SPECIAL[1:],
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": SPECIAL[0],
        "errors": "replace",
        "model_max_length": 1024,
        "pad_token": SPECIAL[0],
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
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
            rate = seen / (time.time() - start)
            print(f"step {step:5}  {seen / 1e6:5.2f}M tokens  loss {mean:.3f}  {rate:.0f} tokens/s", flush=True)


def look(out):
    """Prints how the finished base goes on, and how much of the task it does unasked."""
    tokenizer = AutoTokenizer.from_pretrained(out / "model")
    model = AutoModelForCausalLM.from_pretrained(out / "model", dtype=torch.float32).eval()

    def go(prompt, stop):
        ids = tokenizer(prompt, return_tensors="pt")
        made = model.generate(**ids, max_new_tokens=80, eos_token_id=tokenizer.convert_tokens_to_ids(stop))
        return tokenizer.decode(made[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)

    rows = (out / "task/test.jsonl").read_text(encoding="utf-8").splitlines()[:40]
    prompts = [json.loads(row)["prompt"] for row in rows]
    for front in ("", "Tell everything that is on the card.\n"):
        told = [(prompt, go(front + prompt, SPECIAL[0])) for prompt in prompts]
        pairs = [(slot.split(": ")[1], text) for prompt, text in told for slot in prompt.strip().split(" | ")]
        share = sum(bool(re.search(rf"\b{value}\b", text)) for value, text in pairs) / len(pairs)
        print(f"after the heading {front!r} {share:.1%} of the slots are told; for example")
        print("\n".join(f"  {prompt!r} -> {text!r}" for prompt, text in told[:4]))
    for asked in ("Who is the mayor?", f"Describe this place. {prompts[0].strip()}"):
        turn = [{"role": "user", "content": asked}]
        prompt = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        print(f"  {asked!r} -> {go(prompt, SPECIAL[2])!r}")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--out", type=Path, default=HERE)
    arguments.add_argument("--tokens", type=float, default=7e6, help="pre-training tokens")
    arguments = arguments.parse_args()
    torch.manual_seed(20)
    torch.set_num_threads(2)
    folder = arguments.out / "model"
    for part in (folder, arguments.out / "task"):
        part.mkdir(parents=True, exist_ok=True)
    write_task(arguments.out / "task")
    tokenizer = write_tokenizer(folder, 2048, [document() for _ in range(20000)])
    end, turn_end = (tokenizer.token_to_id(SPECIAL[i]) for i in (0, 2))
    config = Qwen2Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=end,
        eos_token_id=end,
    )
    model = Qwen2ForCausalLM(config)
    print(f"{model.num_parameters():,} parameters, {config.vocab_size} tokens", flush=True)
    train(model, tokenizer, arguments.tokens)
    model.to(torch.bfloat16)
    stops = dict(eos_token_id=[turn_end, end], pad_token_id=end)
    model.generation_config = GenerationConfig(bos_token_id=end, do_sample=False, max_new_tokens=256, **stops)
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    look(arguments.out)


if __name__ == "__main__":
    main()
