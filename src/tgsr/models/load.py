"""`--model NAME`: the miniature and its adapters, a folder, or a hub id.

An adapter folder of ours holds adapter.json (the base's name), and one or both of aligner.safetensors
(stage 1: the aligner's weights) and PEFT's adapter_config.json with adapter_model.safetensors (stage 2).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from accelerate.utils import align_module_device
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError, StrictDataclassError
from huggingface_hub.utils import validate_repo_id
from peft import PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig
from transformers import __version__ as transformers_version

from tgsr.disk.whole import sha256_of, whole, whole_files, write_whole
from tgsr.errors import ModelError, OptionError
from tgsr.models import (
    audio_flamingo3,
    gemma4,
    granite_speech,
    mini,
    mini_lm,
    music_flamingo,
    phi4,
    qwen2_audio,
    qwen3_omni,
    qwen_omni,
    voxtral,
    whisper,
)
from tgsr.models.aligner_and_lora import without_renaming_warning
from tgsr.models.checkpoint import MERGED_FILE, name_unknown_fields
from tgsr.models.clock import WEIGHTS, add_clock
from tgsr.models.foreign_adapter import AdapterRead, base_of, is_foreign, put_on
from tgsr.models.lalm import Lalm
from tgsr.models.packaged_weights import SHIPPED
from tgsr.models.placement import AS_SAVED, Placement
from tgsr.models.whisper import Whisper
from tgsr.prompts import Times

OURS = ("mini", "mini-lm", "whisper-base", *SHIPPED)
ALIGNER_FILE = "aligner.safetensors"
ADAPTER_FILE = "adapter.json"
PARTS = (ALIGNER_FILE, "adapter_config.json", "adapter_model.safetensors")
BASE_FILE = "base.safetensors"
OUR_FILES = (ADAPTER_FILE, BASE_FILE)  # a folder with either was written by tgsr
MODEL_SUFFIXES = (".safetensors", ".bin", ".pt", ".json", ".jinja", ".model", ".py")
TOKEN_FILES = ("merges.txt", "vocab.txt")
ONLY_ANSWER = ("cascade:", "cascade+", "gemini:", "openai:", "http://", "https://")


@dataclass(frozen=True, slots=True)
class Family:
    """Models of one type: our class, the official one, and what reads a checkpoint."""

    kind: type[Lalm]
    official: Any
    load: Callable[[str, Placement], Lalm]


FAMILIES: dict[str, Family] = {
    model_type: Family(kind, official, load)
    for kind, classes, load in (
        (audio_flamingo3.AudioFlamingo3, audio_flamingo3.CLASSES, audio_flamingo3.load_audio_flamingo3),
        (music_flamingo.MusicFlamingo, music_flamingo.CLASSES, music_flamingo.load_music_flamingo),
        (qwen2_audio.Qwen2Audio, qwen2_audio.CLASSES, qwen2_audio.load_qwen2_audio),
        (qwen_omni.QwenOmni, qwen_omni.CLASSES, qwen_omni.load_qwen_omni),
        (qwen3_omni.Qwen3Omni, qwen3_omni.CLASSES, qwen3_omni.load_qwen3_omni),
        (voxtral.Voxtral, voxtral.CLASSES, voxtral.load_voxtral),
        (gemma4.Gemma4, gemma4.CLASSES, gemma4.load_gemma4),
        (gemma4.Gemma4Unified, gemma4.WITHOUT_ENCODER, gemma4.load_gemma4_unified),
        (phi4.Phi4, phi4.CLASSES, phi4.load_phi4),
        (granite_speech.GraniteSpeech, granite_speech.CLASSES, granite_speech.load_granite_speech),
        (Whisper, whisper.CLASSES, whisper.load_whisper),
    )
    for model_type, official in classes.items()
}
"""The families that train, by the model type in config.json of a checkpoint in the hub's layout."""
WHAT_TRAINS = f"tgsr trains and looks into {', '.join(FAMILIES)}"

log = logging.getLogger(__name__)


def load(name: str, placement: Placement = AS_SAVED, device: str | None = None) -> Lalm:
    """The model called `name`, where `placement` says. ModelError with the remedy where a file is unusable.

    `mini` and what is made of it are always held as they are, on one device: they are small. `device` is that one, by
    torch's name; else it is the first GPU, or the CPU where there is none.
    """
    if name == "mini-lm":  # and not where it is the base of an adapter: that one has been trained
        log.warning(mini_lm.UNTRAINED)
    return placed(_load(name, placement), device)


