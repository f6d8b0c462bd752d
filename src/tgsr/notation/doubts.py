"""What says that two joined times are no interval: a length, an age, a time of day, a measure of something else."""

from __future__ import annotations

import re

from tgsr.notation.times import SECOND_ABROAD, Pair, any_case

# Behind a pair. A sum, a rate ("3-5 s/step"), and another range.
SUM_AFTER = any_case(r"\s{0,3}[=≈]\s{0,2}~?[0-9]|\s?(?:[/^][a-z-]|²)")
RANGE_AFTER = any_case(r"\s{0,2}(?:-|~|to\b|or\b)\s{0,2}[0-9]")

# --- other measures ----------------------------------------------------------------------------------------------

OTHER_MEASURE = any_case(
    r"[)\]]?(?:st|nd|rd|th)?\s{0,2}-?(?:%|°|(?:percent|degrees?|k?hz|k?bps|db|hrs?|h|hours?|minutes?|mins?|days?"
    r"|weeks?|months?|years?|[ap]\.?m|o'clock|times|words?|people|points?|bpm|beats?|km|cm|mm|m|kg|stars?"
    r"|probability|frames|samples)(?![a-z0-9_])|岁|个|次|人|点|分钟|年|倍)"
)
OTHER_BEFORE = any_case(
    r"\b(?:coordinates?|points?|confidence|ci|odds|ratios?|scores?|ratings?|rated|values?|probabilit(?:y|ies)"
    r"|weights?|vector|bbox|box|position|lat|lon|gps|sections?|chapters?|versions?|v|figures?|tables?"
    r"|equations?|eq|pages?"
    r"|pp|lines?|steps?|options?|questions?|items?|levels?|grades?|accuracy|f1|iou|means?|average|normal range"
    r"|ranges?|[pxyn]|choose|python|magnitude|verses?|numbers?|(?:confidence|credible|prediction) intervals?)\.?"
    r"(?: (?:of|is|are|from|was|between))?[\s\"':=]{0,3}[\[(]{0,2}$"
)
ESTIMATE_BEFORE = any_case(r"[0-9]\.[0-9]{1,6}\s?[(\[]\s?$|\b[a-z] (?:in|∈) [(\[]$")  # 3.2 (2.1-4.3)
UNBRACKETED = re.compile(r"\s?[\[(][^\[(]*$")

# --- lengths -----------------------------------------------------------------------------------------------------

