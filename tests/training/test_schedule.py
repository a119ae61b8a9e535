"""When jobs run again: cron expressions, missed runs, drift, one at a time; and what the scheduler tells of it."""

import json
import os
import signal
import socket
import sys
import threading
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import apscheduler.schedulers.base
import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from models.drift import Drift, report_drift
from models.repository import Repository
from service.judge import Terms
from tests.models.samples import publish_sample
from tests.serving import free_port, wait_until
from training.__main__ import main
from training.cron import trigger_of, weekdays
from training.job import JobInvalid, load_job
from training.refusals import TrainingError
from training.runs import Ran, Runs
from training.schedule import Planned, Scheduler
from training.schedule_metrics import ScheduleCollector
from training.schedule_status import StatusFile
from training.scheduling import plan
from training.tables import Retrain, Schedule

ROOT = Path(__file__).parents[2]
NEVER = "0 0 29 2 1"  # a Monday that is 29 February: not while a test runs
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("field", "days"),
    [
        ("*", "*"), ("0", "sun"), ("7", "sun"), ("1-5", "mon,tue,wed,thu,fri"), ("5-7", "sun,fri,sat"),
        ("fri-mon", "sun,mon,fri,sat"), ("*/2", "sun,tue,thu,sat"), ("Mon,3", "mon,wed"), ("4/2", "thu,sat"),
    ],
)  # fmt: skip
def test_days_of_the_week_are_crons(field, days):
    assert weekdays(field) == days


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"cron": "0 3 * *"}, "4 fields, not 5"),
        ({"cron": "61 3 * * *"}, "61"),
        ({"cron": "0 3 * * 8"}, "'8' is none of 0 to 7"),
        ({"cron": "0 3 * * */0"}, "no day, range or step"),
        ({"cron": "0 0 30 2 *"}, "it never falls due"),
        ({"timezone": "Mars/Olympus"}, "is not a time zone"),
        ({"timezone": "../../etc/passwd"}, "is not a time zone"),
    ],
)
def test_a_schedule_that_can_not_be_used_is_refused_by_name(change, told):
    with pytest.raises(ValidationError, match=next(iter(change))) as caught:
        Schedule(**{"cron": "0 3 * * *", **change})
    assert told in str(caught.value)


def test_a_schedule_goes_by_its_own_clock_also_when_that_is_changed():
    trigger = trigger_of(Schedule(cron="30 3 * * *", timezone="Europe/Berlin"))
    due, found = datetime(2026, 10, 24, 0, tzinfo=UTC), []
    for _ in range(3):
        due = trigger.get_next_fire_time(due, due)
        found.append(due.astimezone(UTC).isoformat(timespec="minutes")[:16])
        assert due.astimezone(BERLIN).strftime("%H:%M") == "03:30"
        due += timedelta(seconds=1)
    assert found == ["2026-10-24T01:30", "2026-10-25T02:30", "2026-10-26T02:30"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"window": "sliding"}, "length: a sliding window needs one"),
        ({"length": 500}, "length: an expanding window has none"),
        ({"level": 0.0}, "level"),
        ({"keep": 0}, "keep"),
        ({"publish": "best"}, "publish"),
        ({"deadline_hours": 0}, "deadline_hours"),
    ],
)
def test_a_retrain_table_that_can_not_be_used_is_refused_by_name(given, told):
    with pytest.raises(ValidationError) as caught:
        Retrain(**given)
    assert told in str(caught.value)


def test_what_the_judge_reads_of_a_job_is_what_a_job_may_say():
    service = Terms(level=0.02, deadline_h=12.0)
    for given, found in (({"level": 0.01, "deadline_hours": 48}, (0.01, 48)), ({}, (0.02, 12))):
        assert service.of({"retrain": Retrain(**given).model_dump(mode="json")}) == found


JOB = """
name = "{name}"
[source]
path = "{name}.csv"
[[features]]
name = "temperature"
unit = "degC"
[[targets]]
name = "temperature"
"""


def write_job(folder, name="sensor", extra=f'[schedule]\ncron = "{NEVER}"\n'):
    path = folder / f"{name}.toml"
    path.write_text(JOB.format(name=name) + extra)
    return path


