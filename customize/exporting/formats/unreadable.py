"""Name adapters of known kinds that are no sum with the base's weights, or need more than that."""

from __future__ import annotations

from collections.abc import Iterable

from customize.exporting.formats.module_paths import ROOT
from customize.exporting.formats.tensor_roles import split_key

_MERGE = "merge it into its base with the program that made it, and name that base"
_METHODS = (
    *("adamss_", "beft_", "bone_", "c3a_", "deft_", "delora_", "fourierft_", "frod_", "gralora_"),
    *("hira_", "hra_", "lily_", "ln_tuning_", "miss_", "osf_", "peanut_", "poly_", "psoft_"),
    *("pvera_lambda_", "randlora_", "road_", "shadow_", "shira_", "supertuning_", "tinylora_"),
    *("unilora_", "vblora_", "vera_lambda_", "waveft_"),
)
# A part of a tensor's name between dots, or its start, and what such tensors are.
_PARTS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (("boft_",), "BOFT, which turns weights by butterflies", _MERGE),
    (("oft_blocks", "oft_diag", "oft_R", "oft_"), "OFT, which turns weights", _MERGE),
    (("ia3_", "on_input"), "(IA)3, which scales activations", _MERGE),
    (("glora_",), "GLoRA, which scales and shifts weights", _MERGE),
    (
        ("trainable_tokens", "token_adapter"),
        "trainable tokens, new rows of words that the base knows already",
        "teach a new word instead, or " + _MERGE,
    ),
    (
        ("modules_to_save",),
        "modules_to_save, whole layers beside factors",
        "teach them by factors, or " + _MERGE,
    ),
    (("lora_embedding_A", "lora_embedding_B"), "LoRA of an embedding table", _MERGE),
    (("lora_E", "ranknum"), "AdaLoRA, whose factors come with singular values", _MERGE),
    (("lora_velora_embed",), "VeLoRA", _MERGE),
    (_METHODS, "an adapter of another of peft's methods", _MERGE),
    (("prompt_embeddings",), "a taught prompt", "teach a word instead"),
    (("lllite_unet", "lllite_"), "a ControlNet-LLLite", "name the file of an adapter"),
)
_GLORA = (".a1.weight", ".a2.weight", ".b1.weight", ".b2.weight")


def known_kind(keys: Iterable[str]) -> tuple[str, str] | None:
    """Say what a file of these tensors is and what to do, None for what is not known by name."""
    for key in keys:
        parts = key.split(".")
        for names, kind, cure in _PARTS:
            if any(part.startswith(names) for part in parts):
                return f"{kind} (its tensor {key!r})", cure
        if key.endswith(_GLORA):
            return f"GLoRA, which scales and shifts weights (its tensor {key!r})", _MERGE
        if key.startswith(ROOT) and key.endswith(".weight") and split_key(key) is None:
            kind = (
                "a file of peft's with whole layers beside factors, as modules_to_save leaves them"
            )
            return f"{kind} (its tensor {key!r})", "teach them by factors, or " + _MERGE
    return None
