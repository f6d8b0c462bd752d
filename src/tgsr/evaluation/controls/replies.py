"""What a text model replied, kept: paraphrases and mistakes, and how alike two reasonings are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tgsr.llm.decoding import Decoding, Failed
from tgsr.llm.served import Llm, TextPrompt, replies_kept
from tgsr.reading.thoughts import after_thoughts
from tgsr.records import append_jsonl

DECODING = Decoding(max_new_tokens=512)
GRADES = "12345"
_GRADE = re.compile(r"(?<![\w.,/])[1-5](?![\w/]|[.,]\d)")


@dataclass(frozen=True, slots=True)
class Replies:
    """A text model by its name; its replies are in `log`, and what is there is not asked for again."""

    llm: Llm
    name: str
    log: Path
    known: dict[str, str]

    @classmethod
    def of(cls, llm: Llm, name: str, log: Path) -> Replies:
        """With the replies that the log holds. RecordError for a line that is none."""
        return cls(llm, name, log, replies_kept(log, name, by="llm", key="prompt"))

    def __call__(self, prompt: str, letters: str = "") -> str | Failed:
        """The reply, without what is thought aloud before it. Failed ones are asked for again another time."""
        if prompt not in self.known:
            (reply,) = self.llm.replies([TextPrompt(prompt, letters)], DECODING)
            if isinstance(reply, Failed):
                return reply
            self.log.parent.mkdir(parents=True, exist_ok=True)
            append_jsonl(self.log, {"llm": self.name, "prompt": prompt, "reply": reply})
            self.known[prompt] = reply
        reply = self.known[prompt]
        text = reply[after_thoughts(reply) :].strip()
        return text or Failed(f"{self.name} replied nothing")

    def alike(self, question: str, before: str, after: str) -> int | None:
        """How far two reasonings about a question say the same, from 1 (they contradict) to 5 (the same).

        None for a failed request, and for a reply that is not one grade. The scale is that of arXiv 2509.22363; its
        prompt is not published, and this one is ours.
        """
        reply = self(
            "Two programs reasoned about the same question on a recording. Grade how far the second reasoning agrees "
            "with the first in what it says was heard and what it concludes: 5 they say the same, 4 small differences, "
            "3 partly the same, 2 mostly different, 1 they contradict each other or have nothing in common. You cannot "
            f"hear the recording.\n\nQuestion: {question}\n\nFirst reasoning:\n{before}\n\nSecond reasoning:\n{after}"
            "\n\nReply with the grade alone, a single digit.",
            GRADES,
        )
        grades = set() if isinstance(reply, Failed) else set(_GRADE.findall(reply))
        return int(grades.pop()) if len(grades) == 1 else None
