"""The script of Flight of the Amazon Queen: what is said in each sound file, and by whom.

Its parts have big-endian numbers after a header of 20 bytes. X.DOG is a dialogue of Joe's with X: their lines, each
under a number. X.CUT is a scene: a list of steps, each with who acts and a line. QUEEN.JAS has the rooms' objects and
actors, QUEEN2.JAS, a text a row, what Joe says of things, and names. Marks in a line (* and two letters or digits:
gestures, turns, pauses) part it into what one sound file says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from tgsr.data.corpora.amazon_queen_bundle import Bundle, Part
from tgsr.errors import CorpusError

HEADER = 20
SOUND = ".SB"
JOE = "JOE"
MARK = re.compile(r"\*(?:XY.{11}|..)", re.DOTALL)  # XY is followed by where somebody goes: XY00(237,112)
# the game's trademark, notes, and sounds: <gulp>, (sigh)
NOT_WORDS = re.compile(r"\^_?|@@|<[^>]*>|\([A-Za-z]+\)")
LONE_SIGNS = re.compile(r" (?=[^\w ]+(?: |$))")
# What actors' names have besides the character's: X5_SPARKY, SPARKY-F, PRINCESS2
VARIANT = re.compile(r"^X\d+_|[-_].*$|\d+$")
OTHER_NAMES = {"JOHAN": "JOHN", "AZURA": "PRIN"}


@dataclass(frozen=True, slots=True)
class Line:
    """What one sound file says, without marks; `speaker` None where the game does not tell who. `part` tells where."""

    text: str
    speaker: str | None
    part: str


def script(bundle: Bundle) -> dict[str, Line]:
    """The line of each sound file that has one, by its name without the suffix.

    Speakers are called as their dialogues are, without numbers (BOB of BOB1.DOG), others as the game calls the actor.
    Raises CorpusError, with part and byte, where a part was altered.
    """
    dialogues = {name: name.removesuffix(".DOG").rstrip("0123456789") for name in bundle.of_kind(".DOG")}
    rooms = Rooms.of(bundle, sorted(set(dialogues.values())))
    lines: dict[str, Line] = {}
    for name, character in dialogues.items():
        for prefix, is_joe, text in _dialogue(_body(bundle, name)):
            _put(lines, bundle, prefix, text, JOE if is_joe else character, name)
    for name in bundle.of_kind(".CUT"):
        for prefix, who, text in _scene(_body(bundle, name), name.removesuffix(".CUT"), rooms):
            _put(lines, bundle, prefix, text, rooms.character(who), name)
    for number, text in enumerate(rooms.remarks, 1):
        _put(lines, bundle, f"JOE{number:04d}", text, JOE, "QUEEN2.JAS")
    return lines


def _put(
    lines: dict[str, Line], bundle: Bundle, prefix: str, text: str, speaker: str | None, part: str
) -> None:
    """Puts what each sound file of one line says; of lines with the same number the game speaks the first."""
    for number, said in enumerate(MARK.split(text), 1):
        stem = f"{prefix}{number:x}".upper()
        if f"{stem}{SOUND}" in bundle:
            lines.setdefault(stem, Line(_plain(said), speaker, part))


def _plain(said: str) -> str:
    """The words; signs that stand alone once what is no word is gone belong to the word before them."""
    return LONE_SIGNS.sub("", " ".join(NOT_WORDS.sub("", said).split()))


def _body(bundle: Bundle, name: str) -> Part:
    part = bundle[name]
    return Part(f"{part.where}, after its header", part.taken(HEADER, len(part.content) - HEADER))


# Dialogues


def _dialogue(part: Part) -> Iterator[tuple[str, bool, str]]:
    """Of each line: how its sound files' names begin, whether Joe says it, and the text with its marks.

    First come the lines of a first and of a later meeting, under SSSS and XXXX for a number.
    """
    n_levels, _, key, n_joes, n_others = part.numbers(">5h", 0)
    others, _, later = part.numbers(">3H", 22)
    joes = 32 + abs(n_levels) * 96
    (is_silent,) = part.numbers(">H", joes + 2)
    if not is_silent:
        yield f"{key:02d}SSSSJ", True, part.text(joes + 4, 2)[0]
    text, at = part.text(later, 2)
    yield f"{key:02d}XXXXP", False, text
    yield f"{key:02d}XXXXJ", True, part.text(at, 2)[0]
    for is_joe, at, n_lines in ((True, joes, n_joes), (False, others, n_others)):
        for _ in range(n_lines):
            (number,) = part.numbers(">H", at + 2)
            text, at = part.text(at + 4, 4)
            yield f"{key:02d}{number:04x}{'J' if is_joe else 'P'}", is_joe, text


# Scenes


def _scene(part: Part, name: str, rooms: Rooms) -> Iterator[tuple[str, int, str]]:
    """Of each step with a line: how its sound files' names begin, the number of the object that acts, and the text.

    0 and -1 are Joe, other negative numbers a voice from off the stage.
    """
    _, n_steps, _, _, texts, _ = part.numbers(">3h3H", 0)
    _, text_at = part.text(texts, 2)
    at = 12
    copied: dict[int, bool] = {}  # whether the object is a person now
    for number in range(1, abs(n_steps) + 1):
        step = part.numbers(">17h", at)
        who, animated, executed, source = step[0], step[4], step[5], step[12]
        (n_people,) = part.numbers(">h", at + 34)
        at += 36 + 2 * n_people
        text, text_at = part.text(text_at, 2)
        is_person = not animated and (who in (0, -1) or copied.get(who, rooms.is_person(who)))
        if source > 0:
            copied[who] = rooms.is_person(source)
        if source <= 0 and not is_person and who >= -1 and executed:
            while part.numbers(">h", at)[0] != -2:  # the frames of an animation
                at += 20
            at += 2
        yield f"{name:_<5}{number:02d}", who, text


# Rooms


@dataclass(frozen=True, slots=True)
class Actor:
    """Who appears as the `place`-th person of a room, at some time of the game."""

    room: int
    place: int
    character: str


@dataclass(frozen=True, slots=True)
class Thing:
    """An object of a room; `place` is its number among the room's persons where it is one, else 0."""

    name: str
    room: int
    place: int


