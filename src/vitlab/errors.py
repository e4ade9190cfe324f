"""Errors that the command line reports in one line: what is wrong, where, and how to fix it."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """An error that the user can fix. The command line prints its message as one line and exits with code 2."""

    exit_code = 2


def unknown_name(kind: str, name: str, known: Iterable[str], *, listing: str) -> UserError:
    """The error for an unknown name, with the most similar known ones.

    Args:
        kind: the kind of thing, such as "model".
        name: the user's input.
        known: all valid names.
        listing: how to list them, such as "`vitlab models` lists them".
    """
    folded = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), folded, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(folded[match] for match in near)}? " if near else ""
    return UserError(f"unknown {kind} '{name}': {hint}{listing}")


class TrainingFailed(Exception):
    """Training failed: the loss is not finite, or memory ran out. The command line exits with code 3."""

    exit_code = 3


class Interrupted(Exception):
    """A signal stopped the run after its state was saved.

    Attributes:
        exit_code: of the command line: 130 for SIGINT, 143 for SIGTERM.
    """

    def __init__(self, signal_number: int, step: int) -> None:
        super().__init__(f"stopped after step {step}; --resume continues from there")
        self.exit_code = 128 + signal_number


class RankLost(Exception):
    """Another process of this run ended, so this one cannot continue. The command line exits with code 1."""

    exit_code = 1
