"""The two errors that a stage may end with on purpose, and their exit codes."""

EXIT_USER_ERROR = 2
EXIT_RETRY = 75


class UserError(ValueError):
    """Something the user can mend: one line with the field, the value, what is allowed and what to do. Exit 2."""


class RetryableError(RuntimeError):
    """Something that may pass by itself (a lost mirror, a busy device). Exit 75; the flow tries again."""
