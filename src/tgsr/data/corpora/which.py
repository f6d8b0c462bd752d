"""Which corpus a folder or manifest is, told from what is in it, and its clips one by one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tgsr.data.alignments.manifests import within
from tgsr.data.corpora import (
    Corpus,
    amazon_queen,
    amazon_queen_bundle,
    covost,
    folders,
    huggingface,
    kaldi,
    lhotse,
    librispeech,
    meld,
    multispeaker,
    strong_labels,
    webdataset,
)
from tgsr.disk.jsonl import first_sign
from tgsr.disk.rows import Entry, OnDisk, json_lines
from tgsr.disk.sound_folder import SoundFolder
from tgsr.errors import Bad, CorpusError
from tgsr.records import Clip, clip_of

MANIFESTS = (".jsonl", ".json", ".gz")
# What a corpus' folder holds, one of these; the first corpus counts.
HOLDS: dict[Corpus, tuple[str, ...]] = {
    "meld": ("*_sent_emo.csv",),
    "covost": ("covost_v2.*.tsv",),
    "librispeech": ("SPEAKERS.TXT", "*/*/*.trans.txt", "*/*/*/*.trans.txt"),
    "lhotse": ("recordings.jsonl*", "cuts.jsonl*", "*recordings*.jsonl*"),
    "huggingface": ("*.parquet", "data/*.parquet", "*.arrow", "dataset_info.json", "dataset_dict.json"),
    "webdataset": ("*.tar", "*.tar.gz", "*.tgz"),
    "multispeaker": ("*.rttm",),
}


def corpus_of(path: Path) -> Corpus:
    """What `path` looks like; "folder" where it is a folder of none of the others, or a file to be read as sound.

    CorpusError where nothing is there.
    """
    if path.is_file():
        if amazon_queen_bundle.is_bundle(path):
            return "amazon-queen"
        if kaldi.is_kaldi(path):
            return "kaldi"
        if webdataset.is_tar(path):
            return "webdataset"
        if path.suffix.lower() == ".tsv" and strong_labels.tables_of(path)[1]:
            return "strong-labels"
        if path.suffix.lower() in (*folders.FORMATS, ".csv", ".tsv", ".xlsx") or folders.is_manifest(path):
            return "folder"
        if path.suffix.lower() in (".parquet", ".arrow"):
            return "huggingface"
        return "clips" if path.suffix.lower() in MANIFESTS or first_sign(path) == b"{" else "folder"
    if not path.is_dir():
        raise CorpusError(path, "a folder of audio, or a manifest (JSONL)", "nothing")
    for corpus, patterns in HOLDS.items():
        if any(next(path.glob(pattern), None) is not None for pattern in patterns):
            return corpus
    if strong_labels.tables_of(path)[1]:
        return "strong-labels"
    if kaldi.is_kaldi(path):
        return "kaldi"
    candidates = (*path.iterdir(), *path.glob("usr/share/scummvm/*/queen.1c"))
    return "amazon-queen" if any(map(amazon_queen_bundle.is_bundle, candidates)) else "folder"


def clips_of(
    path: Path, corpus: Corpus, out: Path, *, language: str | None = None, audio: Path | None = None
) -> Iterator[Clip | Bad]:
    """The corpus' clips, audio as seen from the folder `out`; what cannot be used is Bad.

    `audio` is the folder where the sound of a clips file, or of a table, lies now. CorpusError where `path` is neither.
    """
    if corpus == "clips":
        return _manifest(path, out, None if audio is None else SoundFolder.of(audio))
    given = folders.Given(out, language=language)
    if audio is not None:
        if corpus != "folder" or not path.is_file():
            raise CorpusError(path, "a clips.jsonl or a table of recordings beside --audio", f"a {corpus}")
        return folders.read(audio, given, metadata=path)
    if corpus in ("huggingface", "webdataset"):
        return {"huggingface": huggingface, "webdataset": webdataset}[corpus].read(path, out, given)
    readers = {"folder": folders, "multispeaker": multispeaker, "librispeech": librispeech, "covost": covost}
    readers |= {"kaldi": kaldi, "amazon-queen": amazon_queen}
    readers |= {"meld": meld, "lhotse": lhotse, "strong-labels": strong_labels}
    return readers[corpus].read(path, given)


def _manifest(path: Path, out: Path, sounds: SoundFolder | None) -> Iterator[Clip | Bad]:
    """A clips file of ours line by line: files of any length, in flat memory."""

    def as_seen_from_out(entry: Entry) -> Clip:
        clip = clip_of(within(entry.values))
        file = sounds.find(clip.audio) if sounds else None
        file = (file or path.parent / clip.audio).resolve()
        return replace(clip, audio=os.path.relpath(file, out.resolve()))

    return folders.clips(json_lines(path), as_seen_from_out, OnDisk())