def test_a_job_file_names_the_wrong_field_of_the_new_tables(tmp_path):
    path = write_job(tmp_path, extra="[retrain]\nfit = { epochs = 0 }\n[schedule]\ncron = 'daily'\n")
    with pytest.raises(JobInvalid, match=r"schedule: cron: 'daily' can't be used"):
        load_job(path)
    path = write_job(tmp_path, extra="[retrain]\nfit = { epochs = 0 }\n")
    with pytest.raises(JobInvalid, match=r"fit\.epochs"):
        load_job(path)


def test_jobs_without_a_schedule_and_two_of_one_model_are_refused(tmp_path):
    path = write_job(tmp_path)
    with pytest.raises(TrainingError, match=r"add one, such as cron"):
        plan([str(write_job(tmp_path, "plain", ""))], tmp_path, tmp_path)
    with pytest.raises(TrainingError, match="trains sensor already"):
        plan([str(path), str(path)], tmp_path, tmp_path)
    result = CliRunner().invoke(main, ["schedule", str(tmp_path / "plain.toml")])
    assert result.exit_code == 1
    assert "has no [schedule] table" in result.output


def test_a_port_that_is_taken_is_told(tmp_path):
    arguments = ["schedule", str(write_job(tmp_path)), "--models-dir", str(tmp_path / "models")]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        status = ["--status-file", str(tmp_path / "status.json"), "--metrics-port", port]
        result = CliRunner().invoke(main, [*arguments, *status])
    assert result.exit_code == 1
    assert f"can't listen on 127.0.0.1:{port}" in result.output
    assert "see --metrics-port" in result.output


class Counted:
    """A runner that only remembers; while `gate` is clear, runs last."""

    def __init__(self, outcome="published"):
        self.outcome, self.began, self.most, self._now = outcome, [], 0, 0
        self.gate, self._guard = threading.Event(), threading.Lock()
        self.gate.set()

    def run(self, commands):
        with self._guard:
            self.began.append(commands[-1][1])
            self._now += 1
            self.most = max(self.most, self._now)
        assert self.gate.wait(60)
        with self._guard:
            self._now -= 1
        return Ran(self.outcome, "said so")

    def stop(self):
        self.gate.set()


class Night:
    """A scheduler over small repositories, its status file, and a runner that counts."""

    def __init__(self, folder, names=("sensor",), *, runner=None, parallel=1, **schedule):
        self.now, self.runner = datetime.now(UTC), runner or Counted()
        self.repository = Repository(folder / "models")
        for name in names:
            if not self.repository.versions(name):
                publish_sample(self.repository, name)
        self.status = StatusFile(folder / "status.json", lambda: self.now)
        planned = [
            Planned(load_job(write_job(folder, name)), Schedule(**{"cron": NEVER, **schedule}), (("retrain", name),))
            for name in names
        ]
        self.scheduler = Scheduler(
            planned, self.repository, self.status, self.runner, lambda: self.now, parallel=parallel
        )

    def __enter__(self):
        self.scheduler.start()
        return self

    def __exit__(self, *_):
        self.scheduler.stop()
        self.status.close()

    def drifts(self, at, version=1, name="sensor"):
        report_drift(self.repository.root / name, Drift(at=at, version=version, before=0.5, after=1.5))

    def ended(self, count, name="sensor"):
        def over():
            return sum(self.status.of(name).runs.values()) == count and not self.scheduler.busy(name)

        wait_until(over, 60, f"{count} runs of {name}")


def due_before(folder, ago, cron, name="sensor"):
    """The status file of a scheduler that died before a run that was due so long ago."""
    status = StatusFile(folder / "status.json", lambda: datetime.now(UTC))
    status.change(name, next_run=datetime.now(UTC) - ago, cron=cron, timezone="UTC")
    status.close()


def test_a_missed_run_is_done_once_when_the_scheduler_is_back(tmp_path):
    cron = f"0 {(datetime.now(UTC).hour + 12) % 24} * * *"  # half a day from any that is due while this runs
    due_before(tmp_path, timedelta(days=30), cron=cron)  # dozens of runs were missed
    with Night(tmp_path, cron=cron, misfire_grace_s=86_400) as night:
        night.ended(1)
        assert night.status.of("sensor").last_reason == "cron"
        wait_until(lambda: night.scheduler.look() or night.status.of("sensor").next_run > night.now, 120, "the next")
    assert night.runner.began == ["sensor"]


