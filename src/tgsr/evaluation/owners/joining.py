"""Whose row is whose: predictions and questions joined by id, or by the name of the sound that they are about."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tgsr.disk.sound_folder import parts_of
from tgsr.errors import RecordError

# pandas' 17.0 for 17; beyond 2**53 such a number may be another's id.
_WHOLE = re.compile(r"([0-9]{1,15})\.0")


def sound_name(path: str) -> str:
    """A sound file's name without its folder, in any system's spelling, and without a suffix of audio."""
    return parts_of(path)[-1]


@dataclass(frozen=True, slots=True)
class Joining:
    """The ids of the questions, and which of them are about the sound of a name."""

    ids: frozenset[str]
    by_sound: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, sounds: Mapping[str, str | None]) -> Joining:
        """From each question's id and the path of its sound, None where that is not known."""
        by_sound: dict[str, tuple[str, ...]] = {}
        for id_, sound in sounds.items():
            if sound:
                by_sound[sound_name(sound)] = (*by_sound.get(sound_name(sound), ()), id_)
        return cls(frozenset(sounds), by_sound)

    def find(self, ids: Iterable[str | None], sound: str | None) -> str | None:
        """The question of a row: the first of its `ids` that there is; of a row without an id the one about its sound.

        An id may be the sound's name or path itself, and 17.0 is 17. An id that is none of these is another
        question's, whatever the sound: None, as where nothing fits. RecordError where several are about the sound.
        """
        given = [id_ for id_ in ids if id_]
        given += [match[1] for id_ in given if (match := _WHOLE.fullmatch(id_))]
        known = next((id_ for id_ in given if id_ in self.ids), None)
        if known is not None:
            return known
        names = [sound_name(name) for name in given or ([sound] if sound else [])]
        about = next((self.by_sound[name] for name in names if name in self.by_sound), ())
        if len(about) > 1:
            some = ", ".join(about[:3]) + (", ..." if len(about) > 3 else "")
            problem = f"{len(about)} questions are about {names[0]}: give the id of one ({some})"
            raise RecordError("id", problem)
        return about[0] if about else None
