"""The commands that train again: retrain once, and schedule for good."""

from __future__ import annotations

from pathlib import Path

import click

from training.options import CACHE, MODELS_DIR


@click.command()
@click.argument("job", metavar="NAME|JOB.toml")
@MODELS_DIR
@CACHE
@click.option("--quick", is_flag=True, help="A short training with gates to match, for trying things out.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout at the end; all else goes to stderr.")
def retrain(job: str, models_dir: Path, cache: Path, quick: bool, as_json: bool) -> None:
    """Train a job again on the data there is now, and publish what beats the version that is served.

    The job's [retrain] table says from which weights, on which window, on how much of the newest data the two are
    compared, and under which label a better one is published. The first version of a model is published as stable.

    \b
    exit code 0   published
              1   an error, which is told
              3   rejected: it did not beat the champion, or missed a gate; its report is kept and says why
              4   nothing to do: no new data, or a candidate is still on trial
              5   another run of this model is under way
            130   stopped; nothing was published

    \b
    python -m training retrain sensor
    python -m training retrain my/job.toml --json 2>retrain.log
    """
    from rich.console import Console

    from models.repository import Repository
    from training.job import load_job
    from training.retrain import retrain as run
    from training.summary import summed_up

    with summed_up(job, as_json) as told:
        loaded = load_job(job)
        ended = run(loaded, Repository(models_dir), Console(stderr=as_json), cache=cache / loaded.name, quick=quick)
        told(ended)
    click.echo(f"{loaded.name}: {ended.text}", err=True)
    raise click.exceptions.Exit(ended.exit_code)


@click.command()
@click.argument("jobs", metavar="NAME|JOB.toml...", nargs=-1, required=True)
@MODELS_DIR
@CACHE
@click.option(
    "--status-file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("var/training/schedule.json"),
    envvar="RECURVE_SCHEDULE_STATUS",
    show_default=True,
    show_envvar=True,
    help="Last run, last success and next run of each model, as JSON; read again at the next start.",
)
@click.option("--metrics-host", default="127.0.0.1", show_default=True, help="Where /metrics listens.")
@click.option(
    "--metrics-port", type=click.IntRange(0, 65535), default=9109, show_default=True, help="Its port; 0 for no metrics."
)
@click.option("--parallel", type=click.IntRange(1), default=1, show_default=True, help="Models trained at a time.")
def schedule(
    jobs: tuple[str, ...],
    models_dir: Path,
    cache: Path,
    status_file: Path,
    metrics_host: str,
    metrics_port: int,
    parallel: int,
) -> None:
    """Train jobs again when their [schedule] tables say so, until stopped.

    Each run is a `retrain` in a process of its own, one per model at a time; what was missed while nothing was running
    is done once, late. With on_drift a run also begins when the service notes that live errors have changed. SIGTERM
    and Ctrl-C stop what runs, and nothing is published halfway.

    \b
    python -m training schedule my/job.toml other/job.toml --models-dir /srv/models
    curl http://127.0.0.1:9109/metrics
    """
    from models.repository import Repository
    from training.scheduling import plan, run_until_stopped

    planned = plan(jobs, models_dir, cache)
    run_until_stopped(
        planned,
        Repository(models_dir),
        status_file,
        metrics=(metrics_host, metrics_port) if metrics_port else None,
        parallel=parallel,
    )