@dataclass(frozen=True, slots=True)
class Rooms:
    """The game's objects, from number 1 on, its actors, and what Joe says of things, in the order of sound files."""

    things: tuple[Thing, ...]
    actors: tuple[Actor, ...]
    remarks: tuple[str, ...]

    @classmethod
    def of(cls, bundle: Bundle, characters: list[str]) -> Rooms:
        part = _body(bundle, "QUEEN.JAS")
        n_rooms, n_names, n_things, n_descriptions = part.numbers(">4H", 0)
        rows = bundle["QUEEN2.JAS"]
        texts = rows.content.decode("latin-1").replace("\r", "").split("\n")
        # what Joe says of things, names of things, of rooms, of verbs, what else he says, the actors' frames, names
        at = _actors_at(part, n_rooms, n_things)
        n_actors, n_frames, n_actor_names, _ = part.numbers(">4H", at)
        sizes = (n_descriptions, n_names, n_rooms, 12, 40, n_frames, n_actor_names)
        ends = list(accumulate(sizes))
        stretches = (texts[end - size : end] for size, end in zip(sizes, ends, strict=True))
        descriptions, names, _, _, answers, _, actor_names = stretches
        named = [_character(name, characters) for name in actor_names]
        actors = (part.numbers(">hhH", at + 8 + 24 * number) for number in range(n_actors))
        return cls(
            tuple(_things(part, n_things, names, rows)),
            tuple(Actor(room, place, _row(named, name, rows)) for room, place, name in actors),
            (*answers, *descriptions),
        )

    def is_person(self, number: int) -> bool:
        return 0 < number <= len(self.things) and self.things[number - 1].place > 0

    def character(self, number: int) -> str | None:
        """Who speaks where that object does; None where it is nobody's voice, or one of several at different times."""
        if number in (0, -1):
            return JOE
        if not self.is_person(number):
            return None
        thing = self.things[number - 1]
        characters = self._characters(thing)
        if len(characters) > 1:  # the one that things of that name are elsewhere
            others = [self._characters(other) for other in self.things if other.name == thing.name]
            characters &= set().union(*(other for other in others if len(other) == 1))
        return characters.pop() if len(characters) == 1 else None

    def _characters(self, thing: Thing) -> set[str]:
        here = (thing.room, thing.place)
        return {actor.character for actor in self.actors if thing.place and (actor.room, actor.place) == here}


def _character(actor: str, characters: list[str]) -> str:
    """The character that an actor of that name is: of the dialogues' ones the longest that the name begins with."""
    name = VARIANT.sub("", VARIANT.sub("", actor))
    name = OTHER_NAMES.get(name, name)
    return max((character for character in characters if name.startswith(character)), key=len, default=name)


def _row(texts: list[str], number: int, rows: Part) -> str:
    """The text of that number, from 1 on; "" for 0. CorpusError where there is none."""
    if abs(number) > len(texts):
        found = f"{len(texts)}: it was cut off or altered"
        raise CorpusError(rows.where, f"a row for the name {number}", found)
    return texts[abs(number) - 1] if number else ""


def _things(part: Part, n_things: int, names: list[str], rows: Part) -> Iterator[Thing]:
    n_persons: dict[int, int] = {}
    for number in range(n_things):
        name, _, _, _, _, room, _, image = part.numbers(">h3Hh2Hh", 8 + 16 * number)
        is_person = image in (-3, -4)  # who looks to the left, or to the right
        n_persons[room] = n_persons.get(room, 0) + is_person
        yield Thing(_row(names, name, rows), room, n_persons[room] if is_person else 0)


def _actors_at(part: Part, n_rooms: int, n_things: int) -> int:
    """The byte where the actors' table begins, after those of all else."""
    at = 8 + 16 * n_things + 2 * (n_rooms + 1) + 2 * n_rooms
    for size in (10, 10):  # what is carried, pictures
        at += 2 + size * part.numbers(">H", at)[0]
    for _ in range(n_rooms):
        at += 4 + 16 * part.numbers(">h", at + 2)[0]  # where one can walk
    at += 8 * n_things
    for size in (6, 8):  # ways out, descriptions
        at += 2 + size * part.numbers(">H", at)[0]
    for size in (20, 6, 6, 6, 8):  # commands and their effects, of which there is one where the number is 0
        at += 2 + size * max(1, part.numbers(">H", at)[0])
    return at + 4 + 4 * part.numbers(">H", at + 2)[0]  # the first room, furniture
