"""A group of commands that tells its users what went wrong, in a line, and how a stop ended."""

from __future__ import annotations

import zipfile
from typing import Any

import click

from training.interruption import INTERRUPTION


class Commands(click.Group):
    """Tells users what went wrong and what to do, without a traceback; a bug still shows one."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return self._told(ctx)
        except (Exception, KeyboardInterrupt) as exc:
            # what was raised after a stop was asked for is how a library took it
            if not (INTERRUPTION.stops or isinstance(exc, KeyboardInterrupt)):
                raise
            click.echo("\nStopped; nothing was published.", err=True)
            raise click.exceptions.Exit(130) from None

    def _told(self, ctx: click.Context) -> Any:
        from models.errors import RepositoryError  # not at import: --help has to be quick
        from training.refusals import TrainingError

        try:
            return super().invoke(ctx)
        except (TrainingError, RepositoryError) as exc:
            raise click.ClickException(str(exc)) from exc
        except ValueError as exc:
            raise click.ClickException(_of_the_input(exc)) from exc
        except ArithmeticError as exc:
            from training.fit import Diverged  # TensorFlow is long there if this was raised

            if not isinstance(exc, Diverged):
                raise
            raise click.ClickException(str(exc)) from exc
        except zipfile.BadZipFile as exc:
            raise click.ClickException(f"the model file is damaged or cut off: {exc}") from exc
        except OSError as exc:
            raise click.ClickException(f"can't read or write: {exc}") from exc


def _of_the_input(error: ValueError) -> str:
    """What is wrong with what the user gave; any other ValueError is a bug and is raised again."""
    from pydantic import ValidationError

    from training.batch import SourceInvalid
    from training.job import JobInvalid, problems
    from training.windows import TooShort

    if isinstance(error, ValidationError):
        return f"{error.title.lower()} can't be used: {'; '.join(problems(error))}"
    if not isinstance(error, JobInvalid | SourceInvalid | TooShort):
        raise error
    return str(error)
