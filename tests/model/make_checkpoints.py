# SPDX-License-Identifier: Apache-2.0
"""Writes the small generated checkpoints of tests/model/golden and their golden.json.

Usage: make_checkpoints.py [--check] [FOLDER]      needs torch, safetensors; --check: transformers

Seeds are fixed and everything is computed in float64. --check writes nothing: it compares the
reference with transformers' own decoders on the same files, and with packed words done by hand.
The format of golden.json is described in golden/README.md.
"""
import argparse
import dataclasses
import json
import pathlib
import shutil

import torch
from safetensors.torch import save_file

import reference_decoder as reference
from reference_decoder import Decoder, Reading, relative_rms

N_GREEDY = 24
ALL_POSITIONS = 12  # length of the prompt whose every position is stored
LENGTHS = (1, ALL_POSITIONS, 63, 64, 65, 70, 130)
N_DRAWS = 16  # of the noise of 16-bit activations: its RMS is then known within a tenth


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Standard deviations are of the unrounded numbers; config is the config.json to write."""
    seed: int
    config: dict
    wrong: dict                     # name -> (Reading, prompt, "logits" or "decoded")
    embedding_std: float = 0.1
    awq_group: int = 0              # 0: not quantised
    n_files: int = 1
    lengths: tuple = LENGTHS


def internlm2(**changes):
    """As LMDeploy and Hugging Face write it for this architecture."""
    config = {
        "architectures": ["InternLM2ForCausalLM"],
        "attn_implementation": "eager",
        "auto_map": {
            "AutoConfig": "configuration_internlm2.InternLM2Config",
            "AutoModel": "modeling_internlm2.InternLM2ForCausalLM",
            "AutoModelForCausalLM": "modeling_internlm2.InternLM2ForCausalLM",
        },
        "bias": False, "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
        "hidden_size": 256, "initializer_range": 0.02, "intermediate_size": 32,
        "max_position_embeddings": 96, "model_type": "internlm2", "num_attention_heads": 4,
        "num_hidden_layers": 1, "num_key_value_heads": 2, "pad_token_id": 2, "pretraining_tp": 1,
        "rms_norm_eps": 1e-05, "rope_scaling": {"type": "dynamic", "factor": 2.0},
        "rope_theta": 1000000, "tie_word_embeddings": False, "torch_dtype": "float16",
        "transformers_version": "4.41.0", "use_cache": True, "vocab_size": 49,
    }
    return config | changes


def awq(group):
    return {"bits": 4, "group_size": group, "quant_method": "awq", "version": "gemm",
            "zero_point": True}


def llama(**changes):
    config = {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False, "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
        "hidden_size": 64, "initializer_range": 0.02, "intermediate_size": 96, "mlp_bias": False,
        "max_position_embeddings": 2048, "model_type": "llama", "num_attention_heads": 3,
        "num_hidden_layers": 2, "num_key_value_heads": 1, "pad_token_id": 2, "rms_norm_eps": 1e-05,
        "rope_scaling": None, "rope_theta": 100000, "tie_word_embeddings": True,
        "torch_dtype": "bfloat16", "transformers_version": "4.41.0", "use_cache": True,
        "vocab_size": 50,
    }
    return config | changes


ANY = {
    "rope_base_10000": (Reading(rope_base=10000.0), "n70", "logits"),
    "rope_pairs_adjacent": (Reading(rope_halves=False), "n70", "logits"),
    "gate_and_up_swapped": (Reading(swap_gate_up=True), "n12", "logits"),
}
UNTIED = {"head_tied": (Reading(tied_head=True), "n12", "logits")}
INTERNLM2 = ANY | UNTIED | {
    "wqkv_as_q_k_v": (Reading(wqkv_grouped=False), "n12", "logits"),
    "kv_heads_round_robin": (Reading(heads_in_groups=False), "n12", "logits"),
    "eps_1e-6": (Reading(eps=1e-6), "n12", "logits"),
    "ntk_static": (Reading(ntk="none"), "n130", "logits"),
    "ntk_recomputed": (Reading(ntk="total"), "n90", "decoded"),
}
AWQ = INTERNLM2 | {
    "awq_nibbles_in_order": (Reading(awq_interleaved=False), "n12", "logits"),
    "awq_zero_plus_one": (Reading(awq_zero_offset=1), "n12", "logits"),
}
WITH_90 = (*LENGTHS[:-1], 90, LENGTHS[-1])  # 90 + 24 tokens outgrow max_position_embeddings

RECIPES = {
    "internlm2_tiny": Recipe(1, internlm2(), INTERNLM2, embedding_std=0.02, lengths=WITH_90),
    "internlm2_tiny_awq_g32": Recipe(
        2, internlm2(num_hidden_layers=2, vocab_size=50, quantization_config=awq(32)), AWQ,
        embedding_std=0.02, awq_group=32, n_files=2, lengths=WITH_90),
    "internlm2_tiny_awq_g128": Recipe(
        3, internlm2(intermediate_size=128, vocab_size=50, torch_dtype="bfloat16",
                     quantization_config=awq(128)), AWQ,
        embedding_std=0.02, awq_group=128, lengths=WITH_90),
    "llama_tiny": Recipe(
        4, llama(head_dim=64, hidden_size=96, intermediate_size=32), ANY | {"eps_1e-6": (Reading(eps=1e-6), "n12", "logits")},
        embedding_std=0.02),
    "qwen2_tiny": Recipe(
        5, llama(architectures=["Qwen2ForCausalLM"], model_type="qwen2", hidden_size=128,
                 num_attention_heads=2, num_hidden_layers=1, intermediate_size=32,
                 rms_norm_eps=1e-6, rope_theta=1000000.0, tie_word_embeddings=False),
        ANY | UNTIED | {"qkv_bias_ignored": (Reading(qkv_bias=False), "n12", "logits"),
                        "eps_1e-5": (Reading(eps=1e-5), "n12", "logits")}, embedding_std=0.01),
    "llama_tiny_hd96": Recipe(
        6, llama(head_dim=96, num_attention_heads=2, num_hidden_layers=1,
                 intermediate_size=64, rms_norm_eps=1e-2, tie_word_embeddings=False,
                 rope_scaling={"type": "linear", "factor": 4.0}, torch_dtype="float16"),
        ANY | UNTIED | {"eps_1e-5": (Reading(eps=1e-5), "n12", "logits"),
                        "linear_scaling_ignored": (Reading(linear_scaling=False), "n70", "logits")}),
}


def quantise(weight, group, scale_type):
    """Rounding with a zero point, per row and group of inputs; [n, k] -> packed tensors."""
    n, k = weight.shape
    w = weight.float().view(n, k // group, group)
    lo, hi = w.amin(-1, keepdim=True), w.amax(-1, keepdim=True)
    scale = ((hi - lo) / 15).clamp(min=1e-5).to(scale_type).float()
    zero = (-torch.round(lo / scale)).clamp(0, 15)
    code = (torch.round(w / scale) + zero).clamp(0, 15).view(n, k)
    return {"qweight": pack(code.T), "qzeros": pack(zero.squeeze(-1).T),
            "scales": scale.squeeze(-1).T.to(scale_type).contiguous()}


def pack(codes):
    """[r, n] -> int32 [r, n / 8]."""
    columns = codes.to(torch.int64).reshape(codes.shape[0], -1, 8)
    words = sum(columns[:, :, c] << (4 * p) for p, c in enumerate(reference.AWQ_ORDER))
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32).contiguous()


def make_tensors(recipe):
    """Scores of attention get a standard deviation of about 2.5, logits one of about 3."""
    config = recipe.config
    kind = getattr(torch, config["torch_dtype"])
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    dim = config.get("head_dim") or hidden // heads
    names = reference.NAMES[config["architectures"][0]]
    generator = torch.Generator().manual_seed(recipe.seed)
    normal = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    tensors = {names["embedding"] + ".weight": recipe.embedding_std * normal(config["vocab_size"], hidden)}

    def linear(name, rows, columns, gain=1.0):
        tensors[name + ".weight"] = gain * normal(rows, columns) / columns**0.5

    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        for part in ("attention_norm", "mlp_norm"):
            tensors[f"{layer}{names[part]}.weight"] = 1 + 0.2 * normal(hidden)
        gains = torch.tensor([1.6] * heads + [1.6] * kv_heads + [1.0] * kv_heads, dtype=torch.float64)
        qkv = normal(heads + 2 * kv_heads, dim, hidden) * gains[:, None, None] / hidden**0.5
        q, k, v = qkv.split([heads, kv_heads, kv_heads])
        if config["model_type"] == "internlm2":
            grouped = torch.cat((q.view(kv_heads, -1, dim, hidden), k[:, None], v[:, None]), 1)
            tensors[layer + "attention.wqkv.weight"] = grouped.reshape(-1, hidden)
        else:
            for letter, part in zip("qkv", (q, k, v)):
                tensors[f"{layer}self_attn.{letter}_proj.weight"] = part.reshape(-1, hidden)
        if config["model_type"] == "qwen2":
            for letter, n in zip("qkv", (heads, kv_heads, kv_heads)):
                tensors[f"{layer}self_attn.{letter}_proj.bias"] = 0.5 * normal(n * dim)
        linear(layer + names["wo"], hidden, heads * dim)
        linear(layer + names["gate"], inner, hidden, 2.0)
        linear(layer + names["up"], inner, hidden)
        linear(layer + names["down"], hidden, inner)
    tensors[names["final_norm"] + ".weight"] = 1 + 0.2 * normal(hidden)
    if not config["tie_word_embeddings"]:
        linear(names["head"], config["vocab_size"], hidden, 3.0)
    else:  # the head is the embedding: the last norm brings logits to their spread
        tensors[names["final_norm"] + ".weight"] *= 3.0 / (recipe.embedding_std * hidden**0.5)
    tensors = {name: t.to(kind).contiguous() for name, t in tensors.items()}
    for name in [n for n in tensors if recipe.awq_group and ".layers." in n and "norm" not in n]:
        stem = name.removesuffix(".weight")
        packed = quantise(tensors.pop(name), recipe.awq_group, kind)
        tensors |= {f"{stem}.{part}": t for part, t in packed.items()}
    return tensors


def write_folder(folder, recipe, tensors):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(recipe.config, indent=2) + "\n")
    if recipe.n_files == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(tensors)
    size = -(-len(names) // recipe.n_files)
    weight_map = {}
    for i in range(recipe.n_files):
        file = f"model-{i + 1:05}-of-{recipe.n_files:05}.safetensors"
        part = names[i * size:(i + 1) * size]
        weight_map |= dict.fromkeys(part, file)
        save_file({n: tensors[n] for n in part}, folder / file, metadata={"format": "pt"})
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def numbers(row):
    return [round(float(x), 5) for x in row]


def significant(x):
    return float(f"{float(x):.3g}")


def half_noise(draws, truth):
    """[rows]: the relative RMS distance of each row [vocab] of the draws to the truth's; RMS over draws."""
    squares = sum((draw - truth).pow(2).mean(-1) for draw in draws) / len(draws)
    return (squares / truth.pow(2).mean(-1)).sqrt()


