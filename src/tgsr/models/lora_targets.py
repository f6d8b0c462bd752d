"""Which of a model's parameters train, block by block: printed before training, so that a surprise costs nothing."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tgsr.models.lalm import Lalm

BLOCKS = ("audio tower", "aligner", "language model", "head", "LoRA", "vision tower")


@dataclass(frozen=True, slots=True)
class Part:
    """A block of a model: how many parameters it has, how many of them train, and the modules that hold these.

    Modules are named as the model names them, with numbers of layers written as *, in order of appearance.
    """

    block: str
    n: int
    n_trained: int
    trained: tuple[str, ...]


def parts_of(lalm: Lalm) -> list[Part]:
    """All of the model's blocks that have parameters, in the order of BLOCKS. A tied head is counted once."""
    of = {id(weight): "aligner" for weight in lalm.aligner.parameters()}
    of |= {id(weight): "language model" for weight in lalm.language_model.parameters()}
    for weight in lalm.lm_head.parameters():
        of.setdefault(id(weight), "head")
    counts = {block: [0, 0] for block in BLOCKS}
    trained: dict[str, dict[str, None]] = {block: {} for block in BLOCKS}
    for name, weight in lalm.model.named_parameters():
        block = "vision tower" if ".visual." in name else of.get(id(weight), "audio tower")
        block = "LoRA" if ".lora_" in name else block
        counts[block][0] += size(weight)
        if weight.requires_grad:
            counts[block][1] += size(weight)
            trained[block][_module(name)] = None
    return [Part(block, n, n_trained, tuple(trained[block])) for block, (n, n_trained) in counts.items() if n]


def size(weight: Tensor) -> int:
    """How many numbers a parameter has; one in 4 bits is stored two to a byte."""
    state = getattr(weight, "quant_state", None)
    return int(state.shape.numel()) if state is not None else weight.numel()


def _module(name: str) -> str:
    path = name.removeprefix("base_model.model.").split(".lora_")[0]
    path = path if ".lora_" in name else path.rsplit(".", 1)[0]
    return ".".join("*" if piece.isdigit() else piece for piece in path.split("."))


def parts_table(lalm: Lalm) -> str:
    """parts_of as lines of text."""
    parts = parts_of(lalm)
    lines = [f"{'block':16}{'parameters':>16}{'train':>16}  in"]
    for part in parts:
        where = ", ".join(_gathered(part.trained))
        lines.append(f"{part.block:16}{part.n:>16,}{part.n_trained:>16,}  {where}".rstrip())
    n, n_trained = (sum(getattr(part, field) for part in parts) for field in ("n", "n_trained"))
    lines.append(f"{'all':16}{n:>16,}{n_trained:>16,}  {n_trained / n:.3%}")
    return "\n".join(lines)


def _gathered(modules: tuple[str, ...]) -> list[str]:
    """Modules of one parent as parent.{a, b}."""
    of_parent: dict[str, list[str]] = {}
    for module in modules:
        parent, _, name = module.rpartition(".")
        of_parent.setdefault(parent, []).append(name)
    return [
        f"{p}.{{{', '.join(names)}}}" if len(names) > 1 else f"{p}.{names[0]}"
        for p, names in of_parent.items()
    ]