def load_to_check(
    name: str, placement: Placement = AS_SAVED, base: str | None = None
) -> tuple[Lalm, AdapterRead | None]:
    """As `load`, but another trainer's adapter is loaded as far as it can be read: how far is said beside it.

    `base` is its base, where that is not the one that it names; OptionError for any other model.
    """
    if is_other_trainers(name):
        lalm, read = load_foreign(Path(name), placement, base)
        return placed(lalm), read
    if base is not None:
        raise OptionError(
            f"--base {base}: is for another trainer's adapter, and {name} is none; leave it out"
        )
    return load(name, placement), None


def is_other_trainers(name: str) -> bool:
    """Whether the name is one of a folder with an adapter that another trainer wrote; ours hold ADAPTER_FILE."""
    folder = Path(name)
    return name not in OURS and not (folder / ADAPTER_FILE).exists() and is_foreign(folder)


def placed(lalm: Lalm, device: str | None = None) -> Lalm:
    """The model on that device, by torch's name; else on the first GPU, or the CPU where there is none."""
    if getattr(lalm.inner, "hf_device_map", None) is None:  # else transformers has put it in its place
        lalm.model.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return lalm


def _load(name: str, placement: Placement, adapters: Sequence[Path] = ()) -> Lalm:
    """The model, as the base of the `adapters` that led here, the last one first."""
    if name in SHIPPED:
        return load_adapter(mini.assets().parent / SHIPPED[name], name, placement)
    folder = Path(name)
    if name not in OURS and folder.resolve() in adapters:
        raise ModelError(
            f"{folder}: is an adapter on itself, by the bases that {len(adapters)} adapters name"
        )
    if name not in OURS and (folder / ADAPTER_FILE).exists():
        return load_adapter(folder, name, placement, adapters)
    if is_other_trainers(name):
        adapted, read = load_foreign(folder, placement, adapters=adapters)
        if read.unread:
            raise ModelError(
                f"{folder}: {len(read.unread)} of its tensors have no place in its base, first {read.unread[0]}, and "
                "without them this is another model; `tgsr check` says what is read"
            )
        return adapted
    if name == "mini":
        lalm: Lalm = mini.load_base()
    elif name == "mini-lm":
        lalm = mini_lm.load_mini_lm()
    elif name == "whisper-base":
        lalm = whisper.load_whisper(name)
    elif (folder / BASE_FILE).exists():
        lalm = mini.load_base(folder, name)
    else:
        lalm = load_pretrained(name, placement)
    lalm.base = name if name in OURS or not folder.exists() else str(folder.resolve())
    return lalm


def files_of(name: str, adapters: Sequence[Path] = ()) -> dict[str, Path]:
    """The files here that `load` reads the model from, by the names they have in a run's run.json.

    Those of an adapter's base are among them; `adapters` are those that it is a base of itself. Of a checkpoint from
    the hub it is its configuration, named with the commit, whose files never change; none where nothing was
    downloaded. What `tgsr fetch` keeps is left out: it is checked against hashes of its own.
    """
    name = name.removeprefix("cascade+")
    if name == "whisper-base":
        return {}
    folder = mini.assets().parent / SHIPPED.get(name, mini.assets().name) if name in OURS else Path(name)
    if not folder.is_dir():
        described = try_to_load_from_cache(name, "config.json") if _is_hub_id(name) else None
        if not isinstance(described, str):
            return {}
        return {f"{name}@{Path(described).parent.name}/config.json": Path(described)}
    if folder.resolve() in adapters:  # load_adapter says so
        return {}
    files = {f"{name}/{path.name}": path for path in sorted(folder.iterdir()) if _is_read(path)}
    if (folder / ADAPTER_FILE).exists():
        try:
            base = str(json.loads((folder / ADAPTER_FILE).read_text())["base"])
        except (ValueError, KeyError, TypeError):  # load_adapter says so
            return files
        named = str(folder / base) if (folder / base).is_dir() else base
        files |= files_of(named, (folder.resolve(), *adapters))
    return files


def _is_read(path: Path) -> bool:
    return path.is_file() and (path.suffix in MODEL_SUFFIXES or path.name in TOKEN_FILES)


