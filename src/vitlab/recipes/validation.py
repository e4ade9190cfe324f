"""What pydantic finds wrong, said in one line."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from vitlab.errors import UserError, unknown_name

Value = TypeVar("Value")


def one_line(error: ValidationError, what: str, known: Iterable[str]) -> UserError:
    """The first finding of `error` as a one-line mistake of the user's.

    Args:
        error: what pydantic raised.
        what: the value that was being made, such as "ViTConfig".
        known: its field names, for hints on unknown ones.
    """
    first = error.errors()[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, UserError):
        return cause
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        names = list(known)
        return unknown_name(f"option of {what}", where, names, listing=f"it takes {', '.join(names)}")
    if first["type"] in ("missing", "missing_argument"):
        return UserError(f"{what}: {where} is missing; it takes {', '.join(known)}")
    return UserError(f"{what}: {where}: {first['msg'][0].lower()}{first['msg'][1:]}, not {first['input']!r}")


def one_line_errors(cls: type[Value]) -> type[Value]:
    """Let a pydantic dataclass that is made directly raise one-line UserErrors.

    Inside a larger pydantic value nothing changes: there the larger value reports.
    """
    made = cast(Callable[..., None], cls.__init__)

    @functools.wraps(made)
    def init(self: Value, *args: Any, **fields: Any) -> None:
        try:
            made(self, *args, **fields)
        except ValidationError as error:
            known = cast(dict[str, Any], vars(cls)["__dataclass_fields__"])
            raise one_line(error, cls.__name__, known) from None

    setattr(cls, "__init__", init)  # noqa: B010  (mypy forbids the plain assignment)
    return cls
