"""Where the commands print, and how they name a user's mistakes."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape

from byzflower.datasets import DataNotFoundError
from byzflower.server.config import ConfigError

console = Console()


def complain(text: str) -> None:
    """Print one line per mistake."""
    for line in text.splitlines():
        console.print(f"[red]error:[/red] {escape(line)}", highlight=False, soft_wrap=True)


@contextmanager
def names_of_mistakes() -> Iterator[None]:
    """Turn a user's mistake into its message and exit status 2."""
    try:
        yield
    except (ConfigError, DataNotFoundError) as error:
        complain(str(error))
        raise typer.Exit(2) from None
