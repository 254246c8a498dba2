"""A training step, or greedy decoding, with transformers and PEFT on random weights: the same settings and the same
JSON as `burn-peft bench`.

    python benches/peer.py --shape qwen2.5-0.5b --method prefix-tuning --json

Install benches/requirements.txt. Attention is transformers' default (SDPA). A step is forward, backward, clipping by
the norm and AdamW, behind one that warms up. BitFit trains the biases of q, k and v, as the program does by default.
"""

import argparse
import json
import resource
import statistics
import sys
import time

import torch
from peft import PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model
from transformers import Qwen2Config, Qwen2ForCausalLM

# hidden, intermediate, layers, query heads, key/value heads, vocabulary, tied head, positions
SHAPES = {
    "qwen2.5-0.5b": (896, 4864, 24, 14, 2, 151_936, True, 32_768),
    "qwen2.5-1.5b": (1536, 8960, 28, 12, 2, 151_936, True, 131_072),
    "qwen2.5-3b": (2048, 11_008, 36, 16, 2, 151_936, True, 32_768),
    "qwen2.5-7b": (3584, 18_944, 28, 28, 4, 152_064, False, 131_072),
}
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
METHODS = ["bitfit", "prompt-tuning", "p-tuning", "prefix-tuning", "p-tuning-v2"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--method", choices=METHODS, default="prompt-tuning")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--seq", type=int, default=256)
    parser.add_argument("--labels", type=int, default=64)
    parser.add_argument("--virtual-tokens", type=int, default=20)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--new-tokens", type=int)
    parser.add_argument("--recompute", action="store_true", help="gradient checkpointing")
    parser.add_argument("--dtype", choices=DTYPES, default="f32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def base_model(options):
    hidden, inner, layers, heads, kv_heads, vocab, tied, positions = SHAPES[options.shape]
    config = Qwen2Config(
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=vocab,
        tie_word_embeddings=tied,
        max_position_embeddings=positions,
        rope_theta=1e6,
    )
    # Made in their type and on their device, so that no other copy counts as the peak.
    torch.set_default_dtype(DTYPES[options.dtype])
    with torch.device(options.device):
        model = Qwen2ForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    return model


def with_method(model, options):
    """The model ready to train, and its virtual tokens."""
    model.requires_grad_(False)
    tokens = options.virtual_tokens
    common = {"task_type": "CAUSAL_LM", "num_virtual_tokens": tokens}
    hidden = model.config.hidden_size
    match options.method:
        case "bitfit":
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(name.endswith(("q_proj.bias", "k_proj.bias", "v_proj.bias")))
            return model, 0
        case "prompt-tuning":
            config = PromptTuningConfig(**common)
        case "p-tuning":
            config = PromptEncoderConfig(**common, encoder_hidden_size=hidden)
        case "prefix-tuning":
            config = PrefixTuningConfig(**common, prefix_projection=True, encoder_hidden_size=hidden)
        case "p-tuning-v2":
            config = PrefixTuningConfig(**common, prefix_projection=False)
    return get_peft_model(model, config), tokens


def synchronize(options):
    if options.device.startswith("cuda"):
        torch.cuda.synchronize()


def peak_gib(options):
    if options.device.startswith("cuda"):
        return torch.cuda.max_memory_reserved() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def spread(prefix, seconds):
    return {
        f"{prefix}_s": statistics.median(seconds),
        f"{prefix}_min_s": min(seconds),
        f"{prefix}_max_s": max(seconds),
    }


def time_steps(options):
    model, virtual_tokens = with_method(base_model(options), options)
    model.train()
    if options.recompute:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if options.method in ("bitfit", "prompt-tuning", "p-tuning"):
            model.enable_input_require_grads()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.0)
    ids = torch.randint(model.config.vocab_size, (options.batch, options.seq), device=options.device)
    labels = ids.clone()
    labels[:, : options.seq - options.labels] = -100
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    seconds = []
    for step in range(options.steps + 1):
        started = time.perf_counter()
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        synchronize(options)
        if step:
            seconds.append(time.perf_counter() - started)
    timing = spread("step", seconds)
    return {
        "method": options.method,
        "labels": options.labels,
        "virtual_tokens": virtual_tokens,
        "steps": options.steps,
        "recompute": options.recompute,
        **timing,
        "tokens_per_s": options.batch * options.seq / timing["step_s"],
        "trainable": sum(parameter.numel() for parameter in parameters),
    }


@torch.inference_mode()
def time_decoding(options):
    model = base_model(options).eval()
    ids = torch.randint(model.config.vocab_size, (options.batch, options.seq), device=options.device)
    output = model(ids, use_cache=True, logits_to_keep=1)
    seconds = []
    for _ in range(options.new_tokens + 1):
        started = time.perf_counter()
        ids = output.logits[:, -1].argmax(-1, keepdim=True)
        output = model(ids, past_key_values=output.past_key_values, use_cache=True)
        synchronize(options)
        seconds.append(time.perf_counter() - started)
    timing = spread("token", seconds[1:])
    return {"new_tokens": options.new_tokens, **timing, "tokens_per_s": options.batch / timing["token_s"]}


def main():
    options = arguments()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    measure = time_decoding if options.new_tokens else time_steps
    report = {
        "shape": options.shape,
        "backend": f"torch {torch.__version__} {options.device}",
        "dtype": options.dtype,
        "batch": options.batch,
        "seq": options.seq,
        **measure(options),
        "peak_gib": peak_gib(options),
    }
    if options.json:
        print(json.dumps(report))
    else:
        for key, value in report.items():
            print(f"{key}: {value}")


if __name__ == "__main__":
    main()
