"""`python -m service`: the command line. It serves; `python -m service state` moves client records."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Literal, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from service.settings import SECRETS, Settings, SettingsInvalid, read_settings, variable
from service.state_commands import state

Command = Callable[..., None]


def _options(command: Command) -> Command:
    """One option for each setting that is no secret, in the settings' order."""
    for name, field in reversed(Settings.model_fields.items()):
        if name in SECRETS:
            continue
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


@click.group(invoke_without_command=True, context_settings={"max_content_width": 110})
@_options
@click.pass_context
def main(context: click.Context, /, **options: Any) -> None:
    """Serve the models of a model repository over HTTP, with gunicorn or granian. Another COMMAND does something else.

    Every option can be given as the environment variable named with it as well; the command line wins. The
    administrator's secret, RECURVE_ADMIN_TOKEN, has no option.
    """
    if context.invoked_subcommand is None:
        _serve(options)
    elif any(value is not None for value in options.values()):
        raise click.UsageError(f"options for serving are no options of {context.invoked_subcommand!r}")


@main.command()
@_options
def serve(**options: Any) -> None:
    """Serve, as without a command."""
    _serve(options)


main.add_command(state)


def _serve(options: dict[str, Any]) -> None:
    try:
        settings = read_settings(**options)
    except SettingsInvalid as error:
        raise click.UsageError(str(error)) from error
    if settings.server == "granian" and find_spec("granian") is None:
        raise click.UsageError(
            "granian is not installed; it comes with: pip install --require-hashes -r requirements/granian.txt"
        )
    os.environ.update(settings.environment())  # where the master, the workers and a successor find them
    if settings.server == "granian":
        from service.server import granian

        granian.serve()
    else:
        from service.server.start import serve

        serve()


if __name__ == "__main__":
    main(prog_name="python -m service")
