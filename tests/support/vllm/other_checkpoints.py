"""Tiny random checkpoints of the models that take a page as large as it is: some MB, a second each.

Configs, tokenizers and preprocessors have the form of the published ones, with their special tokens, patch sizes and
limits of pixels; widths and depths are small, and the weights are noise. `torch` and `transformers` are in vLLM's
environment only.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

_HIDDEN, _HEADS, _LAYERS, _CONTEXT = 64, 2, 2, 32_768
_CLIP_MEAN, _CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
#: All that the published preprocessors of Qwen2-VL's kind have in common.
_PATCHES = {"patch_size": 14, "merge_size": 2}
_TEXT = {
    "hidden_size": _HIDDEN,
    "intermediate_size": 2 * _HIDDEN,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": _HEADS,
    "num_key_value_heads": _HEADS,
    "max_position_embeddings": _CONTEXT,
}


def write_checkpoint(folder: Path, model: str) -> Path:
    """Write a checkpoint of a model (a key of WRITERS) and return its folder."""
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    WRITERS[model](folder)
    return folder


def _olmocr(folder: Path) -> None:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    ids = _tokenizer(
        folder,
        [
            "<|endoftext|>",
            "<|im_start|>",
            "<|im_end|>",
            "<|vision_start|>",
            "<|vision_end|>",
            "<|image_pad|>",
            "<|video_pad|>",
        ],
        end="<|im_end|>",
        kind="Qwen2Tokenizer",
    )
    config = Qwen2_5_VLConfig(
        text_config={
            **_TEXT,
            "vocab_size": len(ids),
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 6, 6]},
        },
        vision_config={
            "depth": 1,
            "hidden_size": _HIDDEN,
            "intermediate_size": 2 * _HIDDEN,
            "num_heads": _HEADS,
            "out_hidden_size": _HIDDEN,
            "fullatt_block_indexes": [0],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    _save(folder, Qwen2_5_VLForConditionalGeneration(config))
    _write(
        folder / "preprocessor_config.json",
        image_processor_type="Qwen2VLImageProcessor",
        processor_class="Qwen2_5_VLProcessor",
        min_pixels=3136,
        max_pixels=12_845_056,
        temporal_patch_size=2,
        image_mean=_CLIP_MEAN,
        image_std=_CLIP_STD,
        **_PATCHES,
    )


def _glm(folder: Path) -> None:
    from transformers import GlmOcrConfig, GlmOcrForConditionalGeneration

    tags = ["[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|endoftext|>", "<|begin_of_image|>", "<|end_of_image|>"]
    tags += ["<|image|>", "<|begin_of_video|>", "<|end_of_video|>", "<|video|>"]
    ids = _tokenizer(folder, tags, end="<|endoftext|>", kind="PreTrainedTokenizerFast")
    config = GlmOcrConfig(
        text_config={
            **_TEXT,
            "vocab_size": len(ids),
            "head_dim": _HIDDEN // _HEADS,
            "eos_token_id": [ids["<|endoftext|>"], ids["<|user|>"]],
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [4, 6, 6],
                "partial_rotary_factor": 1.0,
            },
        },
        vision_config={
            "depth": 1,
            "hidden_size": _HIDDEN,
            "intermediate_size": 2 * _HIDDEN,
            "num_heads": _HEADS,
            "out_hidden_size": _HIDDEN,
        },
        image_token_id=ids["<|image|>"],
        video_token_id=ids["<|video|>"],
        image_start_token_id=ids["<|begin_of_image|>"],
        image_end_token_id=ids["<|end_of_image|>"],
        video_start_token_id=ids["<|begin_of_video|>"],
        video_end_token_id=ids["<|end_of_video|>"],
    )
    _save(folder, GlmOcrForConditionalGeneration(config))
    _write(
        folder / "preprocessor_config.json",
        image_processor_type="Glm46VImageProcessor",
        processor_class="Glm46VProcessor",
        size={"shortest_edge": 12_544, "longest_edge": 9_633_792},
        temporal_patch_size=2,
        image_mean=_CLIP_MEAN,
        image_std=_CLIP_STD,
        **_PATCHES,
    )


def _paddle(folder: Path) -> None:
    from transformers import PaddleOCRVLConfig, PaddleOCRVLForConditionalGeneration

    tags = [
        "<unk>",
        "<s>",
        "</s>",
        "<|begin_of_sentence|>",
        "<|IMAGE_START|>",
        "<|IMAGE_END|>",
        "<|IMAGE_PLACEHOLDER|>",
    ]
    # Its processor asks the tokenizer for the name.
    named = {"image_token": "<|IMAGE_PLACEHOLDER|>"}
    ids = _tokenizer(folder, tags, end="</s>", kind="PreTrainedTokenizerFast", **named)
    config = PaddleOCRVLConfig(
        text_config={
            **_TEXT,
            "vocab_size": len(ids),
            "head_dim": _HIDDEN // _HEADS,
            "eos_token_id": ids["</s>"],
            "rope_parameters": {"rope_type": "default", "rope_theta": 5e5, "mrope_section": [4, 6, 6]},
        },
        vision_config={
            "hidden_size": _HIDDEN,
            "intermediate_size": 2 * _HIDDEN,
            "num_hidden_layers": 1,
            "num_attention_heads": _HEADS,
        },
        image_token_id=ids["<|IMAGE_PLACEHOLDER|>"],
        vision_start_token_id=ids["<|IMAGE_START|>"],
        vision_end_token_id=ids["<|IMAGE_END|>"],
        tie_word_embeddings=False,
    )
    _save(folder, PaddleOCRVLForConditionalGeneration(config))
    _write(
        folder / "preprocessor_config.json",
        auto_map={
            "AutoImageProcessor": "image_processing_paddleocr_vl.PaddleOCRVLImageProcessor",
            "AutoProcessor": "processing_paddleocr_vl.PaddleOCRVLProcessor",
        },
        image_processor_type="PaddleOCRVLImageProcessor",
        processor_class="PaddleOCRVLProcessor",
        min_pixels=147_384,
        max_pixels=2_822_400,
        temporal_patch_size=1,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        **_PATCHES,
    )


def _dots(folder: Path) -> None:
    tags = [
        "<|endoftext|>",
        "<|user|>",
        "<|endofuser|>",
        "<|assistant|>",
        "<|endofassistant|>",
        "<|img|>",
        "<|endofimg|>",
    ]
    ids = _tokenizer(folder, [*tags, "<|imgpad|>", "<|video_pad|>"], end="<|endoftext|>", kind="Qwen2Tokenizer")
    _write(
        folder / "config.json",
        architectures=["DotsOCRForCausalLM"],
        model_type="dots_ocr",
        auto_map={
            "AutoConfig": "configuration_dots.DotsOCRConfig",
            "AutoModelForCausalLM": "modeling_dots_ocr.DotsOCRForCausalLM",
        },
        **_TEXT,
        vocab_size=len(ids),
        attention_bias=True,
        hidden_act="silu",
        rms_norm_eps=1e-6,
        rope_theta=1e6,
        tie_word_embeddings=False,
        torch_dtype="bfloat16",
        image_token_id=ids["<|imgpad|>"],
        video_token_id=ids["<|video_pad|>"],
        eos_token_id=ids["<|endoftext|>"],
        vision_config={
            "embed_dim": _HIDDEN,
            "hidden_size": _HIDDEN,
            "intermediate_size": 2 * _HIDDEN,
            "num_hidden_layers": 1,
            "num_attention_heads": _HEADS,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 1,
            "use_bias": False,
        },
    )
    save_file(_dots_weights(len(ids)), folder / "model.safetensors", metadata={"format": "pt"})
    _write(
        folder / "preprocessor_config.json",
        auto_map={"AutoProcessor": "configuration_dots.DotsVLProcessor"},
        image_processor_type="Qwen2VLImageProcessor",
        processor_class="DotsVLProcessor",
        min_pixels=3136,
        max_pixels=11_289_600,
        temporal_patch_size=1,
        image_mean=_CLIP_MEAN,
        image_std=_CLIP_STD,
        **_PATCHES,
    )


def _dots_weights(vocabulary: int) -> dict[str, torch.Tensor]:
    """Return weights by the names that the published checkpoint has for them."""
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, _HIDDEN),
        "lm_head.weight": (vocabulary, _HIDDEN),
        "model.norm.weight": (_HIDDEN,),
        "vision_tower.patch_embed.patchifier.proj.weight": (_HIDDEN, 3, 14, 14),
        "vision_tower.patch_embed.patchifier.proj.bias": (_HIDDEN,),
        "vision_tower.patch_embed.patchifier.norm.weight": (_HIDDEN,),
        "vision_tower.post_trunk_norm.weight": (_HIDDEN,),
        "vision_tower.merger.ln_q.weight": (_HIDDEN,),
        "vision_tower.merger.ln_q.bias": (_HIDDEN,),
        "vision_tower.merger.mlp.0.weight": (4 * _HIDDEN, 4 * _HIDDEN),
        "vision_tower.merger.mlp.0.bias": (4 * _HIDDEN,),
        "vision_tower.merger.mlp.2.weight": (_HIDDEN, 4 * _HIDDEN),
        "vision_tower.merger.mlp.2.bias": (_HIDDEN,),
    }
    block = "vision_tower.blocks.0"
    shapes |= {f"{block}.{norm}.weight": (_HIDDEN,) for norm in ("norm1", "norm2")}
    shapes |= {f"{block}.attn.qkv.weight": (3 * _HIDDEN, _HIDDEN), f"{block}.attn.proj.weight": (_HIDDEN, _HIDDEN)}
    shapes |= {f"{block}.mlp.{part}.weight": (2 * _HIDDEN, _HIDDEN) for part in ("fc1", "fc3")}
    shapes[f"{block}.mlp.fc2.weight"] = (_HIDDEN, 2 * _HIDDEN)
    for number in range(_LAYERS):
        layer = f"model.layers.{number}"
        shapes |= {f"{layer}.{norm}.weight": (_HIDDEN,) for norm in ("input_layernorm", "post_attention_layernorm")}
        shapes |= {f"{layer}.self_attn.{part}_proj.weight": (_HIDDEN, _HIDDEN) for part in "qkvo"}
        shapes |= {f"{layer}.self_attn.{part}_proj.bias": (_HIDDEN,) for part in "qkv"}
        shapes |= {f"{layer}.mlp.{part}_proj.weight": (2 * _HIDDEN, _HIDDEN) for part in ("gate", "up")}
        shapes[f"{layer}.mlp.down_proj.weight"] = (_HIDDEN, 2 * _HIDDEN)
    return {
        name: torch.ones(shape, dtype=torch.bfloat16) if "norm" in name or "ln_q.weight" in name else _noise(shape)
        for name, shape in shapes.items()
    }


def _noise(shape: tuple[int, ...]) -> torch.Tensor:
    return (torch.randn(shape) * 0.3).to(torch.bfloat16)


def _save(folder: Path, model: torch.nn.Module) -> None:
    """Write a model of transformers, with weights large enough that what it writes follows from what it sees."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "norm" not in name:
                parameter.normal_(std=0.3)
    model.to(torch.bfloat16).save_pretrained(folder)


def _tokenizer(folder: Path, special: list[str], *, end: str, kind: str, **more: str) -> dict[str, int]:
    """Write a tokenizer of bytes and special tokens; return the ids by token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={character: number for number, character in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.save(str(folder / "tokenizer.json"))
    _write(
        folder / "tokenizer_config.json",
        tokenizer_class=kind,
        eos_token=end,
        pad_token=end,
        unk_token=end,
        clean_up_tokenization_spaces=False,
        model_max_length=_CONTEXT,
        **more,
    )
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return vocabulary


def _write(path: Path, **facts: object) -> None:
    path.write_text(json.dumps(facts, ensure_ascii=False, indent=1), encoding="utf-8")


WRITERS: dict[str, Callable[[Path], None]] = {
    "dots-ocr": _dots,
    "glm-ocr": _glm,
    "olmocr-2": _olmocr,
    "paddleocr-vl": _paddle,
}
