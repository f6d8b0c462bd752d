"""Where a text in another language says its answer: "La bonne réponse est B", "Правильный ответ: B", "정답은 B"."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache


def word_set(text: str) -> frozenset[str]:
    """The words of a list that is written as a text with blanks between."""
    return frozenset(text.split())


_ANSWER = (
    r"(?:réponse|respuesta|resposta|risposta|antwort|antwoord|ответ|відповідь|odpowiedź|odpověď|odgovor|cevap|yanıt"
    r"|jawaban(?:nya)?|đáp án|câu trả lời|答え|正解|正答|정답|답|الإجابة|الجواب|התשובה|תשובה|उत्तर|जवाब|คำตอบ"
    r"|svar(?:et)?|vastaus|απάντηση|răspuns(?:ul)?|válasz)"
)
_IS = (
    r"(?:est|es|é|è|e'|ist|lautet|wäre|is|to|je|adalah|là|هي|هو|היא|הוא|है|är|er|on|este|είναι|sería|serait"
    r"|sarebbe|seria|ser[áà]|sera|dir)"
)
# "la", "la letra", "Option": what may stand before the letter itself.
_BEFORE_LETTER = (
    r"(?:(?:la|le|les|el|il|l'|a|o|die|der|das|de|het|option|opci[oó]n|op[çc][aã]o|opzione|optie|opcja|вариант"
    r"|letra|lettre|lettera|buchstabe|letter|choix|буква) ?(?=[^\n]{0,24}[a-z])){0,2}"
)
_LETTER = r"[(\[\"'*_]{0,4}[a-z][)\]\"'*_.]{0,4}(?![\w'’])"
_ANNOUNCED = (
    rf"(?<!\w){_ANSWER}(?:\s(?!{_IS}\s)[\w']{{2,14}}){{0,3}}?[*_]{{0,3}}"
    rf"(?:\s?[:：=]\s?|(?:は|은|는|이|가)\s?[:：]?\s?|\s{_IS}\s?:?\s?|\s(?={_LETTER}))(?:{_BEFORE_LETTER}(?={_LETTER}))?"
)
_CHOSEN = (
    r"(?<!\w)(?:(?:no|non|não|nie|не|tidak|không) )?(?:ich (?:wähle|nehme)|je choisis"
    r"|elijo|escojo|selecciono|scelgo|escolho|выбираю|обираю|ik kies|wybieram|seçiyorum"
    rf"|saya memilih|tôi chọn|chọn)\s(?:{_BEFORE_LETTER})(?={_LETTER})"
)
_IS_RIGHT = (
    rf"(?<!\w)(?:{_ANSWER}|opci[oó]n|op[çc][aã]o|opzione|вариант|optie|opcja|choix"
    rf"|seçenek|الخيار|विकल्प)\s(?P<letter>{_LETTER})\s(?:{_IS}\s)?"
    r"(?:(?:la|le|die|das|a|de) )?(?:correct|corret|just|richtig|вер(?:н|ен)|صحيح|الصحيح|सही"
    r"|правильн|juist|bonne|poprawn|doğru|prawidłow)"
)
_IMPOSSIBLE = (
    r"(?<!\w)(?:لا يمكن|не может быть|no puede ser|ne peut pas être|kann nicht|non può essere|não pode ser)"
    r"[^.,;:،\n]{0,16}$"
)
_UNSURE = (
    r"(?<!\w)(?:peut-être|quizás?|tal vez|vielleicht|möglicherweise|forse|talvez|возможно|наверное|może|belki|mungkin"
    r"|(?:ou|oder|o|u|или|lub|albo|of|eller|veya|atau|hoặc|أو)(?= [(\[\"']{0,2}[a-z](?!\w)))(?!\w)|または|또는|たぶん"
    r"|아마|かもしれ|[?？]"
)
# What words of other languages do with the options beside them, as `statements` has it of English ones. Those that
# English has too, with another meaning, are left out.
ROLES = {
    "reject": """
        nicht kein keine keiner keines keinen keinem keinesfalls keineswegs niemals weder falsch falsche falscher
        falsches falschen inkorrekt unzutreffend ausgeschlossen unmöglich
        pas ni faux fausse fausses jamais aucun aucune incorrecte incorrectes inexact inexacte exclu exclue exclure
        erroné erronée écarte écarter élimine éliminer
        nunca tampoco incorrecta incorrecto falsa falso descartada descartado descarto descartar equivocada equivocado
        errónea erróneo imposible mal
        non né sbagliata sbagliato errata errato scorretta scorretto esclusa escluso escludo escludere impossibile
        não nem errada errado incorreta incorreto impossível
        niet geen fout foute onjuist onjuiste verkeerd verkeerde nie błędna błędny niepoprawna niepoprawny
        nieprawidłowa nieprawidłowy bukan bukanlah salah tidak không chẳng sai
        inte ikke fel feil forkert δεν λάθος לא אינו אינה שגוי שגויה
        не ни нет неверно неверный неверная неверен неверна неправильно неправильный неправильная неправильным ошибочен
        ошибочный ошибочна ошибочно исключён исключен исключаем исключить невірно невірна неправильна
        ليس ليست وليس وليست لا ولا لن غير خطأ خاطئ خاطئة
    """,
    "or": "ou oder или або lub albo eller veya veyahut atau hoặc أو",
    "open": """
        peut pourrait vielleicht möglicherweise könnte quizá quizás puede podría forse potrebbe talvez pode poderia
        возможно может belki mungkin
    """,
    "turn": "sondern sino pero aber maar mais mas ma ale utan melainkan sim но а але بل mà",
    "reason": """
        porque pois pues weil denn parce puisque puisqu'on puisqu'il perché poiché потому поскольку لأن karena çünkü
        ponieważ omdat vì
    """,
}
BUTS = word_set(ROLES["turn"])
"""Words that end what is denied before them, and say nothing elsewhere: "nicht A, sondern B"."""
REASONS = {
    "car": word_set("le la les l'on l'audio il elle ils elles on c'est ce cette un une aucun"),
    "da": word_set("man es der die das ein eine kein keine im"),
    "want": word_set("er de het je men"),
    "так": word_set("как"),
    "ya": word_set("que"),
    "क": word_set("य"),  # क्योंकि
}
"""Words that give a reason where one of these is behind them."""
FILLERS = """
    la le les el los il lo die der das den het l'option l'opzione opción opção opzione letra lettre lettera вариант
    être sein ser essere es est ist è é является
