"""Journals: what was appended is read again, and what is damaged is skipped, counted and nothing else lost."""

import os
import random
from array import array

import pytest

from models.journal import MAGIC, Damage, Logged, NotAJournal, Rows, declared, packed, read
from models.journals import JournalFile, complete_journals

WEATHER = Logged("sensor", ("temperature", "pressure"), 3600.0)


def frame(step, *values, times=None, client="roof-7", number=0):
    return packed(
        number,
        b"default",
        client.encode(),
        step,
        1000.5 + step,
        900.25,
        times,
        array("f", values).tobytes(),
        (len(values) // 2, 2),
    )


def whole(*frames):
    return MAGIC + declared(0, WEATHER) + b"".join(frames)


def steps(data):
    damage = Damage()
    return [rows.step for rows in read(data, damage)], damage


def test_rows_are_read_as_they_were_written():
    (rows,) = read(whole(frame(4, 1.5, 2.5, 3.5, 4.5, times=(10.0, 20.0), client="Dach Süd ☂")), Damage())
    values, times = array("f", [1.5, 2.5, 3.5, 4.5]), array("d", [10.0, 20.0])
    assert rows == Rows(WEATHER, "default", "Dach Süd ☂", 4, 1004.5, 900.25, times, values)
    assert len(rows) == 2


def test_rows_without_times_of_their_own_have_none():
    (rows,) = read(whole(frame(1, 1.0, 2.0)), Damage())
    assert rows.times is None


def test_a_torn_tail_is_skipped_wherever_it_is_torn():
    data, last = whole(frame(1, 1.0, 2.0)), frame(2, 3.0, 4.0)
    for cut in range(1, len(last)):
        found, damage = steps(data + last[:cut])
        assert found == [1]
        assert (damage.places, damage.bytes) == (1, cut)


def test_a_journal_torn_at_its_beginning_is_empty():
    for cut in range(len(MAGIC) + 1):
        assert steps(MAGIC[:cut])[0] == []


@pytest.mark.parametrize("left", [lambda size: b"", bytes], ids=["cut off", "zeros"])
def test_whatever_a_crash_left_of_a_journal_gives_the_rows_that_were_whole_before_it(left):
    """Torn at every byte, its declaration included; a power cut leaves a file its length, with zeros at its end."""
    frames = [frame(1, 1.0, 2.0), frame(2, 3.0, 4.0, times=(7.0,)), frame(3, 5.0, 6.0)]
    ends = [len(whole(*frames[:n])) for n in range(1, 4)]
    data = whole(*frames)
    for cut in range(len(MAGIC), len(data)):
        torn = data[:cut] + left(len(data) - cut)
        found, damage = steps(torn)
        intact = sum(torn[:end] == data[:end] for end in ends)
        assert found == [1, 2, 3][:intact], f"torn at byte {cut}"
        assert damage.places <= 1


def test_a_flipped_bit_loses_its_frame_alone():
    frames = [frame(step, 1.0, float(step)) for step in range(1, 6)]
    data = whole(*frames)
    begin = len(whole(*frames[:2]))
    dice = random.Random(20)
    for at in range(begin, begin + len(frames[2])):
        damaged = bytearray(data)
        damaged[at] ^= 1 << dice.randrange(8)
        found, damage = steps(bytes(damaged))
        assert found == [1, 2, 4, 5], f"byte {at - begin} of the frame"
        assert (damage.places, damage.bytes) == (1, len(frames[2]))


def test_rows_of_a_lost_declaration_are_counted():
    found, damage = steps(MAGIC + frame(1, 1.0, 2.0))
    assert found == []
    assert damage.undeclared == 1


def test_another_file_is_refused():
    with pytest.raises(NotAJournal, match="begins with"):
        list(read(b"PAR1PAR1PAR1", Damage()))


def test_a_journal_is_closed_by_its_writer_or_taken_over_from_a_dead_one(tmp_path):
    alive, done, dead = (JournalFile(tmp_path, declared(0, WEATHER)) for _ in range(3))
    for each in (alive, done, dead):
        each.append(frame(1, 1.0, 2.0))
        each.sync()
    done.close()
    dead.abandon()  # as the kernel does for a killed process
    assert [path.name for path in complete_journals(tmp_path)] == sorted(
        path.path.with_suffix(".closed").name for path in (done, dead)
    )
    assert alive.path.exists()
    assert steps(alive.path.read_bytes())[0] == [1]


def test_what_is_taken_back_can_be_appended_again(tmp_path):
    journal = JournalFile(tmp_path, declared(0, WEATHER))
    journal.append(frame(1, 1.0, 2.0))
    journal.sync()
    journal.append(frame(2, 1.0, 2.0)[:20])
    journal.take_back()
    journal.append(frame(2, 1.0, 2.0))
    journal.sync()
    assert steps(journal.path.read_bytes()) == ([1, 2], Damage())


def test_an_empty_file_left_behind_is_cleared(tmp_path):
    (tmp_path / "0000000000001-1-abcdef01.open").touch()
    assert complete_journals(tmp_path) == []
    assert os.listdir(tmp_path) == []


def test_a_deleted_journal_is_noticed(tmp_path):
    journal = JournalFile(tmp_path, b"")
    journal.path.unlink()
    with pytest.raises(FileNotFoundError, match="deleted"):
        journal.sync()