_OF = r"(?<!time )(?<!segment )(?<!span )(?<!part )(?<!section )(?<!portion )(?<!mark )(?<!stamp )(?<!stamps )of"
_LENGTH_WORD = (
    r"(?:for|every|each|per|an?|another|additional|extra|next|last|final|previous|remaining|first|brief|short"
    r"|long|quick"
    r"|several|multiple|few|at least|at most|up to|(?:more|less|longer|shorter|fewer) than|last(?:s|ed|ing)?"
    r"|tak(?:es?|ing)|took|wait(?:s|ed|ing)?|h[eo]ld|spen[dt]|averag(?:es?|ing)|rang(?:es?|ed|ing)|var(?:y|ies"
    r"|ied|ying))"
)
_LENGTH_NOUN = (
    r"(?:durations?|lengths?|latency|lag|delays?|periods?|decay"
    r"|(?:reaction|response|delay|reverb(?:eration)?|decay|attack|release) times?)"
    r"(?: of| is| are| was| (?:in|de)creas[a-z]{1,3}| rose| grew| fell)?:?"
)
_ONLY = (
    r"(?: (?:about|around|approximately|roughly|somewhere|only|just|at least|at most|up to|between|an?|the|is"
    r"|average)){0,3}"
)
_LENGTH_BEFORE = any_case(
    rf"(?:\b(?:{_LENGTH_WORD}|{_OF}|{_LENGTH_NOUN}){_ONLY}\s{{0,4}}[~≈]?"
    r"|(?:持续|停顿|沉默|间隔|每隔?|等待|长达|历时|时长|耗时|用时|停了|用了|花了|等了|延迟|需要?|超过|至少|最多)(?:时间)?"
    r"[为是了]?(?:约|大约|大概)?[: ]{0,2})$"
)
# "dura de 3 a 5 segundos", "Er wartet 3 bis 5 Sekunden"; of whole numbers also "una pausa de 3 a 5 segundos".
_LENGTH_BEFORE_ABROAD = any_case(
    r"(?:\bdur(?:a|e|é|ó|ou|an|aç|at|ée)\w*|dauer\w*|\b(?:pendant|für|per|por|przez|selama|trong|à chaque|jede"
    r"|alle|cada)"
    r"|läng\w*|\blong(?:u|it)\w*|lung\w*|tard[aeó]\w*|duurt|lengte|wart\w*|attend(?:re|ez|ons|u)\w*"
    r"|esper[aó]\w*|aspett\w*|depois|después|après|длит\w*"
    r"|продолж\w*|течение|кажды\w|trwa\w*|kéo dài|varar|varer|sürer|süren)[^.!?;\n0-9]{0,12}$"
)
_PAUSE_BEFORE_ABROAD = any_case(
    r"\b(?:pause?n?|paus[ae]s?|silen[cz]i?o?s?|stille|пауз\w*|тишин\w*)[^.!?;\n0-9]{0,8}$"
)
_LENGTH_AFTER_ABROAD = any_case(
    r" ?(?:lang(?!s)\w{0,2}|lung[aoh]\w?|de (?:dura|largo|long|silenc|paus)|di (?:dura|silen|paus)|d'att"
    r"|después|depois"
    r"|dopo|später|plus tard|позже|спустя|ожидан|sonra|kemudian|sau đó|뒤|후|后|間)"
)
# "3~5초 정도 걸린다", "1秒から5秒程度の音": about so long, where no word for a place follows. "3秒から5秒間" and
# "3초부터 5초 동안" are three things in use: 3 to 5 s long, from 3 s for 5 s, and from 3 to 5 s; so they are left out.
_LENGTH_AFTER_KOREAN_JAPANESE = any_case(
    r" ?(?:(?:정도|쯤|가량)(?! ?(?:에(?!만)|부터|까지|구간|사이|지점|부분|대))|동안"
    r"|(?:程度|くらい|ぐらい|ほど|前後)(?!の(?:間|区間|部分|ところ|位置)|に|まで))"
)
_LENGTH_FROM_BEFORE = any_case(
    r"\b(?:(?:rang|var)[a-z]{1,4}|(?:durations?|lengths?|delays?|gaps?|pauses?|latency) [a-z]{2,10}"
    r"|tak(?:es?|ing)|took|anywhere) from $"
)
# What has a place as well as a length: "a pause between 2 and 3 seconds", "the clip (12-15 seconds)".
_PAUSE_BEFORE = any_case(
    rf"\b(?:gaps?|pause[sd]?|pausing|silences?)(?: is| are| was)?:?{_ONLY}\s{{0,4}}[(\[]?$"
)
_CLIP_BEFORE = any_case(r"\b(?:clip|recording|audio|excerpt|file|utterance) [(\[]$")
_LONG_BEFORE = any_case(
    r"\b(?:(?:duration|length|long|short|brief|total)[ :]{1,2}[(\[]|(?:after|[a-z]{2,12} by|than) )$"
)
_PLACE_BEFORE = any_case(
    r"(?:(?:^|[^\w\s]|\n)\s{0,4}(?:by {1,2})?"
    r"|\b(?:at|about|around|approximately|approx|circa|roughly|near|from|between|during|and|or|then|the|in"
    r"|inside|through|throughout|across|over|within|covers?|spans?|occupies|seconds?|sec|mark|clip"
    rf"|{SECOND_ABROAD}"
    r"|(?:segment|interval|time-?stamp|time-?frame|time|region|portion|part|window)s?"
    r"(?: is| are| was| [a-z]{3,6} be)?) {1,2})[~≈]?$"
)
_WITHIN_BEFORE = any_case(r"\b(?:within|after|in|over|under|than)\s{1,2}(?:about |around )?$")
_PLACED_BEFORE = any_case(
    r"\b(?:happen|occur|appear|locat|is|are|was|heard|found|spoken|said|shown)[a-z]{0,3} (?:with)?in $"
)
LATER_AFTER = any_case(r"\s{1,2}-?(?:long|apart|later|ago|ahead|(?:long|short|fast|slow)er|each)\b")
_LENGTH_AFTER = any_case(
    r"\s{1,2}-?(?:long|apart|later|ago|ahead|(?:long|short|fast|slow)er|each|per|intervals|between|pass|elapse|delay"
    r"|pauses?|gaps?|of (?!(?:the|this|that|your) (?:audio|clip|recording|video|track|file|song|sound))|in length"
    r"|(?:reaction|response) times?"
    r"|(?:[a-z]{3,9} )?(?:clips|excerpts|snippets|recordings|chunks|frames|files|videos|tracks)"
    r"|in total|total|too (?:late|early)|late|early|more|in duration|after|before)\b"
    r"|間|(?:左右)?(?:的(?!片段|部分|音频|录音|位置|时候|内容|区间|段|地方)|之?后|以后|一次|长|不等)"
)
ONE_SECOND = any_case(r"(?:-\s?seconds?|-sec|\s?second)$")
NOUN_AFTER = any_case(
    r"[ -](?!(?:and|or|the|of|in|into|when|where|while|as|is|was|it|he|she|they|we|you|an?|to|at|with|there|for"
    r"|on)\b)"
    r"[a-z]{2,}"
)
_PLACE_AFTER = any_case(
    r"[ -](?:time ?)?(?:marks?|ranges?|segments?|intervals?|sections?|portions?|regions?|parts?|stretch|frames?"
    r"|window"
    r"|span)\b(?! (?:lengths?|sizes?|long|durations?))"
)
_THE_BEFORE = any_case(r"\b(?:the|this|that|these|those)\s{1,2}$")
_A_BEFORE = any_case(r"\b(?:a|an|another)\s{1,2}$")

