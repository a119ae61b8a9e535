"""The command that brings the observation log into Parquet."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option(
    "--observations-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("var/observations"),
    envvar="RECURVE_OBSERVATIONS_DIR",
    show_default=True,
    show_envvar=True,
    help="Where the service logs observations.",
)
@click.option("--keep-days", type=click.FloatRange(min=0), help="Drop days older than that.  [default: none is]")
@click.option("--keep-bytes", type=click.IntRange(min=0), help="Drop the oldest days beyond so many bytes of Parquet.")
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
def compact(observations_dir: Path, keep_days: float | None, keep_bytes: int | None, as_json: bool) -> None:
    """Bring what the service logged into Parquet, by model and day.

    Journals that are complete, and those left by killed workers, are read and deleted; a row that is there already is
    not added again. It may be stopped or killed at any moment and simply run again.

    \b
    python -m training compact --keep-days 90
    python -m training compact --observations-dir /srv/observations --json
    """
    import json

    from rich.console import Console

    from training.compact import compact as run
    from training.progress import bar

    console = Console(stderr=as_json)
    with bar(console, "compact") as advance:
        done = run(observations_dir, keep_days=keep_days, keep_bytes=keep_bytes, advance=advance)
    if as_json:
        click.echo(json.dumps(done.as_dict()))
        return
    said = f"{done.journals} journals: {done.rows} new rows, {done.duplicates} there already"
    if done.torn or done.undeclared:
        said += f"; {done.torn} torn places of {done.torn_bytes} bytes, {done.undeclared} blocks of unknown models"
    if done.damaged:
        said += f"; no journals, set aside: {', '.join(done.damaged)}"
    if done.dropped_days:
        said += f"; dropped {', '.join(done.dropped_days)}"
    console.print(f"{said}; {done.bytes} bytes of Parquet", highlight=False, soft_wrap=True)
