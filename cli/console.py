"""Where the commands print, and how they name a user's mistakes."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.text import Text

from byzflower.datasets.errors import DataNotFoundError
from byzflower.flower.text import plain
from byzflower.plugins import PluginError
from byzflower.server.config.checks import ConfigError

_LONGEST = 4000
# Names and paths are printed as they are: nothing in them is a style, an emoji or a link.
console = Console(markup=False, emoji=False, highlight=False)


def say(text: str) -> None:
    """Print one line."""
    console.print(plain(text, _LONGEST), soft_wrap=True)


def complain(text: str) -> None:
    """Print one line per mistake."""
    for line in text.splitlines():
        console.print(Text.assemble(("error:", "red"), " ", plain(line, _LONGEST)), soft_wrap=True)


@contextmanager
def names_of_mistakes() -> Iterator[None]:
    """Turn a user's mistake into its message and exit status 2."""
    try:
        yield
    except (ConfigError, DataNotFoundError, PluginError) as error:
        complain(str(error))
        raise typer.Exit(2) from None
