"""The errors of a run. The command line prints their message: bad input ends with exit code 2, the others with 1."""


class ConfigError(ValueError):
    """A setting is unknown, of the wrong type, out of range, or contradicts another one."""


class DataError(ValueError):
    """A file of raw data, a prepared split, an image or a feature store is missing or malformed."""


class CheckpointError(ValueError):
    """An adapter or a training state does not fit the model it is loaded into, or is damaged."""


class DivergenceError(RuntimeError):
    """The loss or a gradient became NaN or infinite, or exploded."""


class MismatchError(RuntimeError):
    """A result, made again, is not what was recorded. The command line exits with code 1, as ``diff`` does."""


class PrunedError(Exception):
    """Raised by a caller's ``on_evaluation`` to end a run that is not worth its remaining steps."""