def test_a_run_that_is_later_than_its_grace_is_left_out(tmp_path):
    due_before(tmp_path, timedelta(minutes=30), cron=NEVER)
    with Night(tmp_path, misfire_grace_s=60) as night:
        wait_until(lambda: night.scheduler.look() or night.status.of("sensor").next_run > night.now, 120, "the next")
    assert night.runner.began == []


def test_a_next_run_from_a_clock_that_was_ahead_is_worked_out_anew(tmp_path):
    cron = f"0 {(datetime.now(UTC).hour + 12) % 24} * * *"
    due_before(tmp_path, -timedelta(days=900), cron=cron)
    with Night(tmp_path, cron=cron) as night:
        assert night.status.of("sensor").next_run < night.now + timedelta(days=1)
    assert night.runner.began == []


def test_a_clock_that_is_set_back_while_the_scheduler_runs_leaves_no_run_planned_for_long_after(tmp_path):
    cron = f"0 {(datetime.now(UTC).hour + 12) % 24} * * *"
    ahead = Night(tmp_path, cron=cron)
    ahead.now += timedelta(days=900)
    with ahead as night:
        assert night.status.of("sensor").next_run > night.now - timedelta(days=1)
        night.now -= timedelta(days=900)
        for _ in range(2):
            night.scheduler.look()
        assert night.now < night.status.of("sensor").next_run < night.now + timedelta(days=1)
    assert night.runner.began == []


def test_a_run_that_a_jump_of_the_clock_made_due_begins_at_the_next_look(tmp_path, monkeypatch):
    """As after a machine has slept: what the library waits for is no time of day."""

    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(hours=13)

    with Night(tmp_path, cron=f"0 {(datetime.now(UTC).hour + 12) % 24} * * *") as night:
        monkeypatch.setattr(apscheduler.schedulers.base, "datetime", Later)
        night.scheduler.look()
        night.ended(1)
    assert night.runner.began == ["sensor"]


def test_drift_is_answered_also_after_a_run_by_a_clock_that_was_ahead(tmp_path):
    with Night(tmp_path, on_drift=True) as night:
        ahead = night.now + timedelta(days=900)
        night.status.change("sensor", last_run=ahead, drift_answered=ahead.timestamp())
        night.drifts(night.now.timestamp() - 60)
        night.scheduler.look()
        night.ended(1)
        assert night.status.of("sensor").drift_answered == night.now.timestamp() - 60
    assert night.runner.began == ["sensor"]


@pytest.mark.parametrize("jitter_s", [0, 600])
def test_a_run_begins_up_to_its_jitter_later_and_no_two_in_step(jitter_s):
    trigger = trigger_of(Schedule(cron="0 3 * * *", jitter_s=jitter_s))
    due, late = datetime(2026, 1, 1, tzinfo=UTC), []
    for _ in range(40):
        due = trigger.get_next_fire_time(due, due)
        late.append((due - due.replace(hour=3, minute=0, second=0, microsecond=0)).total_seconds())
    assert min(late) >= 0
    assert max(late) <= jitter_s
    assert len(set(late)) == (40 if jitter_s else 1)
    assert due.date() == datetime(2026, 2, 9).date()  # forty days on: none was left out, none came twice


@pytest.mark.parametrize(("grace_s", "again"), [(1_800, ["sensor"]), (1, [])])
def test_a_run_that_a_stop_cut_short_is_done_again_at_the_next_start_within_its_grace(tmp_path, grace_s, again):
    cron = f"0 {(datetime.now(UTC).hour + 12) % 24} * * *"
    with Night(tmp_path, runner=Counted("interrupted"), cron=cron, misfire_grace_s=grace_s) as night:
        night.now -= timedelta(hours=1)
        night.runner.gate.clear()
        running = threading.Thread(target=night.scheduler.run, args=("sensor", "cron"))
        running.start()
        wait_until(lambda: night.runner.began, 120, "the run")
        night.now += timedelta(minutes=40)  # the grace is that of the stop, however long the run was
        night.runner.gate.set()
        running.join()
        assert night.status.of("sensor").last_outcome == "interrupted"
    with Night(tmp_path, cron=cron, misfire_grace_s=grace_s) as back:
        if again:
            back.ended(2)
        wait_until(lambda: back.scheduler.look() or back.status.of("sensor").next_run > back.now, 120, "the next")
    assert back.runner.began == again