"""
BEGIN_AGAIN = "c'est es è é это das ist"
"""What begins a clause behind a comma, so that a denial before it is over: "No es A, es B"."""
IS = word_set("c'est est es è é ist это")
_WRONG = (
    *("невер", "неправ", "ошиб", "fals", "faux", "fauss", "incorr", "errad", "errat", "sbagl", "erron"),
    *("erróne", "błęd"),
)
# Japanese, Korean, Turkish and Hindi deny what they have named. Of the first two each character is a word; of the last
# the vowel signs are none.
_DENIED_BEHIND = word_set("değil değildir yanlış yanlıştır नह गलत लत")
_DENIED = re.compile(
    r"(?:では|じゃ|でも?|には)(?:な[いくかさ]|ありませ|ござい?ませ)|とは?(?:言|い|限|思)[えらわ](?:な|ませ)"
    r"|間?違[いうえっ](?!(?:は|も)?(?:な[いくさ]|ありませ|ございませ))|誤[りっ]|以外"
    r"|아니(?!면|,)|아[닙닌님닐냐]|틀[리렸린립]|오답|잘못|제외|않"
)
TOPIC = tuple("はがも은는이가도")
"""Particles behind an option that is spoken of, also before a comma."""


def denies(words: Sequence[str], i: int) -> bool:
    """Whether the characters from the word at `i` on deny the option before them: "Bではない", "B가 아닙니다"."""
    if words[i] in _DENIED_BEHIND:
        return True
    return words[i] in _DENYING and _DENIED.match("".join(words[i : i + 8])) is not None


def is_wrong(word: str) -> bool:
    """Whether the word says of what stands before it that it is wrong: "B — неверный ответ"."""
    return word.startswith(_WRONG)


_DENYING = frozenset("でじにと間違誤以아틀오잘제않")
_FINAL = re.compile("final|endgültig|ostateczn|окончательн|最終|최종")
_PIECES = (
    *("réponse", "respuesta", "resposta", "risposta", "antwo", "odgovor", "cevap", "yanıt", "jawaban"),
    *(
        "svar",
        "vastaus",
        "choisis",
        "elijo",
        "escojo",
        "scelgo",
        "escolho",
        "ich ",
        "ik kies",
        "wybieram",
        "saya ",
    ),
    *("opci", "opzione", "optie", "choix", "seçenek", "selecciono", "răspuns", "válasz"),
)
_FOREIGN = re.compile("[^\x00-\x7f‘-”–—]")


def announced(low: str, begin: int, end: int) -> Iterator[tuple[int, int, int, bool]]:
    """Where low[begin:end] says its answer: where that is announced, where it begins and ends, and if it is final.

    `low` is the text in lower case. What is left open ("B ou C") is no statement; what is denied is one of that.
    """
    if not (any([piece in low for piece in _PIECES]) or _FOREIGN.search(low, begin, end)):
        return
    for form in (_ANNOUNCED, _CHOSEN):
        for match in _compiled(form).finditer(low, begin, end):
            line = low.find("\n", match.end(), end)
            stop = end if line < 0 else line
            is_open = _compiled(_UNSURE).search(low, match.start(), min(stop, match.end() + 20))
            if low[match.end() : stop].strip() and not is_open:
                near = max(begin, match.start() - 40)
                is_final = _FINAL.search(low, max(begin, match.start() - 20), match.end()) is not None
                denial = _compiled(_IMPOSSIBLE).search(low, near, match.start())
                yield (denial or match).start(), match.end(), stop, is_final
    for match in _compiled(_IS_RIGHT).finditer(low, begin, end):
        yield match.start(), *match.span("letter"), False


@cache
def _compiled(form: str) -> re.Pattern[str]:
    """When a text first needs it: most never do."""
    return re.compile(form)