def _is_hub_id(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def only_answers(name: str) -> bool:
    """Whether the name is one of a model that can be asked and no more, which no checkpoint can have."""
    return name == "cascade" or name.startswith(ONLY_ANSWER)


def config_of(name: str) -> Any:
    """A checkpoint's config.json, by folder or hub id. ModelError where there is none, or none that can be used."""
    folder = Path(name)
    if only_answers(name):
        raise ModelError(f"{name}: only answers (tgsr predict, ask); it cannot be trained or looked into")
    if folder.exists() and not (folder / "config.json").exists():
        raise ModelError(
            f"{folder}: neither a model (config.json) nor an adapter ({ADAPTER_FILE}); "
            f"give {', '.join(OURS)}, a folder that tgsr or transformers saved, or a hub id"
        )
    try:
        about = PreTrainedConfig.get_config_dict(name)[0]
        is_known = about.get("model_type", "") in ("", *CONFIG_MAPPING)
        config = AutoConfig.from_pretrained(name) if is_known else None
    except (OSError, ValueError, StrictDataclassError) as error:
        raise ModelError(
            f"{name}: cannot be loaded: not a folder here, and as a hub id: {error}"
            if not folder.exists()
            else f"{name}: config.json cannot be used: {error}"
        ) from error
    if config is None and "auto_map" in about:
        raise ModelError(
            f"{name}: is of type {about['model_type']}, whose code lies beside its weights and is not run; name "
            "a folder in transformers' own layout, where there is one (of microsoft/Phi-4-multimodal-instruct: hf "
            "download ID --revision refs/pr/70 --local-dir FOLDER)"
        )
    if config is None:
        raise ModelError(
            f"{name}: is of type {about['model_type']}, which transformers {transformers_version} does not know; "
            f"{WHAT_TRAINS}; where a server runs it (vLLM), ask that (tgsr predict --model http://HOST:PORT/v1#MODEL)"
        )
    return config


def model_type_of(name: str) -> str:
    """The model type in a checkpoint's config.json; errors as `config_of`."""
    return str(config_of(name).model_type)


def load_pretrained(name: str, placement: Placement = AS_SAVED) -> Lalm:
    """A checkpoint of one of the families in the hub's layout, by folder or hub id, frozen.

    Warns of fields of its config.json that this version of transformers does not know. ModelError for another type.
    """
    config = config_of(name)
    model_type = config.model_type
    if model_type in FAMILIES:
        name_unknown_fields(name, getattr(config, "thinker_config", config))
        lalm = FAMILIES[model_type].load(name, placement)
        return with_aligner_of(lalm, Path(name)) if isinstance(lalm, Whisper) else lalm
    raise ModelError(
        f"{name}: is of type {model_type}; {WHAT_TRAINS}; "
        "what transformers can load otherwise it can only predict with (tgsr predict --model, tgsr ask)"
    )


def with_aligner_of(lalm: Whisper, folder: Path) -> Whisper:
    """The model with the aligner that `merge` has written beside its weights, and the way of writing times."""
    if (folder / MERGED_FILE).exists():
        try:
            about = dict(json.loads((folder / MERGED_FILE).read_text()))
            lalm.times = times_of(about, lalm.times)
        except (ValueError, TypeError) as error:
            raise ModelError(
                f"{folder / MERGED_FILE}: is not what `tgsr merge` writes ({error}); merge again"
            ) from error
    if (folder / ALIGNER_FILE).exists():
        read_aligner(lalm, folder)
    return lalm


def times_of(about: Mapping[str, Any], default: Times) -> Times:
    """How a model writes times, by the JSON beside its weights. ValueError for a way that there is not."""
    times: Times = about.get("times", default)
    if times not in get_args(Times):
        raise ValueError(f"times {times!r}, not {' or '.join(get_args(Times))}")
    return times


def write_aligner(lalm: Lalm, folder: Path) -> None:
    """The aligner's weights, and those of a clock, in a file of their own, in their own width."""
    weights = {name: weight.detach().contiguous() for name, weight in lalm.aligner.state_dict().items()}
    if lalm.clock is not None:
        weights |= {WEIGHTS + name: weight.detach() for name, weight in lalm.clock.state_dict().items()}
    with whole(folder / ALIGNER_FILE) as half:
        save_file(weights, half)


def read_aligner(lalm: Lalm, folder: Path) -> None:
    """Gives the model the aligner that the folder holds, with its clock where it has one.

    ModelError for one that is damaged or another model's.
    """
    try:
        weights = load_file(folder / ALIGNER_FILE)
        of_clock = {name: weights.pop(name) for name in list(weights) if name.startswith(WEIGHTS)}
        if of_clock:
            clock = add_clock(lalm, of_clock[f"{WEIGHTS}linear.weight"].shape[1] // 2)
            clock.load_state_dict({name.removeprefix(WEIGHTS): w for name, w in of_clock.items()})
        # As wide as it was trained: a stage of training moves it by less than bfloat16 can tell apart.
        lalm.aligner.to(next(iter(weights.values())).dtype)
        lalm.aligner.load_state_dict(weights)
    except (SafetensorError, RuntimeError) as error:
        raise ModelError(f"{folder / ALIGNER_FILE}: truncated, or another model's: {error}") from error


def multiplies_bfloat16(device: str = "cpu") -> bool:
    """Whether products in bfloat16 pay there: a CPU without instructions for it takes ten times longer."""
    found = torch.cpu.get_capabilities() if device == "cpu" else {}
    return device != "cpu" or any(found.get(unit) for unit in ("avx512_bf16", "amx_bf16", "bf16"))


def fingerprint(lalm: Lalm, width: torch.dtype = torch.float32) -> str:
    """Tells bases apart: a hash of all weights' names and shapes and of the decoder's norms and biases.

    These are rounded to `width` first: to bfloat16, and a base has one fingerprint in whatever width it was loaded.
    """
    digest = hashlib.sha256()
    for name, weight in sorted(lalm.inner.named_parameters()):
        if ".lora_" not in name and not name.startswith(WEIGHTS):  # an adapter's clock is no part of its base
            # A matrix in 4 bits is stored flat; it is the same matrix.
            shape = getattr(getattr(weight, "quant_state", None), "shape", weight.shape)
            digest.update(f"{name.replace('.base_layer', '')} {tuple(shape)}".encode())
    vectors: dict[str, torch.Tensor] = {}
    trained = {id(weight) for weight in lalm.aligner.parameters()}  # which a decoder may hold
    for within, module in lalm.language_model.named_modules():
        with align_module_device(module):  # what waits in the host's memory is not there until its turn
            vectors |= {
                f"{within}.{name}": weight.detach().to(width).float().cpu()
                for name, weight in module.named_parameters(recurse=False)
                if weight.ndim == 1 and id(weight) not in trained
            }
    for _, vector in sorted(vectors.items()):
        digest.update(vector.numpy().tobytes())
    digest.update(lalm.merged.encode())
    return digest.hexdigest()[:16]


def load_adapter(
    folder: Path, name: str, placement: Placement = AS_SAVED, adapters: Sequence[Path] = ()
) -> Lalm:
    """The adapter's base with the adapter on it. `adapters` are those that it is a base of itself."""
    described = folder / ADAPTER_FILE
    if not described.exists():
        raise ModelError(f"{folder}: {ADAPTER_FILE} is missing; install tgsr again or train the adapter")
    try:
        about = json.loads(described.read_text())
        base, files = str(about["base"]), dict(about.get("files", {}))
        merged_hash = str(files["adapter_model.safetensors"]) if about.get("merged") else ""
        times = times_of(about, "words")
        if not base or (folder / base).resolve() == folder.resolve():
            raise ValueError("an adapter is not its own base")
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{described}: is not what save_adapter writes ({error!r}); train it again"
        ) from error
    for file, expected in files.items():
        if not (folder / file).exists() or sha256_of(folder / file) != expected:
            raise ModelError(
                f"{folder / file}: is missing or was altered since the adapter was saved, and without it this is "
                "another model; copy the whole folder again"
            )
    try:
        named = base if not (folder / base).exists() else str(folder / base)
        lalm = _load(named, placement, (folder.resolve(), *adapters))
    except ModelError as error:
        raise ModelError(
            f"{described}: its base {base} cannot be loaded (where it was moved, give its new path there): {error}"
        ) from error
    if not _is_the_base(about, lalm):
        raise ModelError(
            f"{folder}: was trained on another model than {base} is now; "
            f"give {described} the path of its own base, or train it again"
        )
    lalm.name = name
    if "times" in about and isinstance(lalm, Whisper):
        lalm.times = times
    if (folder / ALIGNER_FILE).exists():
        read_aligner(lalm, folder)
    if (folder / "adapter_config.json").exists():
        if not (folder / "adapter_model.safetensors").exists():
            raise ModelError(f"{folder}: adapter_model.safetensors is missing; pickled adapters are refused")
        try:
            with without_renaming_warning():
                lalm.model = PeftModel.from_pretrained(lalm.inner, str(folder))
            theirs = set(load_file(folder / "adapter_model.safetensors"))
        except (SafetensorError, ValueError, OSError, RuntimeError) as error:
            raise ModelError(f"{folder}: its LoRA is truncated or another model's: {error}") from error
        ours = set(get_peft_model_state_dict(lalm.model))
        if theirs not in (ours, {_hub_name(lalm, name) for name in ours}):
            raise ModelError(
                f"{folder / 'adapter_model.safetensors'}: holds {min(theirs, default='nothing')} and so on, not "
                f"the LoRA of {base} that adapter_config.json describes; it would change nothing"
            )
        lalm.model.eval()
        if merged_hash:  # a model that others are made of, which a LoRA of their own goes on top of
            lalm.model = lalm.model.merge_and_unload().requires_grad_(False)
            lalm.merged = merged_hash
            lalm.base = name if name in OURS else str(folder.resolve())
    elif not (folder / ALIGNER_FILE).exists():
        raise ModelError(f"{folder}: holds neither {ALIGNER_FILE} nor adapter_config.json")
    return lalm


def load_foreign(
    folder: Path, placement: Placement = AS_SAVED, base: str | None = None, adapters: Sequence[Path] = ()
) -> tuple[Lalm, AdapterRead]:
    """Another trainer's adapter on its base, or on the one given, and how it was read. ModelError as `put_on` says."""
    named = base or base_of(folder)
    try:
        lalm = _load(named, placement, (folder.resolve(), *adapters))
    except ModelError as error:
        raise ModelError(
            f"{folder / 'adapter_config.json'}: its base {named} cannot be loaded; give the one that is here "
            f"(tgsr check --base): {error}"
        ) from error
    read = put_on(lalm, folder)
    lalm.name, lalm.base = str(folder), str(folder.resolve())
    return lalm, read


def _is_the_base(about: Mapping[str, Any], lalm: Lalm) -> bool:
    """Whether an adapter was trained on this model: exactly, or to bfloat16's rounding where widths differ."""
    exact = about.get("fingerprint")
    if exact in (None, fingerprint(lalm)):
        return True
    rounded = about.get("rounded", exact)  # adapters of before have one fingerprint, and no width
    return about.get("dtype") != _dtype(lalm) and rounded == fingerprint(lalm, torch.bfloat16)


def _dtype(lalm: Lalm) -> str:
    return str(lalm.language_model.dtype).removeprefix("torch.")


def save_adapter(lalm: Lalm, folder: Path, *, merged: bool = False) -> None:
    """The aligner, and the LoRA where there is one, under names that `load` finds again.

    Complete over the base alone: stage 2's adapter holds stage 1's aligner too. `merged`: to be merged into its base
    whenever it is loaded, as a model of its own; then it is a LoRA in float16 and no aligner.
    """
    if not merged:
        write_aligner(lalm, folder)
    if hasattr(lalm.model, "peft_config"):
        with whole_files(folder) as half:
            lalm.model.save_pretrained(str(half), safe_serialization=True)
            (half / "README.md").unlink(missing_ok=True)  # PEFT's template of a model card, all blanks
            _under_hub_names(lalm, half / "adapter_model.safetensors", torch.float16 if merged else None)
    files = [path for path in sorted(folder.iterdir()) if path.name in PARTS]
    about = {
        "base": lalm.base,
        "fingerprint": fingerprint(lalm),
        "rounded": fingerprint(lalm, torch.bfloat16),
        "dtype": _dtype(lalm),
        "files": {path.name: sha256_of(path) for path in files},
        **({"merged": True} if merged else {}),
        **({"times": lalm.times} if isinstance(lalm, Whisper) else {}),
    }
    write_whole(folder / ADAPTER_FILE, json.dumps(about, indent=2) + "\n")


def _under_hub_names(lalm: Lalm, path: Path, dtype: torch.dtype | None) -> None:
    """Renames a LoRA's tensors to the names that the hub's checkpoint has for the decoder; in `dtype`, if it is given.

    vLLM reads those, and ignores transformers' own without a word; PEFT takes either, by transformers' table of old
    names (tests/test_merge.py).
    """
    weights = load_file(path)
    with whole(path) as half:
        named = {_hub_name(lalm, name): w.to(dtype or w.dtype) for name, w in weights.items()}
        save_file(named, half, metadata={"format": "pt"})


def _hub_name(lalm: Lalm, name: str) -> str:
    return name.replace("base_model.model.model.language_model.", f"base_model.model.{lalm.hub_decoder}", 1)
