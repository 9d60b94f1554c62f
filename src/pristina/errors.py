"""Every exception pristina raises on purpose.

    PristinaError
    ├── InputError              what the caller gave cannot be used
    │   ├── PictureError        a picture that cannot be read or written
    │   ├── SizeError           a size that the prior or operator does not accept
    │   ├── SettingError        a setting out of range, or unknown
    │   └── OperatorError       an operator that does not fit its observation
    ├── CheckpointError         weights that cannot be loaded as asked
    ├── MissingExtra            an optional package is not installed
    └── Cancelled               raised by a progress callback to stop a method

A message says what was wrong, what was expected and what to do about it.
"""


class PristinaError(Exception):
    """Base of every deliberate error."""


class InputError(PristinaError):
    """What the caller gave cannot be used."""


class PictureError(InputError):
    """A picture or another result cannot be read or written."""


class SizeError(InputError):
    """A picture size that the prior or the operator does not accept."""


class SettingError(InputError):
    """A setting is out of range, or its name is unknown."""


class OperatorError(InputError):
    """An operator does not fit its observation, or its recipe cannot be read."""


class CheckpointError(PristinaError):
    """Weights cannot be loaded as asked."""


class MissingExtra(PristinaError):
    """An optional package is needed and is not installed."""


class Cancelled(PristinaError):
    """Raised inside ``on_step`` to stop a method, which then returns its best result so far."""
