"""The errors a user can cause. The command line prints their message and exits with code 2."""


class ConfigError(ValueError):
    """A setting is unknown, of the wrong type, out of range, or contradicts another one."""


class DataError(ValueError):
    """A file of raw data, a prepared split, an image or a feature store is missing or malformed."""


class CheckpointError(ValueError):
    """An adapter or a training state does not fit the model it is loaded into, or is damaged."""


class DivergenceError(RuntimeError):
    """The loss became NaN or infinite."""


class MismatchError(RuntimeError):
    """A result, made again, is not what was recorded. The command line exits with code 1, as ``diff`` does."""


class PrunedError(Exception):
    """Raised by a caller's ``on_evaluation`` to end a run that is not worth its remaining steps."""
