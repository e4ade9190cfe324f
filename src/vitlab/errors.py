"""What goes wrong through the user's hands: one line that says what, where, and how to mend it."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake of the user's. The command line prints its message as one line and exits with code 2."""

    exit_code = 2


def unknown_name(kind: str, name: str, known: Iterable[str], *, listing: str) -> UserError:
    """The error for a name that is not known, with the nearest ones.

    Args:
        kind: what was named, such as "model".
        name: what the user wrote.
        known: every valid name.
        listing: how to see them all, such as "`vitlab models` lists them".
    """
    folded = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), folded, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(folded[match] for match in near)}? " if near else ""
    return UserError(f"unknown {kind} '{name}': {hint}{listing}")


class TrainingFailed(Exception):
    """Training failed on its own: the loss is not finite, or memory ran out. The command line exits with code 3."""

    exit_code = 3


class Interrupted(Exception):
    """A run was asked by a signal to stop, and its state is saved.

    Attributes:
        exit_code: of the command line: 130 for SIGINT, 143 for SIGTERM.
    """

    def __init__(self, signal_number: int, step: int) -> None:
        super().__init__(f"stopped after step {step}; --resume continues from there")
        self.exit_code = 128 + signal_number


class RankLost(Exception):
    """Another process of this run ended, so that this one cannot go on. The command line exits with 1."""

    exit_code = 1
