import numpy as np
import pytest

from tgsr import audio
from tgsr.data.transcribe.transcript import Transcript
from tgsr.evaluation.behaviour.audiology_verify import (
    INVALID,
    NO_SOUND,
    PAST_END,
    SIMILARITIES,
    TOO_SHORT,
    character_cosine,
    containment,
    in_order,
    spoken,
    token_f1,
    verify,
)
from tgsr.models.packaged_weights import cache_folder
from tgsr.records import Question, Response
from tgsr.timeline import Word

# --- how alike two texts are -----------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", SIMILARITIES)
def test_similarities_lie_between_nothing_and_the_same(measure):
    assert measure("she cleaned the house", "She cleaned the house!") == pytest.approx(1)
    assert measure("she cleaned the house", "") == 0
    assert measure("", "she cleaned") == 0
    assert measure("", "") == 0
    assert measure("qqq zzz", "she cleaned the house") == 0
    near = measure("she cleaned the house", "she cleaned a house")
    assert 0 < measure("she cleaned the house", "he left the town") < near < 1


def test_numbers_are_compared_as_they_are_spoken():
    assert spoken("At 12, room 305!") == ("at", "twelve", "room", "three", "hundred", "five")
    assert character_cosine("three nine eight", "3 9 8") == pytest.approx(1)
    assert token_f1("12 people", "twelve people") == 1


def test_what_each_similarity_overlooks():
    assert containment("a long explanation that quotes yes", "yes") == 1
    assert token_f1("left right", "right left") == 1
    assert in_order("left right", "right left") == 0.5
    assert character_cosine("she cleaned", "she cleans") > token_f1("she cleaned", "she cleans")


# --- the pipeline ----------------------------------------------------------------------------------------------


class Loudest:
    """A back end that can be checked by hand: it writes how loud a crop is; "" for silence."""

    source = "loudness"

    def __init__(self):
        self.n = 0

    def __call__(self, samples):
        self.n += 1
        said = {0: "", 2: "soft", 8: "loud"}[round(float(np.abs(samples).max()) * 10)]
        words = (Word(said, 0.0, 0.1),) if said else ()
        return Transcript(words, len(samples) / 16000, "loudness")

    def many(self, clips):
        """Like Whisper in a window that clips share: each one's words run on into the next one's."""
        found = [self(clip) for clip in clips]
        words = [word for transcript in found for word in transcript.words]
        return [Transcript(tuple(words), of.duration, of.source) for of in found]


@pytest.fixture
def clip(tmp_path):
    """Five seconds: silence, soft from 1 s to 2 s, loud from 3 s to 4 s."""
    samples = np.zeros(5 * 16000, np.float32)
    samples[16000:32000], samples[48000:64000] = 0.2, 0.8
    audio.save_wav(tmp_path / "c.wav", samples)
    return tmp_path / "predictions.jsonl"


def response(text: str, sound: str = "c.wav", duration: float = 5.0) -> Response:
    question = Question("q", "c", sound, duration, "choice", "Which?", "a", ("a", "b"))
    return Response(question, "m", text)


def test_a_true_quote_is_verified_and_a_false_one_is_not(clip, tmp_path):
    texts = [
        'From 1.0s to 2.0s one hears "soft".\nFinal answer: (a) a',
        'From 1.0s to 2.0s one hears "loud".\nFinal answer: (a) a',
        'From 1.0s to 2.0s one hears "soft". From 3.0s to 4.0s "loud". Again "soft" from 3.0s to 4.0s.\n(a) a',
        'From 0.0s to 0.9s one hears "soft".\n(a) a',
        "(a) a",
    ]
    found = verify([response(text) for text in texts], clip, tmp_path, Loudest(), "loudness")
    assert [of.value for of in found] == [1.0, 0.0, 0.75, 0.0, None]
    steps = [(step.start, step.explanation, step.transcript) for step in found[2].steps]
    assert steps == [(1.0, "soft", "soft"), (3.0, "loud", "loud"), (3.0, "soft", "loud")]
    assert found[3].steps[0].transcript == ""


def test_an_interval_that_is_cited_again_is_heard_for_what_is_new_about_it(clip, tmp_path):
    texts = [
        'From 1.0s to 2.0s one hears "soft". So 1.0s to 2.0s supports (a).\n(a) a',
        'From 1.0s to 2.0s one hears "soft". Again, from 1.0s to 2.0s, "soft".\n(a) a',
        "From 1.0s to 2.0s. From 1.0s to 2.0s, soft\n(a) a",
        "From 1.0s to 2.0s soft Ms. Loud.\n(a) a",
    ]
    backend = Loudest()
    found = verify([response(text) for text in texts], clip, tmp_path, backend, "loudness")
    heard = [[step.explanation for step in of.steps] for of in found]
    assert heard == [["soft"], ["soft"], ["soft"], ["soft ms loud"]]
    assert backend.n == 1


