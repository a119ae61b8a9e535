"""`python -m service state …`: moving and copying client records from the command line."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import click

from service.core.errors import RecurveError
from service.core.ports import CountsRecords, Scans, StateStore
from service.moving import dump
from service.moving.export import export_to_file, export_to_stream
from service.moving.transfer import SLICE, Choice, Tally, bring_all, slices
from service.stores import open_existing, open_store, sqlite_folder
from service.stores.redis_url import without_password
from service.stores.sqlite_backup import back_up, bytes_to_copy

STDIO = "-"


class Source(StateStore, Scans, Protocol):
    """A store that can be walked through."""


class StateCommands(click.Group):
    """Says what went wrong and what to do, without a traceback; a bug still shows one."""

    def invoke(self, ctx: click.Context) -> Any:
        before = signal.signal(signal.SIGTERM, _interrupt)  # as Ctrl-C: what is open is closed, the next run goes on
        try:
            return super().invoke(ctx)
        except RecurveError as error:
            raise click.ClickException(error.detail) from error
        except OSError as error:
            raise click.ClickException(f"can't read or write: {error}") from error
        except KeyboardInterrupt:
            # If it has left a piece of source text (a dataclass is made by one), Python would end the process by SIGINT
            # whatever its exit code; it forgets that when it runs another (CPython, pythonrun.c).
            exec("")
            click.echo("\nStopped. Nothing is lost; the same command again finishes it.", err=True)
            raise click.exceptions.Exit(130) from None
        finally:
            signal.signal(signal.SIGTERM, before)


def _chosen(command: Any) -> Any:
    command = click.option("--tenant", metavar="T", help="Only the records of this tenant.  [default: all]")(command)
    return click.option("--model", metavar="M", help="Only the records of this model.  [default: all]")(command)


_REPLACE = click.option("--replace", is_flag=True, help="Overwrite records that are newer in the target as well.")


@click.group(cls=StateCommands)
def state() -> None:
    """Move and copy client records: between stores, into files, as a backup.

    Stores are named by URL, as --state-url names them: sqlite:///FOLDER, redis://HOST/0 and so on. A service may use
    them meanwhile: every record is moved whole, as it stood at one moment. For a move that misses nothing, run it
    once while the service serves from the old store, stop the service, run it again (which brings what is newer), and
    start the service on the new store. What was deleted between the two runs comes along.

    They end with 0 if all is done, 1 if not (the message says what to do), 2 for a wrong usage, 130 if stopped.

    \b
    python -m service state migrate --from sqlite:///var/state --to redis://localhost/0
    python -m service state export --from sqlite:///var/state --to records.jsonl
    python -m service state import --from records.jsonl --to sqlite:////srv/state
    python -m service state backup --from sqlite:///var/state --to /backups/monday
    """


@state.command(name="export")
@click.option("--from", "source_url", required=True, metavar="URL", help="The store to read.")
@click.option("--to", "target", required=True, metavar="FILE", help="The file to write; - for standard output.")
@click.option("--replace", is_flag=True, help="Overwrite FILE if it is there.")
@_chosen
def export_command(source_url: str, target: str, replace: bool, tenant: str | None, model: str | None) -> None:
    """Write records into a file: a line for each, with a checksum of each and of all.

    Stopped or killed, it leaves FILE.part; the same command again goes on from there. FILE appears when it is
    complete. A client that moves on meanwhile may be in it twice; an import takes the newer.
    """
    choice, file, created = Choice(tenant, model), Path(target), _now()
    if target != STDIO and file.exists() and not replace:
        raise click.ClickException(f"{file} is there already; name another file, or add --replace")
    with _reading(source_url) as source:
        if target == STDIO:
            steps = export_to_stream(source, choice, sys.stdout.buffer, created)
        else:
            steps = export_to_file(source, without_password(source_url), choice, file, created)
        looked_at = _shown(steps, _count(source), "Exporting")
    if target != STDIO:
        click.echo(f"{file}: {file.stat().st_size / 2**20:,.1f} MiB, out of {looked_at:,} records looked at")


@state.command(name="import")
@click.option("--from", "file", required=True, metavar="FILE", help="A file of `export`; - for standard input.")
@click.option("--to", "target_url", required=True, metavar="URL", help="The store to write to.")
@_REPLACE
@_chosen
def import_command(file: str, target_url: str, replace: bool, tenant: str | None, model: str | None) -> None:
    """Bring the records of a file into a store.

    The whole file is checked before the first record is written (except from standard input). Records that are there
    already, or are newer there, stay as they are: the same command again is harmless, and goes on where one that was
    stopped has left off.
    """
    choice, tally = Choice(tenant, model), Tally()
    if file != STDIO:
        with open(file, "rb") as whole:
            _shown(dump.check(whole), Path(file).stat().st_size, "Checking")
    with _writing(target_url) as target:
        if file == STDIO:
            _shown(_imported(sys.stdin.buffer, target, choice, tally, replace), None, "Importing")
        else:
            with open(file, "rb") as whole:
                _shown(_imported(whole, target, choice, tally, replace), Path(file).stat().st_size, "Importing")
    _report(tally)


@state.command()
@click.option("--from", "source_url", required=True, metavar="URL", help="The store to read.")
@click.option("--to", "target_url", required=True, metavar="URL", help="The store to write to.")
@_REPLACE
@_chosen
def migrate(source_url: str, target_url: str, replace: bool, tenant: str | None, model: str | None) -> None:
    """Bring the records of one store into another, of any kind. The source stays as it is.

    Records that are there already, or are newer there, stay as they are: the same command again is harmless, brings
    what has moved on meanwhile, and goes on where one that was stopped has left off.
    """
    if source_url == target_url:
        raise click.UsageError("--from and --to name the same store")
    choice, tally = Choice(tenant, model), Tally()
    with _reading(source_url) as source, _writing(target_url) as target:
        _shown(_migrated(source, target, choice, tally, replace), _count(source), "Migrating")
    _report(tally)


@state.command()
@click.option("--from", "source_url", required=True, metavar="URL", help="The sqlite:/// store to copy.")
@click.option("--to", "target", required=True, type=click.Path(path_type=Path), metavar="FOLDER", help="A new folder.")
def backup(source_url: str, target: Path) -> None:
    """Copy a sqlite store while it is in use. The copy is a store itself: sqlite:///FOLDER.

    Every step acknowledged before the backup began is in it; those acknowledged meanwhile are in it or not. Each
    client is whole. The copy is checked (SQLite's integrity_check) and on disk when the command ends with success;
    FOLDER/backup.json tells what is in it. Stopped or killed, it leaves FOLDER.part, and the next run begins anew.
    """
    folder = sqlite_folder(source_url)
    if folder is None:
        why = "only sqlite:/// stores are copied like this; use `state export`, or what the database itself offers"
        raise click.UsageError(f"--from {without_password(source_url)}: {why}")
    began = _now()
    with click.progressbar(length=max(1, bytes_to_copy(folder)), label="Copying", file=sys.stderr) as bar:
        copy = back_up(folder, target, began, bar.update)
    click.echo(
        f"{target}: {sum(copy.records):,} records, {copy.size / 2**20:,.1f} MiB, as of {began} or a little later"
    )


def _imported(file: Any, target: StateStore, choice: Choice, tally: Tally, replace: bool) -> Iterator[int]:
    records = dump.read(file)
    while some := list(islice(records, SLICE)):
        bring_all(target, (entry for entry, _ in some if choice.takes(entry.key)), tally, replace=replace)
        yield sum(size for _, size in some)


def _migrated(source: Scans, target: StateStore, choice: Choice, tally: Tally, replace: bool) -> Iterator[int]:
    for entries, _ in slices(source):
        bring_all(target, (entry for entry in entries if choice.takes(entry.key)), tally, replace=replace)
        yield len(entries)


def _shown(steps: Iterable[int], length: int | None, label: str) -> int:
    """Works through `steps` behind a progress bar; the sum of them."""
    done = 0
    bar = click.progressbar(
        iter(()), length=length, label=label, show_pos=length is None, update_min_steps=1000, file=sys.stderr
    )
    with bar:
        for step in steps:
            done += step
            bar.update(step)
        bar.finish()
        bar.render_progress()
    return done


@contextmanager
def _reading(url: str) -> Iterator[Source]:
    """The store at `url`, which has to be there."""
    _refuse_memory(url)
    with closing(open_existing(url)) as store:
        if not isinstance(store, Scans):
            raise click.ClickException(f"{without_password(url)} can't be walked through")
        yield store


@contextmanager
def _writing(url: str) -> Iterator[StateStore]:
    _refuse_memory(url)
    with closing(open_store(url)) as store:
        yield store


def _refuse_memory(url: str) -> None:
    if url.startswith("memory:"):
        raise click.UsageError("memory:// lives inside its service; GET …/clients/{client}/state exports from there")


def _count(source: StateStore) -> int | None:
    return max(1, source.records()) if isinstance(source, CountsRecords) else None


def _report(tally: Tally) -> None:
    click.echo(f"{tally.moved:,} records moved, {tally.there:,} were there already")
    if tally.kept:
        click.echo(f"{tally.kept:,} stayed as they are in the target: newer there, or not to be compared", err=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
