"""The engine against the plain way: transformers' own forward on separate sequences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import TopPLogitsWarper

from tgsr.audio import SAMPLE_RATE
from tgsr.engine.features import FeatureCache, without_cache
from tgsr.engine.plain_decoder import PlainDecoder
from tgsr.engine.sampling import ByModules, Decoder, draw, nucleus, sample, uniforms
from tgsr.engine.shared_prefix import AudioMissing, Branch, branch_logps, common_start, listen, picked_logps
from tgsr.errors import ModelError
from tgsr.models.audio_flamingo3 import AudioFlamingo3
from tiny import noise, tiny_features, tiny_lalm


@pytest.fixture(scope="module")
def lalm() -> AudioFlamingo3:
    return tiny_lalm()


def branches_for(lalm: AudioFlamingo3) -> list[Branch]:
    """Five branches of three clips, of different lengths, not in the clips' order."""
    asked = [
        (1, "When?", "0.12 - 3"),
        (0, "Which digit is said?", "(b) two"),
        (2, "Who?", "four"),
        (1, "x", "yes no yes"),
    ]
    made = [Branch(o, lalm.prompt(q).after, (*lalm.tokens(a), lalm.eos_id)) for o, q, a in asked]
    return [*made, Branch(0, lalm.prompt("When?").after, made[0].answer)]


def separate_logps(
    lalm: AudioFlamingo3, features: torch.Tensor, branch: Branch, temperature: float = 1.0
) -> torch.Tensor:
    """The usual way: one sequence, ids with placeholders replaced by aligned frames, transformers' own forward."""
    before = torch.tensor([lalm.prompt("").before])
    text = torch.tensor([[*branch.prompt, *branch.answer]])
    embeds = torch.cat([lalm.embed(before), lalm.align(features)[None], lalm.embed(text)], 1)
    logits = lalm.inner(inputs_embeds=embeds).logits[0] / temperature
    first = embeds.shape[1] - len(branch.answer)
    logp = logits[first - 1 : -1].log_softmax(-1)
    return logp.gather(-1, torch.tensor(branch.answer)[:, None])[:, 0]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_packed_branches_have_the_log_probs_of_separate_sequences(
    lalm: AudioFlamingo3, temperature: float
) -> None:
    clips = [tiny_features(n, n) for n in (9, 30, 4)]
    branches = branches_for(lalm)
    packed = branch_logps(listen(lalm, clips), branches, temperature=temperature)
    for row, mask, branch in zip(packed.logp_BT, packed.mask_BT, branches, strict=True):
        expected = separate_logps(lalm, clips[branch.owner], branch, temperature)
        assert int(mask.sum()) == len(branch.answer)
        assert torch.allclose(row[mask], expected, atol=1e-5)
        assert (row[~mask] == 0).all()


@pytest.mark.parametrize("read_by", [ByModules, PlainDecoder.read])
def test_what_is_kept_of_a_prompt_is_the_same_to_the_bit_whoever_else_is_asked(
    lalm: AudioFlamingo3, read_by: Callable[[AudioFlamingo3], Decoder]
) -> None:
    prefix, reader = listen(lalm, [tiny_features(n, n) for n in (9, 30, 4)]), read_by(lalm)
    together = reader.prefill(prefix)
    for clip in range(3):
        alone = reader.prefill(prefix.only([clip]))
        n = int(alone.lengths_C)
        assert (together.mask_CP[clip].sum(), together.lengths_C[clip]) == (n, n)
        for some, one in zip((*together.keys, *together.values), (*alone.keys, *alone.values), strict=True):
            assert torch.equal(some[clip, :, -n:], one[0])


def test_logits_in_pieces_are_the_same_log_probs_and_gradients(lalm: AudioFlamingo3) -> None:
    vocabulary, width = lalm.lm_head.weight.shape
    generator = torch.Generator().manual_seed(0)
    hidden_ND = torch.randn(33, width, generator=generator, requires_grad=True)
    ids_N = torch.randint(vocabulary, (33,), generator=generator)

    def gradients(logits_at_once: int) -> tuple[torch.Tensor, torch.Tensor]:
        logp_N = picked_logps(lalm.lm_head, hidden_ND, ids_N, 0.7, logits_at_once)
        return logp_N, torch.autograd.grad(logp_N.sum(), hidden_ND)[0]

    for whole, pieces in zip(gradients(33 * vocabulary), gradients(5 * vocabulary), strict=True):
        assert torch.allclose(whole, pieces, atol=1e-5)


