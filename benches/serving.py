"""The server under load, beside its own answers one at a time and beside transformers and PEFT.

    cargo build --release && python benches/serving.py --out DIR
    python benches/serving.py --out DIR --dtype bf16 --sides ours        how many answers differ in bf16

Makes a model of the shape with random weights, and eight adapters of all five methods (one training step each), in --out,
where they stay. Then 32 requests, 4 an adapter, each 32 tokens of prompt and 128 new ones, greedy:

- together: all at the same time;
- alone: one after the other (--alone of them; a request a model first). Every answer must equal the one it had together;
- peer: transformers with PEFT, a batch of 4 an adapter, one batch after the other. BitFit's biases are added to the
  model's and taken off again: PEFT would wrap the layers of the base that the other adapters share.

Together and peer take turns, --rounds times. Prompts are the same for both and differ between rounds, so that the server's
cache has none of them. Install benches/requirements.txt.
"""

import argparse
import http.client
import json
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(Path(__file__).resolve().parent))
ADAPTERS = {
    "bitfit-1": ("bitfit", []),
    "bitfit-2": ("bitfit", ['method.target_modules=["q_proj", "v_proj", "o_proj", "down_proj"]']),
    "prompt-1": ("prompt-tuning", []),
    "prompt-2": ("prompt-tuning", ["method.num_virtual_tokens=8"]),
    "p-tuning": ("p-tuning", []),
    "prefix": ("prefix-tuning", []),
    "v2-1": ("p-tuning-v2", []),
    "v2-2": ("p-tuning-v2", ["method.num_virtual_tokens=16"]),
}
REQUESTS_EACH = 4
PROMPT_TOKENS = 32
NEW_TOKENS = 128


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/burn-peft")
    parser.add_argument("--shape", default="qwen2.5-0.5b")
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--alone", type=int, default=32)
    parser.add_argument("--sides", nargs="+", choices=["ours", "peer"], default=["ours", "peer"])
    return parser.parse_args()


def make_model(options, folder):
    import torch
    from peer import base_model

    torch.manual_seed(0)
    options = argparse.Namespace(shape=options.shape, dtype="bf16", device="cpu")
    model = base_model(options)
    part = folder.with_suffix(".part")
    model.save_pretrained(part)
    # The built-in tokenizer, with a word for every other row of the table, so that every answer is a text.
    tokenizer = json.loads((ROOT / "assets/model/tokenizer.json").read_text())
    used = {token["id"] for token in tokenizer["added_tokens"]} | set(tokenizer["model"]["vocab"].values())
    words = {f"\u0120w{number}": number for number in range(model.config.vocab_size) if number not in used}
    tokenizer["model"]["vocab"] |= words
    (part / "tokenizer.json").write_text(json.dumps(tokenizer))
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(ROOT / "assets/model" / name, part)
    part.rename(folder)


def make_adapter(options, model, name, folder):
    method, settings = ADAPTERS[name]
    command = [options.binary, "train", "--model", model, "--method", method, "--data", ROOT / "assets/task/train.jsonl"]
    command += ["--max-steps", "1", "--no-tui", "--output", folder, "--dtype", options.dtype]
    command += ["--set", "train.per_device_train_batch_size=1", "--set", "train.predict_with_generate=false"]
    for setting in settings:
        command += ["--set", setting]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        shutil.rmtree(folder, ignore_errors=True)
        sys.exit(f"{name}: {done.stderr}")


def prompts(round_number):
    """For each request its adapter and its tokens."""
    numbers = random.Random(round_number)
    return [
        (name, [numbers.randrange(300) for _ in range(PROMPT_TOKENS)])
        for name in ADAPTERS
        for _ in range(REQUESTS_EACH)
    ]


class Server:
    def __init__(self, options, model, adapters):
        command = [options.binary, "serve", "--model", model, "--dtype", options.dtype, "--port", "0"]
        command += ["--max-batch", "32", "--max-context", "512"]
        if options.threads:
            command += ["--threads", options.threads]
        for name, folder in adapters.items():
            command += ["--adapter", f"{name}={folder}"]
        self.process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        self.port = int(line.rsplit(":", 1)[1])

    def ask(self, name, prompt):
        """The answer's words, seconds to the first one and in all."""
        body = {
            "model": name, "prompt": prompt, "max_tokens": NEW_TOKENS, "temperature": 0, "stream": True,
            "stream_options": {"include_usage": True}, "ignore_eos": True,
        }
        started = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        text, first, tokens = "", None, 0
        for line in response:
            if not line.startswith(b"data: {"):
                continue
            part = json.loads(line[6:])
            text += "".join(choice["text"] for choice in part["choices"])
            first = first or (time.perf_counter() - started if text else None)
            tokens = (part.get("usage") or {}).get("completion_tokens", tokens)
        if response.status != 200 or tokens != NEW_TOKENS:
            raise RuntimeError(f"{name}: status {response.status}, {tokens} tokens")
        return text, first, time.perf_counter() - started

    def together(self, requests):
        with ThreadPoolExecutor(len(requests)) as clients:
            started = time.perf_counter()
            answers = list(clients.map(lambda request: self.ask(*request), requests))
            return answers, time.perf_counter() - started

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


