"""The clips that a training hears: their frames on disk, and what of the files is left out, each with its reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tqdm import tqdm

from tgsr.data.questions.by_rule import unfit
from tgsr.disk.run_folder import RunFolder
from tgsr.engine.features import FeatureCache, KeptFeatures, hear
from tgsr.errors import AudioError, ModelError, RunError
from tgsr.models.lalm import Lalm
from tgsr.records import Clip, read_clips, write_jsonl


def has_words(clip: Clip) -> bool:
    return bool(clip.words)


def hear_files(
    run: RunFolder,
    lalm: Lalm,
    paths: Sequence[str],
    cache: FeatureCache,
    errors: str = "errors.jsonl",
    teaches: Callable[[Clip], bool] = has_words,
) -> list[tuple[Clip, KeptFeatures]]:
    """The files' clips that can be learned from, in order, each with its frames.

    A clip that does not teach anything, is longer than the model hears, flagged as not fit for questions, or whose
    sound cannot be read is listed in the run's file `errors`; how many are is printed. Raises RunError where none is
    left, and where one sounds otherwise than when the run began.
    """
    heard: list[tuple[Clip, KeptFeatures]] = []
    left_out: list[dict[str, str]] = []
    sounds: dict[str, str] = {}
    clips = [(path, clip) for path in paths for clip in read_clips(path)]
    for path, clip in tqdm(clips, desc=f"listening to {', '.join(paths)}", unit="clip"):
        reason = unfit(clip) if teaches(clip) else "has no words to learn from"
        if clip.duration > lalm.max_seconds:
            reason = f"lasts {clip.duration:g} s; the model hears {lalm.max_seconds:g} s at most"
        try:
            if reason is None:
                heard.append((clip, hear(lalm, clip, path, cache)))
                sounds[f"{path}: {clip.audio}"] = heard[-1][1].path.stem
        except (AudioError, ModelError, FileNotFoundError) as error:
            reason = str(error)
        if reason is not None:
            left_out.append({"clip": clip.id, "audio": clip.audio, "error": reason})
    run.rest_on_sounds(sounds)
    if left_out:
        write_jsonl(run.path / errors, left_out)
        print(f"{len(left_out)} of {len(clips)} clips are left out: {run.path / errors}")
    if not heard:
        why = f", the first: {left_out[0]['error']}" if left_out else ""
        raise RunError(
            f"{', '.join(paths)}: none of {len(clips)} clips can be learned from{why}; "
            "make some with `tgsr transcribe` or `tgsr compose`"
        )
    return heard
