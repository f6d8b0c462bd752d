"""Where a text in another language says its answer: "La bonne réponse est B", "Правильный ответ: B", "정답은 B"."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

_ANSWER = (
    r"(?:réponse|respuesta|resposta|risposta|antwort|antwoord|ответ|відповідь|odpowiedź|odpověď|odgovor|cevap|yanıt"
    r"|jawaban(?:nya)?|đáp án|câu trả lời|答え|正解|正答|정답|답|الإجابة|الجواب|התשובה|תשובה|उत्तर|जवाब|คำตอบ"
    r"|svar(?:et)?|vastaus"
    r"|απάντηση|răspuns(?:ul)?|válasz)"
)
_IS = (
    r"(?:est|es|é|è|e'|ist|lautet|wäre|is|to|je|adalah|là|هي|هو|היא|הוא|है|är|er|on|este|είναι|sería|serait"
    r"|sarebbe|seria|ser[áà]"
    r"|sera|dir)"
)
# "la", "la letra", "Option": what may stand before the letter itself.
_BEFORE_LETTER = (
    r"(?:(?:la|le|les|el|il|l'|a|o|die|der|das|de|het|option|opci[oó]n|op[çc][aã]o|opzione|optie|opcja|вариант"
    r"|letra|lettre"
    r"|lettera|buchstabe|letter|choix|буква) ?(?=[^\n]{0,24}[a-z])){0,2}"
)
_LETTER = r"[(\[\"'*_]{0,4}[a-z][)\]\"'*_.]{0,4}(?![\w'’])"
_ANNOUNCED = (
    rf"(?<!\w){_ANSWER}(?:\s(?!{_IS}\s)[\w']{{2,14}}){{0,3}}?[*_]{{0,3}}"
    rf"(?:\s?[:：=]\s?|(?:は|은|는|이|가)\s?[:：]?\s?|\s{_IS}\s?:?\s?|\s(?={_LETTER}))(?:{_BEFORE_LETTER}(?={_LETTER}))?"
)
_CHOSEN = (
    r"(?<!\w)(?:ich (?:wähle|nehme)|je choisis|elijo|escojo|selecciono|scelgo|escolho|выбираю|обираю|ik kies"
    r"|wybieram|seçiyorum"
    rf"|saya memilih|tôi chọn|chọn)\s(?:{_BEFORE_LETTER})(?={_LETTER})"
)
_IS_RIGHT = (
    rf"(?<!\w)(?:{_ANSWER}|opci[oó]n|op[çc][aã]o|opzione|вариант|optie|opcja|choix"
    rf"|seçenek)\s(?P<letter>{_LETTER})\s(?:{_IS}\s)?"
    r"(?:(?:la|le|die|das|a|de) )?(?:correct|corret|just|richtig|верн|правильн|juist|bonne|poprawn|doğru|prawidłow)"
)
_NOT = (
    r"(?<!\w)(?:pas|nicht|kein\w*|niet|geen|no|não|non|nie|не|ikke|inte|değil|bukan|không|ليس|ليست|नहीं|n'est"
    r"|n’est)(?!\w)|ない|ではあ|아[니닙]|\bfa(?:ux|usse|lsch|lsa|lso)\b|incorre|неверн|неправ|sbagliat|errad[ao]|fout\b"
    r"|yanlış"
)
_UNSURE = (
    r"(?<!\w)(?:peut-être|quizás?|tal vez|vielleicht|möglicherweise|forse|talvez|возможно|наверное|może|belki|mungkin"
    r"|(?:ou|oder|o|u|или|lub|albo|of|eller|veya|atau|hoặc|أو)(?= [(\[\"']{0,2}[a-z](?!\w)))(?!\w)|または|또는|たぶん"
    r"|아마|かもしれ|[?？]"
)
_FINAL = re.compile("final|endgültig|ostateczn|окончательн|最終|최종")
_PIECES = (
    *(
        "réponse",
        "respuesta",
        "resposta",
        "risposta",
        "antwo",
        "odgovor",
        "cevap",
        "yanıt",
        "jawaban",
        "svar",
    ),
    *("vastaus", "choisis", "elijo", "escojo", "scelgo", "escolho", "ich ", "ik kies", "wybieram", "saya "),
    *("opci", "opzione", "optie", "choix", "seçenek", "selecciono", "răspuns", "válasz"),
)
_FOREIGN = re.compile("[^\x00-\x7f‘-”–—]")


def announced(low: str, begin: int, end: int) -> Iterator[tuple[int, int, int, bool]]:
    """Where low[begin:end] says its answer: where that is announced, where it begins and ends, and if it is final.

    `low` is the text in lower case. What is denied or left open ("La réponse n'est pas B", "B ou C") is no statement.
    """
    if not (any([piece in low for piece in _PIECES]) or _FOREIGN.search(low, begin, end)):
        return
    for form in (_ANNOUNCED, _CHOSEN):
        for match in _compiled(form).finditer(low, begin, end):
            line = low.find("\n", match.end(), end)
            stop = end if line < 0 else line
            near = min(stop, match.end() + 20)
            is_open = _compiled(_NOT).search(low, match.start(), near) or _compiled(_UNSURE).search(
                low, match.start(), near
            )
            if low[match.end() : stop].strip() and not is_open:
                is_final = _FINAL.search(low, max(begin, match.start() - 20), match.end()) is not None
                yield match.start(), match.end(), stop, is_final
    for match in _compiled(_IS_RIGHT).finditer(low, begin, end):
        if not _compiled(_NOT).search(low, match.start(), match.end()):
            yield match.start(), *match.span("letter"), False


@cache
def _compiled(form: str) -> re.Pattern[str]:
    """When a text first needs it: most never do."""
    return re.compile(form)
