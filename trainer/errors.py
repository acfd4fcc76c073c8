"""Every way a run can end badly, with its exit code and whether starting it again can help.

    JobError              1   unexpected; retry
    ├── SettingsError     2   an option is wrong
    ├── DataError        10   the data cannot be used
    │   └── NothingKeptError  no question could be made of documents
    ├── NotAllowedError  11   credentials, permissions, gated model
    ├── UnreachableError 12   bucket or hub out of reach; retry
    ├── DoesNotFitError  13   the device cannot run this
    ├── RejectedError    14   training diverged, the adapter failed a check or is not the one
    │                      that was published under this run's id meanwhile
    └── Interrupted      33   stopped by a signal, checkpoint saved; retry

A message is one sentence that names the thing, the fact and the next step.
"""

from typing import ClassVar


class JobError(Exception):
    """The run cannot go on; the message is written for the person who started it."""

    exit_code: ClassVar[int] = 1
    retry_helps: ClassVar[bool] = True


class SettingsError(JobError):
    """One or more settings are wrong; the message lists all of them."""

    exit_code = 2
    retry_helps = False


class DataError(JobError):
    """The input holds nothing that can be trained on, or is broken."""

    exit_code = 10
    retry_helps = False


class NothingKeptError(DataError):
    """No question could be made of the documents."""


class NotAllowedError(JobError):
    """Storage or hub refused the credentials, or a folder the permission."""

    exit_code = 11
    retry_helps = False


class UnreachableError(JobError):
    """Storage or hub did not answer within the retry time."""

    exit_code = 12


class DoesNotFitError(JobError):
    """Model and settings need more than the device has."""

    exit_code = 13
    retry_helps = False


class RejectedError(JobError):
    """Training diverged, or the finished adapter cannot be used; it was not published."""

    exit_code = 14
    retry_helps = False


class Interrupted(JobError):
    """A signal ended the run after its state was saved."""

    exit_code = 33