class Peer:
    def __init__(self, options, model, adapters):
        import torch
        from transformers import AutoModelForCausalLM

        if options.threads:
            torch.set_num_threads(options.threads)
        dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[options.dtype]
        self.torch = torch
        self.base = AutoModelForCausalLM.from_pretrained(model, dtype=dtype).eval()
        self.biases = {
            name.removesuffix(".bias"): parameter
            for name, parameter in self.base.named_parameters()
            if name.endswith("bias")
        }
        self.adapters = adapters
        self.loaded = {}

    def biases_of(self, name):
        """Those of the model that the adapter changes, and by how much. Those that the model lacks are left out."""
        from safetensors.torch import load_file

        changed = load_file(self.adapters[name] / "adapter_model.safetensors")
        pairs = [
            (self.biases[key], value.flatten()) for own, value in changed.items() for key in self.biases if f".{key}." in own
        ]
        assert pairs, f"{name} changes no bias of the model"
        return pairs

    def answer(self, name, batch):
        torch = self.torch
        ids = torch.tensor(batch)
        mask = torch.ones_like(ids)
        settings = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, "do_sample": False, "pad_token_id": 0}
        if ADAPTERS[name][0] != "bitfit":
            with torch.inference_mode():
                self.loaded[name].generate(input_ids=ids, attention_mask=mask, **settings)
            return
        with torch.no_grad():
            pairs = [(bias, bias.clone(), value) for bias, value in self.biases_of(name)]
            for bias, _, value in pairs:
                bias += value
            self.base.generate(input_ids=ids, attention_mask=mask, **settings)
            for bias, plain, _ in pairs:
                bias.copy_(plain)

    def grouped(self, requests):
        from peft import PeftModel

        groups = {}
        for name, prompt in requests:
            groups.setdefault(name, []).append(prompt)
        for name in groups:
            if ADAPTERS[name][0] != "bitfit" and name not in self.loaded:
                self.loaded[name] = PeftModel.from_pretrained(self.base, self.adapters[name]).eval()
        started = time.perf_counter()
        for name, batch in groups.items():
            self.answer(name, batch)
        return time.perf_counter() - started


def main():
    options = arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    model = options.out / f"{options.shape}"
    if not model.exists():
        make_model(options, model)
    adapters = {name: options.out / f"{options.shape}-{options.dtype}-{name}" for name in ADAPTERS}
    for name, folder in adapters.items():
        if not (folder / "adapter_model.safetensors").exists():
            make_adapter(options, model, name, folder)
    tokens = len(ADAPTERS) * REQUESTS_EACH * NEW_TOKENS
    peer = Peer(options, model, adapters) if "peer" in options.sides else None
    server = Server(options, model, adapters) if "ours" in options.sides else None
    seconds = {"together": [], "peer": []}
    first = []
    try:
        for number in range(options.rounds):
            requests = prompts(number)
            if server:
                answers, took = server.together(requests)
                seconds["together"].append(took)
                first += [answer[1] for answer in answers]
                print(f"round {number}: together {took:.1f} s, {tokens / took:.1f} tokens/s", flush=True)
            if peer:
                took = peer.grouped(requests)
                seconds["peer"].append(took)
                print(f"round {number}: peer {took:.1f} s, {tokens / took:.1f} tokens/s", flush=True)
        if server and options.alone:
            # Answers of the last round, in another order, so that a part of them covers all adapters.
            order = sorted(range(len(requests)), key=lambda index: index % REQUESTS_EACH)[: options.alone]
            took, different = [], []
            for index in order:
                answer = server.ask(*requests[index])
                took.append(answer[2])
                if answer[0] != answers[index][0]:
                    pairs = enumerate(zip(answer[0].split(), answers[index][0].split()))
                    where = next((number for number, (one, other) in pairs if one != other), None)
                    different.append(f"{requests[index][0]} from word {where}")
            rate = NEW_TOKENS / statistics.mean(took)
            print(f"alone: {rate:.2f} tokens/s; {len(different)} of {len(order)} answers differ: {different}", flush=True)
            together = tokens / statistics.median(seconds["together"])
            print(f"together / alone: {together / rate:.2f}")
    finally:
        if server:
            server.stop()
    if first:
        first.sort()
        print(f"first token, together: median {statistics.median(first):.2f} s, 90 % {first[int(len(first) * 0.9)]:.2f} s")
    if server and peer:
        ratios = [peer / ours for ours, peer in zip(seconds["together"], seconds["peer"])]
        print(f"together / peer: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
