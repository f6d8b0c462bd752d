"""Intervals in other languages: "de 3,2 a 5,6 segundos", "von Sekunde 3 bis 5", "с 3 до 5 секунд", "3초에서 5초까지".

English and Chinese are read by `joined`. Here few shapes serve all others: two numbers that a word joins, a start and
an end by name, the first seconds; with a word for seconds beside a number, before or behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from tgsr.notation.doubts import is_length_abroad
from tgsr.notation.times import AFTER, BEFORE, SECOND_ABROAD, Stated, Time, any_case, clock_seconds

_ATTACHED = r"(?:초|秒目?)"
_UNIT = rf"(?:{SECOND_ABROAD}|{_ATTACHED}|(?:s|с|sec)(?!\w))"
_ARTICLE = r"(?:el|los|las?|il|i|les?|die|der|das|den|de|det|os?|as?)"
_NAMED = rf"(?:(?:{_ARTICLE} )?{SECOND_ABROAD} ?)"  # before its number: "al segundo 5", "Sekunde 5"
_MINUTES = r"(?:[0-9]{1,3} ?(?:m|min|мин|분|分|دقي|דק)\w{0,4}\.?,? ?(?:(?:y|e|et|und|en|i|и|och|og) )?)?"
_CLOCK = r"[0-9]{0,2}:?[0-9]{1,2}:[0-5][0-9](?:[.,][0-9]{1,3})?"
_NUMBER = rf"(?:{_CLOCK}|{_MINUTES}[0-9]{{1,5}}(?:[.,][0-9]{{1,3}})?)"
_ORDINAL = r"(?:\.(?= )|[ºªe](?=[er]?\b)|ème|°|वें|-?(?:я|й|ю|ой|ей|го|ую)\b)?"

_FROM = (
    r"(?:desde|del?|d[oa]s?|depuis|du|dal?|dall[ae']|dai|vo[mn]|ab|van|vanaf|från|fra|с|со|от|з|із|від|od|từ"
    r"|dari|di|din|من|از|από|में)"
)
_TO = (
    r"(?:a|à|al|au|aux|ai|aos?|às?|ate|até(?: (?:os?|aos?))?|hasta|bis(?: zu[rm]?)?|tot(?: aan)?|jusqu'(?:à|au)x?"
    r"|fino (?:al?|ai)|till|til|до|по|do|đến|tới|sampai(?: dengan)?|hingga|ile|إلى|الى|حتى|تا|ל|עד|έως|ως|μέχρι"
    r"|până la|la|से"
    r"|ถึง)"
)
_BETWEEN = (
    r"(?:entre|tra|fra|zwischen|tussen|mellan|mellem|mellom|между|між|giữa|antara|بين|بین|בין|między|mezi|μεταξύ"
    r"|între)"
)
_AND = r"(?:y|e|et|u|und|i|en|och|og|и|та|і|và|dan|و|ו|ל|και|și|a)"
_SUFFIX = r"(?:에서|부터|から)"
# Behind the second time, what makes two times a stretch: "3秒と5秒の間", "3 ile 5 saniye arasında".
_STRETCH = r"(?: ?(?:까지|사이|まで|の間|arasında|kadar|तक|के बीच|között))"

_ONE = rf"(?P<named1>{_NAMED})?(?P<first>{_NUMBER}){_ORDINAL} ?(?P<unit1>{_UNIT})?"
_OTHER = rf"(?:{_ARTICLE} )?(?P<named2>{_NAMED})?(?P<last>{_NUMBER}){_ORDINAL}(?: ?(?P<unit2>{_UNIT}))?"
_BEGIN, _STOP = r"(?<![\w.,:])", r"(?![0-9]|[.,:][0-9])"
# Compiled when a text first needs them: together they take as long as half of a command's start.
_JOINED = (
    rf"{_BEGIN}(?P<opener>{_FROM} (?:{_ARTICLE} )?)?{_ONE}(?: {_TO}[ -]|{_SUFFIX} ?|(?<=yeden) ){_OTHER}{_STOP}"
    rf"(?P<stretch>{_STRETCH})?",
    rf"{_BEGIN}(?P<opener>{_BETWEEN} (?:{_ARTICLE} )?){_ONE} {_AND}[ -]?{_OTHER}{_STOP}(?P<stretch>{_STRETCH})?",
    rf"{_BEGIN}(?P<opener>){_ONE}(?: ?(?:과|와|と|और) ?| (?:ve|ile|és) ){_OTHER}{_STOP}(?P<stretch>{_STRETCH})",
)
_AT = r"(?: ?[:=] ?| (?:(?:en|em|à|a|bei|um|ab|na|на|в|at|op|vid|ved|alle?|pada|lúc|el|le) ){0,2})"
_STARTS = (
    r"(?:inicio|início|comienzo|empieza|comienza|começa|début|debut|commence|anfang|beginnt?|startet|inizi[oa]"
    r"|comincia"
    r"|начало|начинается|початок|start|begin|börjar|mulai|bắt đầu|시작|开始|البداية|התחלה)"
)
_ENDS = (
    r"(?:fin|final|termina|acaba|fim|se termine|finit|ende|endet|fine|finisce|конец|заканчивается|кінець|eind"
    r"|einde|eindigt"
    r"|slut|slutar|selesai|berakhir|kết thúc|끝|종료|终了|结束|النهاية|סוף)"
)
_BREAK = r"\s?[,;.)]{0,2}\s{1,3}(?:(?:y|e|et|und|en|och|og|и|i|dan|và) )?(?:si |se )?"
_NAMED_ENDS = (
    rf"\b{_STARTS}{_AT}{_ONE}(?:{_BREAK}|、){_ENDS}{_AT}{_OTHER}{_STOP}",
    rf"{_BEGIN}{_ONE}(?:에|に|で)? ?(?:시작|始|开始)\w{{0,6}}[ ,、]{{0,3}}{_OTHER}"
    r"(?:에|に|で)? ?(?:끝|종료|终|结束)",
)
_FIRST = (
    r"(?:primer[oa]s?|primeir[oa]s?|premi[eè]re?s?|ersten?|prim[ie]|eerste|första|første|первы[ехй]|перш[іих]\w?"
    r"|pierwsz\w{1,3}|prv\w{1,2}|ilk|首|最初の|처음)"
)
_FIRST_SECONDS = (
    rf"(?<!\w)(?:{_FIRST} ?(?P<last>{_NUMBER})|(?P<before>{_NUMBER}) {_FIRST}) ?"
    rf"(?:{SECOND_ABROAD}|{_ATTACHED}){_STOP}"
)
# What tells most texts from these at a glance: pieces of the words for seconds, and short words between two times.
_ASCII_PIECES = ("segun", "segon", "secondo", "secondi", "seconde", "sekun", "secund", "saniye", "detik")
_PIECES = (
    "vteř",
    "másodperc",
    "сек",
    "giây",
    "δευτερ",
    "ثاني",
    "ثوان",
    "ثانیه",
    "שני",
    "सेक",
    "วินาที",
    "초",
    "秒",
)
_GAP = any_case(
    rf"(?:\W{{0,2}} (?:{_TO}|{_AND})|{_SUFFIX}|과|와|と|.{{0,12}}(?<!\w){_ENDS})[ :=]{{0,3}}(?:(?:\w{{1,4}}) ){{0,2}}"
)


def in_other_languages(text: str, times: Sequence[Time]) -> Iterator[Stated]:
    """The intervals that a `plain` text states in a language that is neither English nor Chinese.

    A word for seconds stands beside a number, or both are clocks; where it is one word for two whole numbers, another
    says from where ("de 3 a 5 segundos"; "3 a 5 segundos" is as often a length). Lengths and times of day are none.
    """
    lowered = text.lower()
    if not (
        any([piece in lowered for piece in _ASCII_PIECES])
        or (not text.isascii() and any([piece in lowered for piece in _PIECES]))
        or any([_GAP.fullmatch(text, one.stop, other.at) for one, other in pairwise(times)])
    ):
        return
    for form in (*_JOINED, *_NAMED_ENDS):
        is_named = form in _NAMED_ENDS
        for match in any_case(form).finditer(text):
            if _is_interval(match, text, is_named):
                stop = match.end("unit2") if match["unit2"] else match.end("last")
                yield Stated(
                    match.start("first"), stop, clock_seconds(match["first"]), clock_seconds(match["last"])
                )
    for match in any_case(_FIRST_SECONDS).finditer(text):
        yield Stated(match.start(), match.end(), 0.0, clock_seconds(match["last"] or match["before"]))


def _is_interval(match: re.Match[str], text: str, is_named: bool) -> bool:
    first, last = match["first"], match["last"]
    units = [match["named1"] or match["unit1"], match["named2"] or match["unit2"]]
    is_decimal = "." in first + last or "," in first + last
    before = text[max(0, match.start() - BEFORE) : match.start()]
    after = text[match.end() : match.end() + AFTER]
    if ":" in first or ":" in last:
        start, end = clock_seconds(first), clock_seconds(last)
        is_time_of_day = start >= 300 and not (start % 60 or end % 60)
        return ":" in first and ":" in last and not is_time_of_day
    if is_named:
        return any(units) or is_decimal
    if not any(units):
        return False
    if match["named1"] or match["named2"]:
        return True
    is_placed = bool(match["opener"] or match["stretch"])
    return (is_placed or all(units) or is_decimal) and not is_length_abroad(before, after, is_decimal)
