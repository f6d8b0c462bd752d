"""The command line: one command a stage, each thin."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tgsr.commands.answer import _add_ask, _add_predict
from tgsr.commands.data import _add_build, _add_export, _add_look, _add_pack, _add_transcribe
from tgsr.commands.evaluate import (
    _add_attend,
    _add_behaviour,
    _add_control,
    _add_import,
    _add_judge,
    _add_rewards,
    _add_score,
)
from tgsr.commands.pages import _add_report, _add_study, _add_tables, _add_view
from tgsr.commands.train import _add_decoder, _add_demo, _add_fetch, _add_merge, _add_plan, _add_train
from tgsr.errors import TgsrError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Exit code 0; 2 with one message on stderr where the input is wrong; 130 when interrupted."""
    args = parser().parse_args(argv)
    try:
        args.run(args)
    except KeyboardInterrupt:
        print("tgsr: interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    except USERS_ERRORS as error:
        print(f"tgsr: {error}", file=sys.stderr)
        return 2
    return 0


USERS_ERRORS: tuple[type[Exception], ...] = (
    TgsrError,
    FileNotFoundError,
    FileExistsError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)
"""The errors whose message is meant for the user; any other one is a fault of ours and shows its trace."""


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="tgsr", description="Timestamp-grounded speech reasoning.")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _add_fetch(commands)
    _add_demo(commands)
    _add_ask(commands)
    _add_transcribe(commands)
    _add_build(commands)
    _add_train(commands)
    _add_decoder(commands)
    _add_predict(commands)
    _add_score(commands)
    _add_rewards(commands)
    _add_merge(commands)
    _add_import(commands)
    _add_look(commands)
    _add_pack(commands)
    _add_export(commands)
    _add_attend(commands)
    _add_control(commands)
    _add_plan(commands)
    _add_report(commands)
    _add_tables(commands)
    _add_behaviour(commands)
    _add_judge(commands)
    _add_study(commands)
    _add_view(commands)
    return top


if __name__ == "__main__":
    raise SystemExit(main())


if __name__ == "__main__":
    raise SystemExit(main())
