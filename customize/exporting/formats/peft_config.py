"""peft's configurations: what each field of them means for the weights beside it.

Every field of the kinds that are read stands in one of three tables: used, known to leave the
weights' meaning alone, or refused by its name. A test holds them against the installed peft's own
lists, so that a new field or kind is noticed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from customize.errors import AdapterFileError
from customize.exporting.changes import StartKind
from customize.exporting.formats.peft_patterns import Patterns, number_of, read_patterns

Kind = Literal["LORA", "LOHA", "LOKR"]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NOTES = _names(
    "task_type auto_mapping peft_version base_model_name_or_path revision inference_mode "
    "target_modules exclude_modules layers_to_transform layers_pattern"
)
_OF_PRODUCTS = _names("rank_dropout module_dropout use_effective_conv2d init_weights")
USED: Mapping[Kind, frozenset[str]] = {
    "LORA": _names(
        "peft_type r lora_alpha rank_pattern alpha_pattern use_rslora use_dora init_lora_weights"
    ),
    "LOHA": _names("peft_type r alpha rank_pattern alpha_pattern"),
    "LOKR": _names("peft_type r alpha rank_pattern alpha_pattern"),
}
HARMLESS: Mapping[Kind, frozenset[str]] = {
    # biases are told by their tensors' names; what only one kind of start reads counts with it
    "LORA": _NOTES
    | _names(
        "lora_dropout bias lora_bias megatron_core runtime_config ensure_weight_tying "
        "qalora_group_size loftq_config eva_config corda_config lora_ga_config"
    ),
    "LOHA": _NOTES | _OF_PRODUCTS,
    "LOKR": _NOTES | _OF_PRODUCTS | _names("rank_dropout_scale decompose_both decompose_factor"),
}
_MERGED = "merge it into its base with peft (merge_and_unload) and name that base"
REFUSED: Mapping[str, tuple[str, str]] = {
    "modules_to_save": ("whole layers were taught beside the factors", "teach them by factors"),
    "trainable_token_indices": ("rows of known words were taught", "teach a new word instead"),
    "fan_in_fan_out": ("its factors are transposed", _MERGED),
    "megatron_config": ("its layers are split over devices", "save it whole"),
    "use_qalora": ("its factors read groups of inputs", _MERGED),
    "use_bdlora": ("its factors are blocks of a matrix", _MERGED),
    "alora_invocation_tokens": (
        "it acts on a part of the text",
        "take an adapter that always acts",
    ),
    "layer_replication": ("it repeats layers of the base", _MERGED),
    "target_parameters": ("it changes parameters that are no layers", _MERGED),
    "arrow_config": ("it chooses among several adapters", "take one of them"),
    "velora_config": ("it keeps tensors that are not read", "save it without them"),
    "monteclora_config": ("its factors are random", _MERGED),
    "kasa_config": ("its factors come with singular values", _MERGED),
}
USUAL_ALPHA = 8.0
"""The default of LoraConfig, LoHaConfig and LoKrConfig."""
# How LoRA may start without touching the base, and from the base's weights alone.
_PLAIN_STARTS = ("gaussian", "orthogonal", "eva", "mica", "true", "false")


@dataclass(frozen=True)
class PeftConfig:
    """What of a configuration counts; None stands for what it does not say.

    `usual_alpha` is what peft takes where neither it nor the tensors say one.
    """

    kind: Kind = "LORA"
    rank: float | None = None
    alpha: float | None = None
    rank_pattern: Patterns = field(default_factory=lambda: Patterns({}))
    alpha_pattern: Patterns = field(default_factory=lambda: Patterns({}))
    rslora: bool = False
    dora: bool | None = None
    start: StartKind | None = None
    usual_alpha: float | None = None

    def scale(self, path: str, rank: int | None) -> float | None:
        """Return what multiplies the factors of the layer at `path` (without `text_model.`).

        `rank` is what its tensors have, None where they do not tell. None where no alpha is given.
        Raises ValueError for another rank than the configuration says, with which peft could not
        load them.
        """
        spellings = (path, f"text_model.{path}")
        stated = self.rank_pattern.of(*spellings) or self.rank
        if stated is not None and rank is not None and stated != rank:
            raise ValueError(f"rank {rank}, and the configuration says {stated:g}")
        alpha = self.alpha_pattern.of(*spellings)
        own = self.usual_alpha if self.alpha is None else self.alpha
        alpha = own if alpha is None else alpha
        divisor = rank if stated is None else stated
        if alpha is None or divisor is None:
            return None
        # rank-stabilized LoRA divides by the root of the rank (arXiv 2312.03732)
        return alpha / (divisor**0.5 if self.rslora else divisor)


def read_config(fields: Any, name: str) -> PeftConfig:
    """Read a configuration found under `name`.

    Raises AdapterFileError that names the field, or the kind, whose weights cannot be read exactly.
    """
    if not isinstance(fields, Mapping):
        raise _refused(f"its {name} is no table", "download or copy it again")
    kind = _kind(fields.get("peft_type"), name)
    alpha = "lora_alpha" if kind == "LORA" else "alpha"
    for key, value in fields.items():
        _check_field(kind, key, value, name)

    def number(key: str, *, whole: bool) -> float | None:
        value = fields.get(key)
        return None if value is None else number_of(value, f"{name}: {key}", whole=whole)

    def patterns(key: str, *, whole: bool) -> Patterns:
        return read_patterns(fields.get(key), f"{name}: {key}", whole=whole)

    return PeftConfig(
        kind,
        rank=number("r", whole=True),
        alpha=number(alpha, whole=False),
        rank_pattern=patterns("rank_pattern", whole=True),
        alpha_pattern=patterns("alpha_pattern", whole=False),
        rslora=bool(fields.get("use_rslora")),
        dora=fields.get("use_dora"),
        start=_start(fields.get("init_lora_weights"), name),
        usual_alpha=USUAL_ALPHA,
    )


def _kind(value: Any, name: str) -> Kind:
    """Tell the kind of adapter, LoRA where it is not said."""
    match value:
        case None:
            return "LORA"
        case "LORA" | "LOHA" | "LOKR":
            return value
        case _:
            raise _refused(
                f"its {name} says {str(value)[:80]}, whose weights no sum with the base's replaces",
                _MERGED,
            )


def _check_field(kind: Kind, key: str, value: Any, name: str) -> None:
    """Refuse a field that changes what the weights mean; those that are not set change nothing."""
    is_set = value not in (None, False, "", [], {}, ())
    if key in USED[kind]:
        if key.startswith("use_") and not isinstance(value, bool | None):
            raise _refused(f"its {name}: {key} is {str(value)[:80]!r}", "write true or false there")
    elif key in REFUSED:
        if is_set:
            found, cure = REFUSED[key]
            raise _refused(f"its {name} sets {key}: {found}", cure)
    elif key not in HARMLESS[kind] and is_set:
        raise _refused(
            f"its {name} sets {key[:80]!r}, a field this `customize` does not know",
            f"update `customize`; or {_MERGED}",
        )


def _start(value: Any, name: str) -> StartKind | None:
    """Tell a start that took a product of factors off the base's own weights."""
    if value is None or isinstance(value, bool):
        return None
    match str(value).lower():
        case "pissa" | "olora" as start:
            return start
        case plain if plain in _PLAIN_STARTS:
            return None
        case _:
            raise _refused(
                f"its {name} says init_lora_weights: {str(value)[:80]}, a start that changes the "
                "base in a way that the file does not tell",
                "save it again as plain LoRA with peft's save_pretrained(folder, "
                "path_initial_model_for_weight_conversion=START), START being the adapter as it "
                "was saved before training",
            )


def _refused(found: str, cure: str) -> AdapterFileError:
    return AdapterFileError(f"{found}; expected peft's LoRA, DoRA, LoHa or LoKr; {cure}")
