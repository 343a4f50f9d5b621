"""Tiny random checkpoints of DeepSeek-OCR and DeepSeek-OCR-2 that the real vLLM loads: 130 MB, about a second each.

The text that they write is noise, but it follows from the image, and the whole path is the real one. Widths of the vision
towers are constants in vLLM; their depths are one here (tiny_vllm makes vLLM agree). Gains are chosen so that the
random language model listens to the image and not only to its last token.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

ARCHITECTURES = {"deepseek-ocr": "DeepseekOCRForCausalLM", "deepseek-ocr-2": "DeepseekOCR2ForCausalLM"}

_VOCABULARY = 129_280
_BOS, _EOS, _PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"  # noqa: RUF001
#: tokens whose ids the real models have, too
_FIXED = {
    0: _BOS,
    1: _EOS,
    2: _PAD,
    128815: "<image>",
    128816: "<|ref|>",
    128817: "<|/ref|>",
    128818: "<|det|>",
    128819: "<|/det|>",
    128820: "<|grounding|>",
    128821: "<td>",
    128822: "</td>",
    128823: "<tr>",
    128824: "</tr>",
}
_HIDDEN, _LAYERS, _HEADS, _EXPERTS = 128, 2, 2, 4
_CONTEXT = 8192


def write_checkpoint(folder: Path, model: str) -> Path:
    """Write a checkpoint of a model (a key of ARCHITECTURES) and return its folder."""
    folder.mkdir(parents=True)
    _write_tokenizer(folder)
    _write_configuration(folder, model)
    weights = _Weights()
    _language_model(weights)
    _sam(weights, out=1024 if model == "deepseek-ocr" else 896)
    _clip(weights) if model == "deepseek-ocr" else _qwen2(weights)
    weights.normal("model.view_seperator", _HIDDEN)
    save_file(weights.tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _write_tokenizer(folder: Path) -> None:
    vocabulary = {token: number for number, token in _FIXED.items()}
    free = (number for number in range(_VOCABULARY) if number not in _FIXED)
    for character in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[character] = next(free)
    for number, word in zip(free, _words(), strict=False):
        vocabulary["Ġ" + word] = number
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], fuse_unk=False))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = {_BOS, _EOS, _PAD}
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.add_tokens(
        [AddedToken(token, special=False, normalized=False) for token in _FIXED.values() if token not in special]
    )
    assert all(tokenizer.token_to_id(token) == number for number, token in _FIXED.items())
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(
        folder / "tokenizer_config.json",
        tokenizer_class="PreTrainedTokenizerFast",
        bos_token=_BOS,
        eos_token=_EOS,
        pad_token=_PAD,
        add_bos_token=True,
        add_eos_token=False,
        clean_up_tokenization_spaces=False,
        model_max_length=2 * _CONTEXT,
    )
    _write_json(folder / "special_tokens_map.json", bos_token=_BOS, eos_token=_EOS, pad_token=_PAD)


def _words() -> Iterator[str]:
    """Yield readable filler, so that random tokens decode to something like words."""
    syllables = ["".join(pair) for pair in itertools.product("bcdfghjklmnprstvwz", "aeiou")]
    return ("".join(word) for word in itertools.product(syllables, repeat=3))


def _write_configuration(folder: Path, model: str) -> None:
    language = {
        "architectures": ["DeepseekV2ForCausalLM"],
        "bos_token_id": 0,
        "eos_token_id": 1,
        "vocab_size": _VOCABULARY,
        "max_position_embeddings": _CONTEXT,
        "hidden_size": _HIDDEN,
        "intermediate_size": 4 * _HIDDEN,
        "moe_intermediate_size": 64,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": _HEADS,
        "num_key_value_heads": _HEADS,
        "first_k_dense_replace": 1,
        "n_routed_experts": _EXPERTS,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
        "topk_method": "greedy",
        "use_mla": False,
        "kv_lora_rank": None,
        "q_lora_rank": None,
        "qk_nope_head_dim": 0,
        "qk_rope_head_dim": 0,
        "v_head_dim": 0,
        "lm_head": True,
        "rm_head": False,
        "torch_dtype": "bfloat16",
    }
    shared = ("hidden_size", "vocab_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings")
    width = 2048 if model == "deepseek-ocr" else 896
    vision = {"image_size": 1024, "mlp_ratio": 3.7362, "model_name": "deeplip_b_l", "model_type": "vision"}
    _write_json(
        folder / "config.json",
        architectures=[ARCHITECTURES[model]],
        model_type="deepseek_vl_v2",
        candidate_resolutions=[[1024, 1024]],
        global_view_pos="head",
        tile_tag="2D",
        torch_dtype="bfloat16",
        language_config=language,
        projector_config={
            "input_dim": width,
            "n_embed": _HIDDEN,
            "model_type": "mlp_projector",
            "projector_type": "linear",
        },
        vision_config=vision,
        bos_token_id=0,
        eos_token_id=1,
        **{name: language[name] for name in shared},
    )
    _write_json(folder / "generation_config.json", bos_token_id=0, eos_token_id=1, pad_token_id=2)
    _write_json(
        folder / "processor_config.json",
        processor_class="DeepseekVLV2Processor",
        image_token="<image>",  # noqa: S106 - a token of a text
        pad_token=_PAD,
        patch_size=16,
        downsample_ratio=4,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        normalize=True,
        add_special_token=False,
        sft_format="deepseek",
        mask_prompt=False,
        ignore_id=-100,
        candidate_resolutions=[[1024, 1024]],
    )


def _write_json(path: Path, **facts: object) -> None:
    path.write_text(json.dumps(facts, ensure_ascii=False, indent=1), encoding="utf-8")


class _Weights:
    """Random tensors by name; the same at each call."""

    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self._random = torch.Generator().manual_seed(0)

    def normal(self, name: str, *shape: int, std: float = 0.02) -> None:
        self.tensors[name] = (torch.randn(*shape, generator=self._random) * std).to(torch.bfloat16)

    def norm(self, name: str, size: int, *, bias: bool = True) -> None:
        self.tensors[f"{name}.weight"] = torch.ones(size, dtype=torch.bfloat16)
        if bias:
            self.tensors[f"{name}.bias"] = torch.zeros(size, dtype=torch.bfloat16)

    def linear(self, name: str, out: int, size: int, *, bias: bool = True, std: float | None = None) -> None:
        self.normal(f"{name}.weight", out, size, std=std or size**-0.5)
        if bias:
            self.tensors[f"{name}.bias"] = torch.zeros(out, dtype=torch.bfloat16)


def _language_model(weights: _Weights) -> None:
    weights.normal("model.embed_tokens.weight", _VOCABULARY, _HIDDEN, std=0.3)
    weights.normal("lm_head.weight", _VOCABULARY, _HIDDEN, std=1.0)
    weights.norm("model.norm", _HIDDEN, bias=False)
    for number in range(_LAYERS):
        layer = f"model.layers.{number}"
        weights.norm(f"{layer}.input_layernorm", _HIDDEN, bias=False)
        weights.norm(f"{layer}.post_attention_layernorm", _HIDDEN, bias=False)
        for part in "qkvo":
            weights.linear(f"{layer}.self_attn.{part}_proj", _HIDDEN, _HIDDEN, bias=False, std=3 * _HIDDEN**-0.5)
        if number < 1:
            _mlp(weights, f"{layer}.mlp", 4 * _HIDDEN)
            continue
        weights.linear(f"{layer}.mlp.gate", _EXPERTS, _HIDDEN, bias=False)
        _mlp(weights, f"{layer}.mlp.shared_experts", 64)
        for expert in range(_EXPERTS):
            _mlp(weights, f"{layer}.mlp.experts.{expert}", 64)


def _mlp(weights: _Weights, name: str, size: int) -> None:
    weights.linear(f"{name}.gate_proj", size, _HIDDEN, bias=False)
    weights.linear(f"{name}.up_proj", size, _HIDDEN, bias=False)
    weights.linear(f"{name}.down_proj", _HIDDEN, size, bias=False)


def _sam(weights: _Weights, *, out: int) -> None:
    name = "model.sam_model"
    weights.normal(f"{name}.patch_embed.proj.weight", 768, 3, 16, 16)
    weights.tensors[f"{name}.patch_embed.proj.bias"] = torch.zeros(768, dtype=torch.bfloat16)
    weights.normal(f"{name}.pos_embed", 1, 64, 64, 768)
    block = f"{name}.blocks.0"
    weights.norm(f"{block}.norm1", 768)
    weights.norm(f"{block}.norm2", 768)
    weights.linear(f"{block}.attn.qkv", 2304, 768)
    weights.linear(f"{block}.attn.proj", 768, 768)
    weights.normal(f"{block}.attn.rel_pos_h", 27, 64)
    weights.normal(f"{block}.attn.rel_pos_w", 27, 64)
    weights.linear(f"{block}.mlp.lin1", 3072, 768)
    weights.linear(f"{block}.mlp.lin2", 768, 3072)
    weights.normal(f"{name}.neck.0.weight", 256, 768, 1, 1, std=768**-0.5)
    weights.norm(f"{name}.neck.1", 256)
    weights.normal(f"{name}.neck.2.weight", 256, 256, 3, 3, std=2304**-0.5)
    weights.norm(f"{name}.neck.3", 256)
    weights.normal(f"{name}.net_2.weight", 512, 256, 3, 3, std=2304**-0.5)
    weights.normal(f"{name}.net_3.weight", out, 512, 3, 3, std=4608**-0.5)


def _clip(weights: _Weights) -> None:
    name = "model.vision_model"
    weights.normal(f"{name}.embeddings.class_embedding", 1024)
    weights.normal(f"{name}.embeddings.patch_embedding.weight", 1024, 3, 14, 14)
    weights.normal(f"{name}.embeddings.position_embedding.weight", 257, 1024)
    weights.norm(f"{name}.pre_layrnorm", 1024)
    layer = f"{name}.transformer.layers.0"
    weights.norm(f"{layer}.layer_norm1", 1024)
    weights.norm(f"{layer}.layer_norm2", 1024)
    weights.linear(f"{layer}.self_attn.qkv_proj", 3072, 1024)
    weights.linear(f"{layer}.self_attn.out_proj", 1024, 1024)
    weights.linear(f"{layer}.mlp.fc1", 4096, 1024)
    weights.linear(f"{layer}.mlp.fc2", 1024, 4096)
    weights.linear("model.projector.layers", _HIDDEN, 2048, std=4 * 2048**-0.5)
    weights.normal("model.image_newline", _HIDDEN)


def _qwen2(weights: _Weights) -> None:
    name = "model.qwen2_model"
    weights.normal(f"{name}.query_768.weight", 144, 896)
    weights.normal(f"{name}.query_1024.weight", 256, 896)
    weights.norm(f"{name}.model.model.norm", 896, bias=False)
    layer = f"{name}.model.model.layers.0"
    weights.norm(f"{layer}.input_layernorm", 896, bias=False)
    weights.norm(f"{layer}.post_attention_layernorm", 896, bias=False)
    weights.linear(f"{layer}.self_attn.q_proj", 896, 896)
    weights.linear(f"{layer}.self_attn.k_proj", 128, 896)
    weights.linear(f"{layer}.self_attn.v_proj", 128, 896)
    weights.linear(f"{layer}.self_attn.o_proj", 896, 896, bias=False)
    weights.linear(f"{layer}.mlp.gate_proj", 4864, 896, bias=False)
    weights.linear(f"{layer}.mlp.up_proj", 4864, 896, bias=False)
    weights.linear(f"{layer}.mlp.down_proj", 896, 4864, bias=False)
    weights.linear("model.projector.layers", _HIDDEN, 896, std=4 * 896**-0.5)
