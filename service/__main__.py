"""`python -m service`: the command line over the settings; then this process becomes gunicorn."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from service.settings import Settings, SettingsInvalid, read_settings, variable

Command = Callable[..., None]


def _options(command: Command) -> Command:
    """One option for each setting, in the settings' order."""
    for name, field in reversed(Settings.model_fields.items()):
        command = _option(name, field)(command)
    return command


def _option(name: str, field: FieldInfo) -> Callable[[Command], Command]:
    flag = f"--{name.replace('_', '-')}"
    default = "none" if field.default is None else str(field.default)
    settings: dict[str, Any] = {"default": None}
    if field.annotation is bool:
        flag, default = f"{flag}/--no-{name.replace('_', '-')}", "on" if field.default else "off"
    elif get_origin(field.annotation) is Literal:
        settings["type"] = click.Choice(get_args(field.annotation))
    else:
        settings["metavar"] = "N" if field.annotation is int else "X" if field.annotation is float else "TEXT"
    described = f"{field.description}  [{variable(name)}; default: {default}]"
    return click.option(flag, name, help=described, **settings)


@click.command(context_settings={"max_content_width": 110})
@_options
def main(**options: Any) -> None:
    """Serve the models of a model repository over HTTP, with gunicorn.

    Every option can be given as the environment variable named with it as well; the command line wins.
    """
    try:
        settings = read_settings(**options)
    except SettingsInvalid as error:
        raise click.UsageError(str(error)) from error
    os.environ.update(settings.environment())  # where gunicorn.conf.py, the workers and a successor find them
    from service.server.start import serve

    serve()


if __name__ == "__main__":
    main()