def gap_noise(draws, truth):
    """[rows]: how far the gap between the truth's two best logits moves; RMS over draws."""
    best = truth.topk(2).indices
    gap = lambda logits: logits.gather(-1, best) @ torch.tensor([1.0, -1.0], dtype=logits.dtype)
    return (sum((gap(draw) - gap(truth)).pow(2) for draw in draws) / len(draws)).sqrt()


def stored_row(position, logits, noise):
    return {"position": position, "half_noise": significant(noise[position]),
            "values": numbers(logits[position])}


def positions_of(n):
    """Where logits are stored: early, both sides of the first page's end, the end."""
    return range(n) if n == ALL_POSITIONS else sorted({p for p in (1, 63, 64, n - 1) if p < n})


def golden(folder, recipe):
    """Everything is computed from the files as they were written."""
    config, tensors = reference.read_folder(folder)
    right = Decoder(config, tensors)
    halves = [Decoder(config, tensors, rounded=reference.half_rounding(seed)) for seed in range(N_DRAWS)]
    generator = torch.Generator().manual_seed(100 + recipe.seed)
    prompts, full = [], {}
    for n in recipe.lengths:
        ids = torch.randint(3, config["vocab_size"], (n,), generator=generator).tolist()
        logits = right.logits(ids)
        greedy_ids, gaps = reference.greedy(right, ids, N_GREEDY)
        how = {"ids": ids + greedy_ids[:-1], "prompt_length": n}
        forced, draws = right.logits(**how), [half.logits(**how) for half in halves]
        noise = half_noise(draws, forced)
        full[f"n{n}"] = (ids, logits, greedy_ids, forced[-1])
        prompts.append({
            "name": f"n{n}", "ids": ids,
            "logits": [stored_row(p, logits, noise) for p in positions_of(n)],
            "greedy_ids": greedy_ids, "gaps": numbers(gaps),
            "gap_noise": [significant(x) for x in gap_noise([d[n - 1:] for d in draws], forced[n - 1:])],
            "decoded": stored_row(n + N_GREEDY - 2, forced, noise),
        })
    schemes = {}
    ids = full["n130"][0]
    for scheme in reference.SCHEMES:
        logits = right.logits(ids, scheme=scheme)
        noise = half_noise([half.logits(ids, scheme=scheme) for half in halves], logits)
        distance = relative_rms(logits[64:], full["n130"][1][64:])
        schemes[scheme] = {
            "prompt": "n130", "relative_rms_to_unrounded": round(distance, 6),
            "logits": [stored_row(p, logits, noise) for p in (63, 64, 127, 128, 129)],
        }
    wrong = {}
    for name, (reading, prompt, where) in recipe.wrong.items():
        decoder = Decoder(config, tensors, reading=reading)
        ids, logits, greedy_ids, last = full[prompt]
        if where == "logits":
            rows = list(positions_of(len(ids)))
            distance = relative_rms(decoder.logits(ids)[rows], logits[rows])
        else:
            distance = relative_rms(decoder.logits(ids + greedy_ids[:-1], prompt_length=len(ids))[-1], last)
        wrong[name] = {"prompt": prompt, "where": where, "relative_rms": round(distance, 6)}
    return {"seed": recipe.seed, "rope_base_n130": right.prompt_base(130), "prompts": prompts,
            "schemes": schemes, "wrong": wrong}


