"""A service that waits for a minute where the real one has given up after a second or two.

That is right for a service: whoever asks it is told to come again. Where a test is about something else, a machine that
stands still for a second, as a busy one does, would be taken for a Redis that is away.
`python -m tests.patience` is `python -m service` with that patience.
"""

from __future__ import annotations

LONG_S = 60.0


def wait_long() -> None:
    """Stores that this process opens from now on wait for Redis."""
    from service.stores import redis_calls, redis_server

    vars(redis_server)["TIMEOUT_S"] = vars(redis_calls)["TRY_S"] = LONG_S


if __name__ == "__main__":
    from service.__main__ import main

    wait_long()
    main(prog_name="python -m service")
