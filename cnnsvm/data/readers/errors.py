"""What the adapters raise."""


class DatasetError(ValueError):
    """A data set that cannot be read as it is; the message says what to change."""


class MissingDataError(DatasetError, FileNotFoundError):
    """A file or folder that should be there is not."""
