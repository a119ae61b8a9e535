"""Requests are answered in turns, and nobody's turn holds the others up."""

import socket
import threading
import time

import pytest

from service.sockets import TURN_S, PatientSocket, Turn
from tests.serving import wait_until


@pytest.fixture
def lock():
    return threading.Lock()


@pytest.fixture
def peer_and_socket():
    ours, theirs = socket.socketpair()
    patient = PatientSocket(ours, 5.0, lambda: False)
    yield theirs, patient
    theirs.close()
    patient.close()


def test_a_turn_is_waited_for_and_given_on(lock):
    first, second = Turn(lock), Turn(lock)
    first.take()
    first.give()
    began = time.monotonic()
    second.take()
    assert time.monotonic() - began < TURN_S
    assert lock.locked()
    second.give()
    second.give()  # once more is harmless
    assert not lock.locked()


def test_a_long_turn_holds_nobody_up_for_longer_than_the_bound(lock):
    long, short = Turn(lock), Turn(lock)
    long.take()
    began = time.monotonic()
    short.take()
    assert TURN_S * 0.9 <= time.monotonic() - began < 20 * TURN_S
    short.give()
    assert lock.locked(), "who went on without the turn does not end another's"


def test_waiting_for_the_client_ends_the_turn(lock, peer_and_socket):
    peer, patient = peer_and_socket
    patient.turn = Turn(lock)
    patient.turn.take()
    got = []
    reader = threading.Thread(target=lambda: got.append(patient.recv(10)))
    reader.start()
    wait_until(lambda: not lock.locked(), 5, "the turn of a thread that waits for its client")
    peer.send(b"late")
    reader.join()
    assert got == [b"late"]


def test_what_is_there_already_is_read_within_the_turn(lock, peer_and_socket):
    peer, patient = peer_and_socket
    peer.send(b"here")
    patient.turn = Turn(lock)
    patient.turn.take()
    assert patient.recv(10) == b"here"
    assert lock.locked()


def test_answering_ends_the_turn(lock, peer_and_socket):
    peer, patient = peer_and_socket
    patient.turn = Turn(lock)
    patient.turn.take()
    patient.sendall(b"answer")
    assert not lock.locked()
    assert peer.recv(10) == b"answer"