def test_what_cannot_be_verified_says_why(clip, tmp_path):
    texts = {
        'From 6.0s to 7.0s "soft".\n(a)': (PAST_END, 0.0),
        'From 2.0s to 1.0s "soft".\n(a)': (INVALID, 0.0),
        'From 1.00s to 1.05s "soft".\n(a)': (TOO_SHORT, None),
        'From 1.0s to 9.0s "loud".\n(a)': ("runs past the clip's end: its part inside was heard", 1.0),
    }
    found = verify([response(text) for text in texts], clip, tmp_path, Loudest(), "l")
    for of, (problem, value) in zip(found, texts.values(), strict=True):
        (step,) = of.steps
        assert (step.problem, step.similarity) == (problem, value)
    (gone,) = verify([response('From 1s to 2s "soft".\n(a)', "gone.wav")], clip, tmp_path, Loudest(), "l")
    assert gone.steps[0].problem.startswith(NO_SOUND)
    assert gone.value is None


def test_a_tenth_of_a_second_is_heard_wherever_it_is(clip, tmp_path):
    # 0.6 - 0.5 is 0.09999999999999998, 1.1 - 1.0 is 0.10000000000000009
    texts = [f'From {at / 10:.1f}s to {(at + 1) / 10:.1f}s "soft".\n(a)' for at in range(49)]
    found = verify([response(text) for text in texts], clip, tmp_path, Loudest(), "l")
    assert {step.problem for of in found for step in of.steps} == {None}
    assert [of.value for of in found] == [1.0 if 10 <= at < 20 else 0.0 for at in range(49)]


def test_nothing_is_heard_twice(clip, tmp_path):
    one = response('From 1.0s to 2.0s "soft".\n(a)')
    two = response('One hears "soft" from 1.0s to 2.0s; "loud" from 3.0s to 4.0s.\n(b)')
    hears = Loudest()
    verify([one, two, one], clip, tmp_path, hears, "l")
    assert hears.n == 2
    verify([one, two], clip, tmp_path, hears, "l")
    assert hears.n == 2
    verify([one], clip, tmp_path, hears, "another back end")
    assert hears.n == 3


def test_a_score_does_not_depend_on_the_other_responses(clip, tmp_path):
    """Whisper hears differently what shares its window: a model would be scored by its neighbours in the file."""
    one, other = response('From 1.0s to 2.0s "soft".\n(a)'), response('From 3.0s to 4.0s "loud".\n(a)')
    (alone,) = verify([one], clip, tmp_path / "alone", Loudest(), "l")
    among = verify([other, one, other], clip, tmp_path / "among", Loudest(), "l")[1]
    assert among == alone
    assert alone.value == 1


def test_other_similarities_read_the_same_transcripts(clip, tmp_path):
    text = 'From 1.0s to 2.0s "softly". From 6.0s to 7.0s "loud". From 1.00s to 1.05s "soft".\n(a) a'
    (found,) = verify([response(text)], clip, tmp_path, Loudest(), "l")
    assert found.value_by(in_order) == found.value == 0
    assert found.value_by(character_cosine) == pytest.approx(character_cosine("softly", "soft") / 2)
    (nothing,) = verify([response("(a) a")], clip, tmp_path, Loudest(), "l")
    assert nothing.value_by(token_f1) is None


def test_a_stop_keeps_what_was_heard(clip, tmp_path):
    class Stopped(Loudest):
        def __call__(self, samples):
            if self.n == 1:
                raise KeyboardInterrupt
            return super().__call__(samples)

    both = response('"soft" from 1.0s to 2.0s. From 3.0s to 4.0s "loud".\n(b)')
    with pytest.raises(KeyboardInterrupt):
        verify([both], clip, tmp_path, Stopped(), "l")
    hears = Loudest()
    (found,) = verify([both], clip, tmp_path, hears, "l")
    assert (hears.n, found.value) == (1, 1.0)


def test_any_text_is_taken(clip, tmp_path):
    texts = [
        "",
        "\ud800",
        "From 1.0s to 2.0s\n",
        "1.0s - 2.0s " * 3000,
        'From 1.0s to 2.0s "' + "x" * 100_000,
    ]
    found = verify([response(text) for text in texts], clip, tmp_path, Loudest(), "l")
    assert len(found) == len(texts)


def test_true_spans_score_higher_than_shifted_ones_with_the_real_whisper(tmp_path):
    """Digits with exact times: four of them quoted, at their own place and two seconds beside it."""
    if not (cache_folder() / "whisper-base").exists():
        pytest.skip("Whisper base is not there: `make fetch` downloads it, once")
    from tgsr.data.corpora.spoken_digits import compose
    from tgsr.data.transcribe.whisper import FasterWhisper

    true, wrong = [], []
    for n in range(4):
        made = compose(50_000 + n, "heldout-recordings", seconds=(7.0, 10.0))
        clip = made.clip
        audio.save_wav(tmp_path / f"{n}.wav", made.samples)
        words = clip.words[:4]
        start, end = words[0].start, words[-1].end
        said = " ".join(word.text for word in words)
        if end + 2 > clip.duration:
            continue
        for shift, into in ((0.0, true), (2.0, wrong)):
            text = f'From {start + shift:.2f}s to {end + shift:.2f}s the speaker says "{said}".\n(a) a'
            into.append(response(text, f"{n}.wav", clip.duration))
    found = verify([*true, *wrong], tmp_path / "p.jsonl", tmp_path, FasterWhisper(language="en"), "base")
    values = [of.value for of in found]
    right, off = values[: len(true)], values[len(true) :]
    assert len(right) >= 3
    assert np.median(right) > np.median(off) + 0.2
    wins = [float(a > b) + 0.5 * (a == b) for a in right for b in off]
    assert np.mean(wins) > 0.8  # the area under the ROC curve