def test_a_run_that_waited_for_room_when_the_scheduler_stopped_is_done_at_the_next_start(tmp_path):
    cron = f"0 {(datetime.now(UTC).hour + 12) % 24} * * *"
    names = ("sensor", "finance")
    for name in names:
        due_before(tmp_path, timedelta(minutes=1), cron, name)
    runner = Counted()
    runner.gate.clear()
    with Night(tmp_path, names, runner=runner, cron=cron) as night:
        wait_until(lambda: len(night.runner.began) == 1 and all(map(night.scheduler.busy, names)), 120, "one waits")
    (first,) = night.runner.began
    with Night(tmp_path, names, cron=cron) as back:
        (waited,) = set(names) - {first}
        wait_until(lambda: back.status.of(waited).last_outcome == "published", 120, "the one that waited")
    assert back.runner.began == [waited]


def test_a_process_that_can_not_be_started_is_an_error_that_is_told(tmp_path):
    class Full:
        def run(self, commands):
            raise OSError(12, "Cannot allocate memory")

        def stop(self):
            pass

    with Night(tmp_path, runner=Full()) as night:
        night.scheduler.run("sensor", "cron")
        found = night.status.of("sensor")
    assert (found.running_since, found.last_outcome) == (None, "error")
    assert "Cannot allocate memory" in found.last_text


def test_another_expression_than_the_last_schedulers_is_worked_out_anew(tmp_path):
    due_before(tmp_path, timedelta(minutes=1), cron="5 5 * * *")
    with Night(tmp_path) as night:
        assert night.status.of("sensor").next_run > datetime.now(UTC)
        assert night.status.of("sensor").cron == NEVER
    assert night.runner.began == []


def test_drift_of_what_is_served_begins_a_run_once(tmp_path):
    with Night(tmp_path, on_drift=True) as night:
        night.scheduler.look()
        night.drifts(1_000.0)
        night.scheduler.look()
        night.ended(1)
        assert night.status.of("sensor").last_reason == "drift"
        assert night.status.of("sensor").drift_answered == 1_000.0
        night.now += timedelta(days=2)
        night.scheduler.look()
    assert night.runner.began == ["sensor"]


def test_drift_waits_for_the_cool_down_and_is_tried_again_if_nothing_came_of_it(tmp_path):
    with Night(tmp_path, runner=Counted("nothing_new"), on_drift=True, cool_down_s=600) as night:
        night.drifts(1_000.0)
        night.scheduler.look()
        night.ended(1)
        assert night.status.of("sensor").drift_answered is None
        night.now += timedelta(seconds=599)
        night.scheduler.look()
        night.now += timedelta(seconds=2)
        night.runner.outcome = "rejected"
        night.scheduler.look()
        night.ended(2)
        assert night.status.of("sensor").drift_answered == 1_000.0
    assert len(night.runner.began) == 2


def test_drift_of_another_version_and_drift_nobody_asked_about_begin_nothing(tmp_path):
    with Night(tmp_path, on_drift=True) as night:
        night.drifts(1_000.0, version=7)
        night.scheduler.look()
    with Night(tmp_path) as silent:
        silent.drifts(2_000.0)
        silent.scheduler.look()
    assert night.runner.began + silent.runner.began == []


def test_a_model_is_trained_once_at_a_time_and_models_one_after_another(tmp_path):
    names = ("sensor", "finance", "third")
    with Night(tmp_path, names, on_drift=True, cool_down_s=0) as night:
        night.runner.gate.clear()
        for name in names:
            night.drifts(1_000.0, name=name)
        for _ in range(5):
            night.scheduler.look()
        wait_until(lambda: len(night.runner.began) == 1, 120, "the first run")
        night.scheduler.run(night.runner.began[0], "cron")  # comes back at once: it runs already
        night.runner.gate.set()
        for name in names:
            night.ended(1, name)
    assert sorted(night.runner.began) == sorted(names)
    assert night.runner.most == 1


def test_the_status_survives_a_restart_and_a_second_scheduler_is_told_of_the_first(tmp_path):
    with Night(tmp_path, on_drift=True) as night:
        night.drifts(1_000.0)
        night.scheduler.look()
        night.ended(1)
        before = night.status.of("sensor")
        with pytest.raises(TrainingError, match="--status-file of its own"):
            StatusFile(tmp_path / "status.json", lambda: night.now)
    with Night(tmp_path, on_drift=True) as again:
        again.scheduler.look()
        assert again.status.of("sensor") == before
    assert again.runner.began == []
    document = json.loads((tmp_path / "status.json").read_bytes())
    assert document["format"] == 1
    assert document["jobs"]["sensor"]["runs"] == {"published": 1}


