"""The two errors that a stage may end with on purpose, their exit codes, and what their messages need."""

EXIT_USER_ERROR = 2
EXIT_RETRY = 75


class UserError(ValueError):
    """Something the user can mend: one line with the field, the value, what is allowed and what to do. Exit 2."""


class RetryableError(RuntimeError):
    """Something that may pass by itself (a lost mirror, a busy device). Exit 75; the flow tries again."""


def printable(name: str, limit: int = 60) -> str:
    """A name for a message of one line: as it is, or in quotes with escapes when it would break the line."""
    shown = name if name.isprintable() else repr(name)
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


def is_unicode(text: str) -> bool:
    """Whether the text can be written as UTF-8; half of a surrogate pair cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
