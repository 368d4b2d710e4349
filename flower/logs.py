"""Flower's log."""

import logging


def quiet(level: int) -> None:
    """Let nothing below a level out of Flower's log, whether Flower is imported already or not.

    Flower sets the logger's own level when it is imported; a filter stays.
    """
    logging.getLogger("flwr").addFilter(lambda record: record.levelno >= level)