def test_packed_gradients_reach_the_aligner_as_in_separate_sequences(lalm: AudioFlamingo3) -> None:
    clips = [tiny_features(n, n) for n in (9, 30, 4)]
    branches = branches_for(lalm)

    def gradient(loss: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(loss, lalm.aligner.linear_1.weight)[0]

    together = gradient(branch_logps(listen(lalm, clips), branches).logp_BT.sum())
    apart = gradient(torch.stack([separate_logps(lalm, clips[b.owner], b).sum() for b in branches]).sum())
    assert together.abs().max() > 1e-3
    assert torch.allclose(together, apart, atol=1e-4, rtol=1e-4)


def test_a_question_in_the_prefix_or_in_the_branch_is_the_same(lalm: AudioFlamingo3) -> None:
    clips = [tiny_features(12, 1), tiny_features(7, 2)]
    prompts = [lalm.prompt("Which digit?").after, lalm.prompt("Who says seven?").after]
    answers = [(5, 6, lalm.eos_id), (7, lalm.eos_id)]
    whole = [Branch(o, prompts[o], a) for o in (0, 1) for a in answers]
    short = [Branch(o, prompts[o][-1:], a) for o in (0, 1) for a in answers]
    inside = branch_logps(listen(lalm, clips, after=[p[:-1] for p in prompts]), short)
    assert torch.allclose(branch_logps(listen(lalm, clips), whole).logp_BT, inside.logp_BT, atol=1e-5)


def test_what_all_prompts_begin_with_leaves_each_a_token_of_its_own() -> None:
    assert common_start([(1, 2, 3), (1, 2, 4, 5)]) == (1, 2)
    assert common_start([(1, 2), (1, 2), (1, 2, 3)]) == (1,)
    assert common_start([(7, 8, 9)]) == (7, 8)
    assert common_start([(1,), (2,)]) == ()


def test_order_of_branches_and_clips_changes_nothing(lalm: AudioFlamingo3) -> None:
    clips = [tiny_features(n, n) for n in (9, 30, 4)]
    branches = branches_for(lalm)
    forward = branch_logps(listen(lalm, clips), branches)
    turned = [Branch(2 - b.owner, b.prompt, b.answer) for b in reversed(branches)]
    backward = branch_logps(listen(lalm, clips[::-1]), turned)
    sums = forward.logp_BT.sum(1)
    assert torch.allclose(sums, backward.logp_BT.sum(1).flip(0), atol=1e-5)


def test_a_clip_without_frames_is_refused_before_any_compute(lalm: AudioFlamingo3) -> None:
    branch = Branch(0, (1,), (2,))
    with pytest.raises(AudioMissing, match="clip 0"):
        branch_logps(listen(lalm, [torch.zeros(0, 16)]), [branch])
    with pytest.raises(AudioMissing, match="clip 1"):
        listen(lalm, [tiny_features(3, 0), torch.zeros(0, 16)])


def test_audio_that_is_not_finite_is_refused(lalm: AudioFlamingo3) -> None:
    frames = tiny_features(3, 0)
    frames[1, 2] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        branch_logps(listen(lalm, [frames]), [Branch(0, (1,), (2,))])


@pytest.mark.parametrize("branch", [Branch(0, (), (2,)), Branch(0, (1,), ()), Branch(3, (1,), (2,))])
def test_a_branch_needs_a_clip_a_prompt_and_an_answer(lalm: AudioFlamingo3, branch: Branch) -> None:
    with pytest.raises(ValueError, match="branch 0"):
        branch_logps(listen(lalm, [tiny_features(3, 0)]), [branch])


def test_a_batch_without_branches_is_refused(lalm: AudioFlamingo3) -> None:
    prefix = listen(lalm, [tiny_features(3, 0)])
    with pytest.raises(ModelError, match="without branches"):
        branch_logps(prefix, [])
    with pytest.raises(ModelError, match="without branches"):
        sample(prefix, [], [], max_new_tokens=3, temperature=0)


def test_a_branch_longer_than_the_context_is_refused_before_any_compute(lalm: AudioFlamingo3) -> None:
    context = lalm.language_model.config.max_position_embeddings
    prefix = listen(lalm, [tiny_features(30, 0)])
    room = context - len(prefix.rows[0])
    says = rf"branch 0: {len(prefix.rows[0])} tokens of prefix.*context of {context}; cut the clip"
    with pytest.raises(ModelError, match=says):
        branch_logps(prefix, [Branch(0, (1,) * room, (2,))])
    with pytest.raises(ModelError, match=says):
        sample(prefix, [0], [[5] * (room - 3)], max_new_tokens=4, temperature=0)


def test_a_prompt_has_exactly_one_place_for_audio() -> None:
    lalm = tiny_lalm()
    template = lalm.tokenizer.chat_template
    for broken, n in (
        (template.replace("<sound>", ""), 0),
        (template.replace("<sound>", "<sound><sound>"), 2),
    ):
        lalm.tokenizer.chat_template = broken
        with pytest.raises(ModelError, match=f"makes {n} places for audio"):
            lalm.prompt("When?")


def test_ten_minutes_and_32_answers_fit_in_pieces_with_the_samedraws() -> None:
    lalm = tiny_lalm()
    with torch.no_grad():
        prefix = listen(lalm, [tiny_features(15_000, 5)])
    prompt = lalm.prompt("When?").after

    def draw(at_once: int | None) -> list[tuple[int, ...]]:
        arguments = {"max_new_tokens": 2, "uniform_BN": uniforms(32, 2, 0), "at_once": at_once}
        return [s.ids for s in sample(prefix, [0] * 32, [prompt] * 32, **arguments)]

    assert draw(8) == draw(None)


def test_greedy_sampling_is_transformers_generate(lalm: AudioFlamingo3) -> None:
    clips = [tiny_features(20, 5), tiny_features(6, 6)]
    prompts = [lalm.prompt("Which digit is said right after seven?").after, lalm.prompt("Who?").after]
    with torch.no_grad():
        prefix = listen(lalm, clips)
    ours = sample(prefix, [1, 0, 0], [prompts[1], prompts[0], prompts[1]], max_new_tokens=12, temperature=0)
    for (clip, prompt), sampled in zip([(1, 1), (0, 0), (0, 1)], ours, strict=True):
        before = torch.tensor([lalm.prompt("").before])
        embeds = torch.cat(
            [lalm.embed(before), lalm.align(clips[clip])[None], lalm.embed(torch.tensor([prompts[prompt]]))],
            1,
        )
        theirs = lalm.inner.generate(
            inputs_embeds=embeds,
            attention_mask=torch.ones(embeds.shape[:2]),
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=lalm.eos_id,
            pad_token_id=lalm.pad_id,
        )[0].tolist()
        assert list(sampled.ids) == theirs[: len(sampled.ids)]
        assert sampled.cut == (lalm.eos_id not in theirs)


def test_branches_that_end_early_leave_the_others_as_they_were(lalm: AudioFlamingo3) -> None:
    """Whatever ends first, each branch's tokens are those that it has alone."""
    heard = [tiny_features(20, 5)]
    with torch.no_grad():
        prefix = listen(lalm, heard)
    prompts = [
        lalm.prompt(text).after for text in ("When?", "Who says seven?", "x", "Which digit?", "one two")
    ]
    # An end token that greedy decoding really meets, so that branches end at different steps.
    free = sample(prefix, [0] * 5, prompts, max_new_tokens=15, temperature=0)
    ends = tiny_lalm()
    ends.eos_id = free[0].ids[3]
    with torch.no_grad():
        prefix = listen(ends, heard)
    together = sample(prefix, [0] * 5, prompts, max_new_tokens=15, temperature=0)
    alone = [sample(prefix, [0], [p], max_new_tokens=15, temperature=0)[0] for p in prompts]
    assert [s.ids for s in together] == [s.ids for s in alone]
    assert len({len(s.ids) for s in together}) > 1


def test_a_seed_gives_the_same_samples_again(lalm: AudioFlamingo3) -> None:
    with torch.no_grad():
        prefix = listen(lalm, [tiny_features(20, 5)])
    prompt = lalm.prompt("When?").after

    def draw(seed: int) -> list[tuple[int, ...]]:
        drawn = sample(
            prefix, [0] * 6, [prompt] * 6, max_new_tokens=8, temperature=0.7, uniform_BN=uniforms(6, 8, seed)
        )
        return [s.ids for s in drawn]

    assert draw(1) == draw(1) != draw(2)


def test_the_samplers_log_probs_are_those_that_the_loss_computes(lalm: AudioFlamingo3) -> None:
    clips = [tiny_features(20, 5), tiny_features(9, 6)]
    with torch.no_grad():
        prefix = listen(lalm, clips)
    owners = [0, 1, 0, 1, 1]
    prompts = [lalm.prompt(text).after for text in ("When?", "Who says seven?", "x", "When?", "one two")]
    drawn = sample(
        prefix,
        owners,
        prompts,
        max_new_tokens=20,
        temperature=0.7,
        top_p=0.9,
        uniform_BN=uniforms(5, 20, 0),
    )
    branches = [Branch(o, p, s.ids) for o, p, s in zip(owners, prompts, drawn, strict=True)]
    with torch.no_grad():
        packed = branch_logps(listen(lalm, clips), branches, temperature=0.7)
    for row, sampled in zip(packed.logp_BT, drawn, strict=True):
        trained = row[: len(sampled.ids)]
        assert torch.allclose(torch.tensor(sampled.logps), trained, atol=1e-4)


def test_branchesdraw_the_same_tokens_whoever_shares_their_batch(lalm: AudioFlamingo3) -> None:
    with torch.no_grad():
        prefix = listen(lalm, [tiny_features(20, 5), tiny_features(9, 6), tiny_features(14, 7)])
    prompt = lalm.prompt("When?").after
    owners = [0, 0, 1, 1, 2, 2, 2]

    def draw(at_once: int | None) -> list[tuple[int, ...]]:
        arguments = {
            "max_new_tokens": 12,
            "top_p": 0.95,
            "uniform_BN": uniforms(7, 12, 3),
            "at_once": at_once,
        }
        return [s.ids for s in sample(prefix, owners, [prompt] * 7, **arguments)]

    assert draw(None) == draw(7) == draw(3) == draw(1)
    assert len(set(draw(None))) > 3
    with pytest.raises(ValueError, match="at_once"):
        draw(0)


def test_draws_follow_the_nucleus_of_the_distribution() -> None:
    logits_BV = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().repeat(4000, 1)
    uniform_B = torch.rand(4000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    drawn_B, logp_B = draw(logits_BV, 1.0, 0.75, uniform_B)
    shares = torch.bincount(drawn_B, minlength=4) / 4000
    assert torch.allclose(shares, torch.tensor([0.625, 0.375, 0.0, 0.0]), atol=0.03)
    assert torch.allclose(logp_B, logits_BV[0].gather(0, drawn_B), atol=1e-6)  # of the whole vocabulary
    edge_B = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert draw(logits_BV[:2], 1.0, 0.75, edge_B)[0].tolist() == [0, 1]


def test_a_nucleus_has_the_mass_that_renormalising_within_it_took_away(lalm: AudioFlamingo3) -> None:
    prefix = listen(lalm, [tiny_features(20, 5)])
    branch = Branch(0, lalm.prompt("When?").after, (5, 6, 7, 8))
    with torch.no_grad():
        found = branch_logps(prefix, [branch], temperature=0.7, nucleus_of=0.9)
        before = torch.tensor(lalm.prompt("").before)
        text = torch.tensor([*branch.prompt, *branch.answer])
        row = torch.cat([lalm.embed(before), lalm.align(tiny_features(20, 5)), lalm.embed(text)])
        logits = lalm.inner(inputs_embeds=row[None]).logits[0, -5:-1] / 0.7
    probabilities = logits.softmax(-1).sort(descending=True).values
    inside = probabilities.cumsum(-1) - probabilities < 0.9
    mass = (probabilities * inside).sum(-1)
    assert found.nucleus_BT is not None
    assert torch.allclose(found.nucleus_BT[0], mass.log(), atol=1e-5)
    assert (found.nucleus_BT[0] >= np.log(0.9) - 1e-6).all()


def test_top_p_keeps_the_fewest_tokens_that_reach_the_mass() -> None:
    logits = torch.tensor([[0.05, 0.5, 0.15, 0.3]]).log()
    for top_p, kept in ((0.7, [1, 3]), (0.81, [1, 2, 3]), (0.01, [1]), (1.0, [0, 1, 2, 3])):
        logits_BK, ids_BK = nucleus(logits, top_p)
        assert ids_BK[torch.isfinite(logits_BK)].tolist() == kept


@pytest.mark.parametrize("spread", [0.1, 1.0, 8.0])
def test_a_nucleus_is_the_official_one_however_many_tokens_it_holds(spread: float) -> None:
    logits_BV = spread * torch.randn(3, 2000, generator=torch.Generator().manual_seed(0))
    logits_BV[1] *= 8 / spread  # a narrow one beside wide ones
    logits_BK, ids_BK = nucleus(logits_BV, 0.9)
    found = torch.full_like(logits_BV, -torch.inf).scatter(-1, ids_BK, logits_BK)
    assert torch.equal(found, TopPLogitsWarper(0.9)(torch.zeros(3, 1, dtype=torch.long), logits_BV))


@pytest.mark.parametrize("seconds", [0.1, 0.515, 2.0, 9.99, 10.0])
def test_the_short_encoder_pass_equals_the_official_masked_one(lalm: AudioFlamingo3, seconds: float) -> None:
    samples = noise(seconds)
    ours = lalm.encode_audio(samples)
    batch = lalm.feature_extractor(
        samples, sampling_rate=SAMPLE_RATE, return_attention_mask=True, return_tensors="pt"
    )
    with torch.no_grad():
        official = lalm.inner.get_audio_features(
            batch["input_features"], batch["attention_mask"]
        ).pooler_output
        assert official.shape[0] == len(ours)
        assert torch.allclose(lalm.align(ours), official, atol=1e-5)


def test_audio_longer_than_the_model_hears_is_refused_not_cut(lalm: AudioFlamingo3) -> None:
    with pytest.raises(ModelError, match=r"hears 10 s, the audio lasts 10\.50 s"):
        lalm.encode_audio(noise(10.5))


def test_long_audio_is_heard_in_parts_where_asked(lalm: AudioFlamingo3, tmp_path: Path) -> None:
    samples = noise(20.02)  # the rest of 0.02 s fills no frame
    split = FeatureCache(tmp_path, long_audio="split")
    heard = split.get(lalm, samples)
    halves = [without_cache(lalm, part) for part in (samples[:160_000], samples[160_000:320_000])]
    assert torch.equal(heard, torch.cat(halves))
    with pytest.raises(ModelError, match=r"lasts 20\.02 s.*--long-audio split"):
        FeatureCache(tmp_path).get(lalm, samples)  # kept or not


@pytest.mark.parametrize("samples", [np.zeros(0, np.float32), np.full(1600, np.nan, np.float32)])
def test_sound_that_is_no_sound_is_refused(lalm: AudioFlamingo3, samples: np.ndarray) -> None:
    with pytest.raises(ModelError, match="decode the clip again"):
        without_cache(lalm, samples)


def test_a_placeholder_in_a_question_is_only_text(lalm: AudioFlamingo3) -> None:
    parts = lalm.prompt("what is <sound> in this <sound>?")
    audio_id = lalm.tokenizer.convert_tokens_to_ids("<sound>")
    assert audio_id not in parts.after
    assert parts.before == lalm.prompt("").before


def test_the_cache_gives_the_same_numbers_warm_cold_and_rebuilt(lalm: AudioFlamingo3, tmp_path: Path) -> None:
    samples = noise(1.0)
    cache = FeatureCache(tmp_path)
    cold = cache.get(lalm, samples)
    (file,) = tmp_path.rglob("*.safetensors")
    warm = cache.get(lalm, samples)
    file.write_bytes(file.read_bytes()[:50])  # as a killed process or a full disk leaves it
    rebuilt = cache.get(lalm, samples)
    assert torch.equal(cold, warm)
    assert torch.equal(cold, rebuilt)
    assert torch.equal(cold, without_cache(lalm, samples))
    assert [p.name for p in tmp_path.rglob("*.safetensors")] == [file.name]


def test_a_clip_is_heard_alike_by_a_watch_in_bfloat16_and_by_the_training(lalm: AudioFlamingo3) -> None:
    """What a watch hears inside autocast goes to the cache from which the training reads."""
    samples = noise(1.0)
    heard = without_cache(lalm, samples)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(without_cache(lalm, samples), heard)


def test_a_kept_file_of_something_else_is_encoded_again(lalm: AudioFlamingo3, tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    right, other = cache.get(lalm, noise(0.5)), cache.get(lalm, noise(0.7, 1))
    paths = {len(load_file(path)["features"]): path for path in tmp_path.rglob("*.safetensors")}
    paths[len(right)].write_bytes(paths[len(other)].read_bytes())  # as a careless copy leaves it
    assert torch.equal(cache.get(lalm, noise(0.5)), right)
    save_file({"other": torch.zeros(1)}, paths[len(right)])
    assert torch.equal(cache.get(lalm, noise(0.5)), right)


def test_no_bit_of_kept_features_changes_unnoticed(lalm: AudioFlamingo3, tmp_path: Path) -> None:
    cache, samples = FeatureCache(tmp_path), noise(0.3)
    kept = cache.keep(lalm, samples)
    right, content = kept.read(), kept.path.read_bytes()
    rng = np.random.default_rng(0)
    n_head = len(content) - right.numel() * 2
    places = [*rng.choice(n_head, 15, replace=False), *rng.integers(n_head, len(content), size=15)]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        kept.path.write_bytes(damaged)
        if place >= n_head:
            with pytest.raises(ModelError, match=r"damaged .*start again"):
                kept.read()
        assert torch.equal(cache.get(lalm, samples), right)


def test_kept_features_of_before_have_no_checksum_and_are_read(lalm: AudioFlamingo3, tmp_path: Path) -> None:
    cache, samples = FeatureCache(tmp_path), noise(0.3)
    kept = cache.keep(lalm, samples)
    with safe_open(kept.path, "pt") as file:
        described = file.metadata()
    del described["crc32"]
    save_file({"features": torch.ones(3, 16, dtype=torch.float16)}, kept.path, metadata=described)
    assert torch.equal(cache.get(lalm, samples), torch.ones(3, 16))


def test_features_are_kept_as_bfloat16_where_asked(lalm: AudioFlamingo3, tmp_path: Path) -> None:
    half, brain = FeatureCache(tmp_path), FeatureCache(tmp_path, torch.bfloat16)
    exact = lalm.encode_audio(noise(0.5))
    for _ in range(2):
        assert torch.equal(half.get(lalm, noise(0.5)), exact.half().float())
        assert torch.equal(brain.get(lalm, noise(0.5)), exact.bfloat16().float())


def test_features_past_a_types_range_are_refused(tmp_path: Path) -> None:
    lalm = tiny_lalm()
    lalm.encode_audio = lambda samples: torch.full((2, 16), 1e5)  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="bfloat16"):
        FeatureCache(tmp_path).get(lalm, noise(0.5))
    assert FeatureCache(tmp_path, torch.bfloat16).get(lalm, noise(0.5)).max() > 9e4


def test_the_cache_does_not_mix_encoders(tmp_path: Path) -> None:
    samples = noise(0.5)
    cache = FeatureCache(tmp_path)
    first, second = cache.get(tiny_lalm(0), samples), cache.get(tiny_lalm(1), samples)
    assert not torch.equal(first, second)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2
