"""A log of observations as workers leave it, for what reads it: journals written by the real writer."""

from array import array

from models.journal import Logged, declared, packed
from models.journals import JOURNAL, JournalFile

PUMP = Logged("pump", ("flow", "heat"), 60.0)
NOON = 1_700_049_600.0  # 2023-11-15 12:00 UTC
DAY = 86400.0


def block(step, *rows, client="a", absorbed=None, begun=NOON, times="own", number=0, tenant="default", logged=PUMP):
    """One predict's frame; `times` "own": a minute apart, rising with the step."""
    values = [value for row in rows for value in row]
    own = [NOON + 60.0 * (step + i) for i in range(len(rows))] if times == "own" else times
    at = NOON + 60.0 * (step + len(rows)) if absorbed is None else absorbed
    shape = (len(rows), len(logged.features))
    return packed(number, tenant.encode(), client.encode(), step, at, begun, own, array("f", values).tobytes(), shape)


def journal(folder, *blocks, logged=PUMP, closed=True):
    """A complete journal of these blocks, or one left by a killed worker."""
    file = JournalFile(folder / JOURNAL, declared(0, logged))
    file.append(b"".join(blocks))
    file.sync()
    if closed:
        file.close()
    else:
        file.abandon()
    return file.path.with_suffix(".closed") if closed else file.path