def test_the_metrics_tell_what_the_status_does(tmp_path):
    """By model: when the last run began, when the last ended well, when the next is due; how many ended and how."""
    with Night(tmp_path, ("sensor", "finance"), on_drift=True, cool_down_s=0) as night:
        night.drifts(1_000.0)
        night.scheduler.look()
        night.ended(1)
        succeeded, night.now = night.now, night.now + timedelta(hours=5)
        night.runner.outcome = "error"
        night.drifts(2_000.0)
        night.scheduler.look()
        night.ended(2)
        status = night.status.of("sensor")
        found = {
            (sample.name, *sample.labels.values()): sample.value
            for family in ScheduleCollector(night.status).collect()
            for sample in family.samples
        }
    assert found["recurve_retrain_last_run_timestamp_seconds", "sensor"] == night.now.timestamp()
    for what in ("success", "published"):
        assert found[f"recurve_retrain_last_{what}_timestamp_seconds", "sensor"] == succeeded.timestamp()
    assert found["recurve_retrain_next_run_timestamp_seconds", "sensor"] == status.next_run.timestamp()
    assert found["recurve_retrain_running", "sensor"] == 0.0
    assert found["recurve_retrain_runs_total", "sensor", "published"] == 1
    assert found["recurve_retrain_runs_total", "sensor", "error"] == 1
    of_another = {name for name, model, *_ in found if model == "finance"}
    assert of_another == {"recurve_retrain_next_run_timestamp_seconds", "recurve_retrain_running"}


def test_a_status_file_that_does_not_read_is_set_aside(tmp_path):
    (tmp_path / "status.json").write_text("{")
    with Night(tmp_path) as night:
        assert night.status.of("sensor").runs == {}
    assert (tmp_path / "status.json.unreadable").read_text() == "{"


def test_of_several_commands_the_first_that_fails_is_the_last():
    died = Runs().run([["train", "--help"], ["no-such-command"], ["train", "--help"]])
    assert (died.outcome, died.text) == ("error", "it ended with exit code 2; the log says why")


class Whole:
    """`python -m training schedule` as a process, for a job whose data is a pipe that nobody writes to."""

    def __init__(self, folder, begin):
        self.folder, self.port = folder, free_port()
        extra = f'[schedule]\ncron = "{NEVER}"\non_drift = true\n'
        job = write_job(folder, extra=extra)
        os.mkfifo(folder / "sensor.csv")
        command = [sys.executable, "-m", "training", "schedule", str(job), "--models-dir", str(folder / "models")]
        command += ["--cache", str(folder / "cache"), "--status-file", str(folder / "status.json")]
        self.log = (folder / "log").open("wb")
        self.process = begin([*command, "--metrics-port", str(self.port)], stderr=self.log)

    def metric(self, line):
        """Whether /metrics has a line that begins so."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as answer:
                return any(each.startswith(line) for each in answer.read().decode().splitlines())
        except OSError:
            return False

    def said(self):
        return (self.folder / "log").read_text()


def test_the_scheduler_stops_what_runs_and_ends_cleanly_with_its_status_and_metrics_told(tmp_path, begin):
    repository = Repository(tmp_path / "models")
    publish_sample(repository, interval_s=None)
    whole = Whole(tmp_path, begin)
    wait_until(lambda: whole.metric('recurve_retrain_running{model="sensor"} 0.0'), 120, "metrics")
    assert whole.metric('recurve_retrain_next_run_timestamp_seconds{model="sensor"}')
    report_drift(repository.root / "sensor", Drift(at=1_000.0, version=1, before=0.5, after=1.5))
    wait_until(lambda: whole.metric('recurve_retrain_running{model="sensor"} 1.0'), 120, "a run")
    wait_until(lambda: (repository.root / "sensor" / ".retrain.lock").exists(), 120, "its lock")
    whole.process.send_signal(signal.SIGTERM)
    assert whole.process.wait(120) == 0, whole.said()
    whole.log.close()
    status = json.loads((tmp_path / "status.json").read_bytes())["jobs"]["sensor"]
    assert (status["last_outcome"], status["running_since"]) == ("interrupted", None)
    assert status["runs"] == {"interrupted": 1}
    assert repository.versions("sensor") == [1]
    assert "Traceback" not in whole.said()