# --- ages, decades, times of day, verses --------------------------------------------------------------------------

_DECADE_BEFORE = any_case(
    r"(?:'|\b(?:the|his|her|their|early|late|mid|aged?|ages?|old|era|decades?|probably|likely|mostly|typical of)"
    r"[ :-]{0,2}(?:about |around |in |the |his |her |their ){0,2})$"
)
_AGED_AFTER = any_case(r"\s?,?\s?(?:(?:fe)?male|age|years|or so)\b")
_TIME_OF_DAY = (
    r"(?:open(?:s|ing)?|clos(?:e|es|ed|ing)|hours|schedule[sd]?|daily|weekdays?|weekends?|news|shows?|programmes?"
    r"|(?:mon|tues|wednes|thurs|fri|satur|sun)days?|mon|tue|wed|thu|fri|sat|sun|(?:every|each) (?:day|morning"
    r"|evening)"
    r"|meetings?|class|lessons?|lunch|dinner|breakfast|trains?|flights?|bus|appointments?|shifts?|mass"
    r"|check-?in|slot|office|noon|tonight"
    r"|tomorrow|morning|afternoon|evening|o'clock|[ap]\.?m|gmt|utc|est)\b"
)
_HOURS_ABROAD = (
    r"\b(?:uhr\b|abiert|aberto|horario|ouvert|geöffnet|apert[oai]\b|открыт)|営業|영업|오[전후]|午[前后]"
)
_HOURS_BEFORE = any_case(rf"\b{_TIME_OF_DAY}|{_HOURS_ABROAD}|营业|[上下中]午|[早晚]上|凌晨")
_HOURS_AFTER = any_case(rf"\s{{0,2}}(?:(?:in|on|the|a) ){{0,2}}(?:{_TIME_OF_DAY}|{_HOURS_ABROAD})|营业")
_NEAR_BEFORE = 28  # characters before a time of day that say so
_VERSES_BEFORE = any_case(
    r"\b(?:genesis|exodus|leviticus|numbers|deuteronomy|joshua|judges|ruth|samuel|kings|chronicles|job|psalms?"
    r"|proverbs"
    r"|isaiah|jeremiah|daniel|matthew|mark|luke|john|acts|romans|corinthians|galatians|ephesians|hebrews|james|peter"
    r"|revelation|surah|quran|verses?|(?:ratio|odds|scores?)(?: of| is| [a-z]{2,8} from)?) $"
)