def write_json(path, value):
    """One line per list of numbers."""
    def text(v, indent):
        if isinstance(v, dict):
            inner = ",\n".join(f'{" " * (indent + 1)}{json.dumps(k)}: {text(x, indent + 1)}' for k, x in v.items())
            return "{\n" + inner + "\n" + " " * indent + "}"
        if isinstance(v, list) and v and isinstance(v[0], dict):
            return "[\n" + ",\n".join(" " * (indent + 1) + text(x, indent + 1) for x in v) + "\n" + " " * indent + "]"
        return json.dumps(v, separators=(",", ":"))
    path.write_text(text(value, 0) + "\n")


def report(name, folder, recipe):
    data = json.loads((folder / "golden.json").read_text())
    size = sum(f.stat().st_size for f in folder.iterdir())
    gaps = [g for p in data["prompts"] for g in p["gaps"]]
    spread = torch.tensor(data["prompts"][-1]["logits"][-1]["values"]).std()
    print(f"{name}: {size / 1e3:.0f} kB, logits' deviation {spread:.2f}, smallest gap {min(gaps):.4f}, "
          f"{sum(g < 0.02 for g in gaps)} of {len(gaps)} under 0.02")
    print("  wrong:  " + "  ".join(f"{k} {v['relative_rms']:.4f}" for k, v in data["wrong"].items()))
    noise = lambda rows: (sum(row["half_noise"]**2 for row in rows) / len(rows))**0.5
    rows = [row for p in data["prompts"] for row in p["logits"] + [p["decoded"]]]
    print(f"  half noise: prompts {noise(rows):.5f}  " + "  ".join(
        f"{k} {noise(v['logits'][1:]):.5f}" for k, v in data["schemes"].items()))
    print("  scheme: " + "  ".join(f"{k} {v['relative_rms_to_unrounded']:.5f}" for k, v in data["schemes"].items()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=pathlib.Path, default=pathlib.Path(__file__).parent / "golden")
    parser.add_argument("--check", action="store_true", help="compare with transformers, write nothing")
    args = parser.parse_args()
    torch.set_num_threads(1)  # matrices are small
    if args.check:
        import check_reference
        check_reference.main(args.folder, RECIPES)
        return
    for name, recipe in RECIPES.items():
        folder = args.folder / name
        write_folder(folder, recipe, make_tensors(recipe))
        write_json(folder / "golden.json", golden(folder, recipe))
        report(name, folder, recipe)


if __name__ == "__main__":
    main()
