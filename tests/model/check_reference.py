# SPDX-License-Identifier: Apache-2.0
"""Compares reference_decoder.py with implementations that are not ours; see make_checkpoints.py."""
import torch

import reference_decoder as reference
from reference_decoder import Decoder, relative_rms


def packed_by_hand():
    """Words worked out on paper: columns 0 .. 7 of one row."""
    for word, columns in [(0x86427531, [1, 2, 3, 4, 5, 6, 7, 8]), (0xF5316420, [0, 1, 2, 3, 4, 5, 6, 15]),
                          (0x8ACE9BDF, [15, 14, 13, 12, 11, 10, 9, 8])]:
        signed = torch.tensor([[word - 2**32]], dtype=torch.int32)
        assert reference.awq_unpack(signed).tolist() == [columns], hex(word)
    eights = torch.full((1, 1), 0x88888888 - 2**32, dtype=torch.int32)
    word = torch.tensor([[0x86427531 - 2**32]], dtype=torch.int32)
    weight = reference.awq_weight(word, eights, torch.full((1, 8), 0.5, dtype=torch.float16))
    assert weight.flatten().tolist() == [-3.5, -3, -2.5, -2, -1.5, -1, -0.5, 0]


def rotated_by_hand():
    """One vector at position 5, base 1e6, computed elsewhere."""
    x = torch.arange(128, dtype=torch.float64).view(1, 1, 128) / 128
    angles = 5 * 1e6 ** (-torch.arange(0, 128, 2, dtype=torch.float64) / 128)[None]
    y = reference.rotate(x, angles, halves=True).flatten()
    expected = [0.4794621373, 0.3889126502, 0.0386645508, 0.4921813438, 0.1418310927, -0.3266213723,
                -0.5144106665, 0.9921905539]
    assert (y[[0, 1, 2, 63, 64, 65, 66, 127]] - torch.tensor(expected, dtype=torch.float64)).abs().max() < 1e-9


def as_llama(config, decoder):
    """InternLM2 in Llama's names: queries, keys and values separated, AWQ inflated."""
    heads, kv, dim = decoder.heads, decoder.kv_heads, decoder.dim
    names = {"model.tok_embeddings": "model.embed_tokens", "output": "lm_head", "attention_norm":
             "input_layernorm", "ffn_norm": "post_attention_layernorm", "attention.wo": "self_attn.o_proj",
             "feed_forward.w1": "mlp.gate_proj", "feed_forward.w3": "mlp.up_proj", "feed_forward.w2": "mlp.down_proj"}
    tensors = {}
    for name, t in decoder.tensors.items():
        if not name.endswith(".weight"):
            continue
        if "wqkv" in name:  # rows: per KV head, its query heads, its key, its value
            rows = [[], [], []]
            for row in range(t.shape[0] // dim):
                in_group = row % (heads // kv + 2)
                rows[max(0, in_group - heads // kv + 1)].append(t[row * dim:(row + 1) * dim])
            for letter, part in zip("qkv", rows):
                tensors[name.replace("attention.wqkv", f"self_attn.{letter}_proj")] = torch.cat(part)
            continue
        for old, new in names.items():
            name = name.replace(old, new) if old != "output" or name == "output.weight" else name
        tensors[name] = t
    return config | {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}, tensors


def peer(config, tensors):
    """transformers' decoder of the same weights in float64."""
    import transformers

    kind = {"llama": "Llama", "qwen2": "Qwen2"}[config["model_type"]]
    config = {k: v for k, v in config.items() if k not in ("architectures", "attn_implementation", "auto_map", "bias", "model_type",
                                                        "quantization_config", "torch_dtype")}
    config = getattr(transformers, kind + "Config")(**config, attn_implementation="eager")
    model = getattr(transformers, kind + "ForCausalLM")(config).double().eval()
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    model.tie_weights()
    return model


def main(folder, recipes):
    packed_by_hand()
    rotated_by_hand()
    print("packed words, dequantised row, rotated vector: as worked out by hand")
    for name, recipe in recipes.items():
        config, tensors = reference.read_folder(folder / name)
        ours = Decoder(config, tensors)
        their_config, their_tensors = (
            as_llama(config, ours) if config["model_type"] == "internlm2" else (config, ours.tensors))
        generator = torch.Generator().manual_seed(recipe.seed)
        worst = 0.0
        for n in recipe.lengths:
            model = peer(their_config, their_tensors)  # a fresh one: dynamic scaling outlives a prompt
            ids = torch.randint(3, config["vocab_size"], (n,), generator=generator).tolist()
            with torch.no_grad():
                theirs = model(torch.tensor([ids])).logits[0]
            worst = max(worst, relative_rms(ours.logits(ids), theirs))
        print(f"{name}: relative RMS to transformers at most {worst:.2e} over prompts of {recipe.lengths} tokens")
        # transformers computes angles and the norms' statistics in float32
        assert worst < 1e-5