def counts_something_else(pair: Pair) -> bool:
    """Whether the last number, which has no unit of its own, is one of Hz, people, hours, a.m., ..."""
    match = OTHER_MEASURE.match(pair.after)
    return match is not None and not (pair.are_clocks and "min" in match[0].lower())


def is_length(pair: Pair, text: str) -> bool:
    """ "for 3 to 5 seconds", "2-3 seconds long", "a 30-60 second clip": how long, not when."""
    first, last, joint, before, after = pair
    if first.is_mark or last.is_mark:
        return False
    if first.seconds > 0 and (
        _LENGTH_AFTER_KOREAN_JAPANESE.match(after)
        or (after.startswith("間") and "から" in text[first.stop : last.at])
    ):
        return True
    if before.endswith("rom "):
        if _LENGTH_FROM_BEFORE.search(before):
            return True
    elif joint != "lasts" and before[-1:] not in '([{"' and _LENGTH_BEFORE.search(before):
        return True
    if first.says_seconds:
        return LATER_AFTER.match(after) is not None
    if (first.seconds > 0 and _LENGTH_AFTER.match(after)) or _LONG_BEFORE.search(before):
        return True
    if joint == "and" and is_length_abroad(before, after, first.is_decimal):
        return True
    if (
        not first.is_decimal
        and first.seconds > 0
        and any((_PAUSE_BEFORE.search(before), _CLIP_BEFORE.search(before)))
    ):
        return True
    if NOUN_AFTER.match(after) and (
        ONE_SECOND.search(text[last.number_stop : last.unit_stop]) or _THE_BEFORE.search(before)
    ):
        return _PLACE_AFTER.match(after) is None
    if first.unit or first.is_decimal or first.seconds == 0 or joint not in ("dash", "to"):
        return False
    # "3-5 s": whole numbers with one unit are as often a length, and need a word that says where.
    is_placed = _PLACE_BEFORE.search(before) is not None or not before[-1:].isascii()
    return not is_placed or (_WITHIN_BEFORE.search(before) is not None and not _PLACED_BEFORE.search(before))


def is_length_abroad(before: str, after: str, is_decimal: bool) -> bool:
    """ "dura de 3 a 5 segundos", "3 bis 5 Sekunden lang": how long, in neither English nor Chinese."""
    return any(
        (
            _LENGTH_BEFORE_ABROAD.search(before),
            not is_decimal and _PAUSE_BEFORE_ABROAD.search(before),
            _LENGTH_AFTER_ABROAD.match(after),
            _LENGTH_AFTER_KOREAN_JAPANESE.match(after),
        )
    )


def is_decade(pair: Pair, text: str) -> bool:
    """ "1930s to 1940s", "in the 60s to 70s", "his 20s to 30s"."""
    numbers = pair.first, pair.last
    is_attached = any(text[time.number_stop : time.unit_stop] in ("s", "S") for time in numbers)
    if not is_attached or any(
        time.is_decimal or time.is_mark or time.unit == "clock" or time.seconds % 10 for time in numbers
    ):
        return False
    is_year = any(1000 <= time.seconds < 2100 for time in numbers)
    return is_year or any((_DECADE_BEFORE.search(pair.before), _AGED_AFTER.match(pair.after)))


def is_time_of_day(pair: Pair, text: str) -> bool:
    """ "open 9:00-17:00 daily", "John 3:16-3:18"."""
    first, last = pair.first, pair.last
    if first.seconds >= 60 and _VERSES_BEFORE.search(pair.before):
        return True
    if _A_BEFORE.search(pair.before) and NOUN_AFTER.match(pair.after) and not _PLACE_AFTER.match(pair.after):
        return True
    is_round = not (first.seconds % 5 or last.seconds % 5) and first.seconds >= 300
    before = text[max(0, first.at - _NEAR_BEFORE) : first.at]
    return is_round and any((_HOURS_BEFORE.search(before), _HOURS_AFTER.match(pair.after)))
