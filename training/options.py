"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

MODELS_DIR = click.option(
    "--models-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("models/published"),
    envvar="RECURVE_MODELS_DIR",
    show_default=True,
    show_envvar=True,
    help="The model repository.",
)
CACHE = click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("var/training"),
    envvar="RECURVE_TRAINING_CACHE",
    show_default=True,
    show_envvar=True,
    help="Where what was read is kept, in a folder for each job, so that the next run reads only what is new.",
)
