"""What can be wrong with a data set."""


class DataNotFoundError(FileNotFoundError):
    """A data set's files are not where they were looked for; the message says where and what to do."""
