"""One Redis server, as one process sees it: connections to it, and how patient to be with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.backoff import NoBackoff
from redis.connection import Connection, ConnectionPool, SSLConnection
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from service.stores.redis_patience import Patience
from service.stores.redis_url import Whereabouts

Command = Sequence[str | bytes | int]
Address = tuple[str, int]

TIMEOUT_S = 0.4  # to connect, and for each reply

_ASKING: Command = ("ASKING",)


class NotSent(RedisError):
    """There is no connection, so the command had no effect."""


class Server:
    """Sends commands and returns raw replies. Any thread; errors are the driver's, which never tries twice itself.

    After NotSent, and after an error reply (ResponseError), the command had no effect; after any other it may have had.
    """

    def __init__(self, address: Address, where: Whereabouts) -> None:
        self.address = address
        self.patience = Patience()
        self.greeted = False
        self._pool = ConnectionPool(
            SSLConnection if where.encrypted else Connection,
            max_connections=2**31,  # as many as threads ask at once
            host=address[0],
            port=address[1],
            protocol=2,
            driver_info=None,  # whose library this is need not be said at each connection
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            **where.options,
        )

    def call(self, command: Command) -> Any:
        """The reply to one command."""
        connection = self._connection()
        try:
            connection.send_command(*command)
            return connection.read_response()
        except ResponseError:
            raise
        except BaseException:
            connection.disconnect()  # its reply must not be taken for another's
            raise
        finally:
            self._pool.release(connection)

    def call_all(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to several commands, sent at once; a ResponseError in the place of each that was refused."""
        connection = self._connection()
        replies: list[Any] = []
        try:
            connection.send_packed_command(connection.pack_commands(commands))
            for _ in commands:
                try:
                    replies.append(connection.read_response())
                except ResponseError as error:
                    replies.append(error)
            return replies
        except BaseException:
            connection.disconnect()
            raise
        finally:
            self._pool.release(connection)

    def call_asking(self, command: Command) -> Any:
        """The reply to a command about a slot that is just being moved to this server."""
        reply = self.call_all([_ASKING, command])[1]
        if isinstance(reply, ResponseError):
            raise reply
        return reply

    def disconnect(self) -> None:
        """Closes the connections that nobody uses just now; the next command opens one anew."""
        self._pool.disconnect(inuse_connections=False)

    def _connection(self) -> Any:
        try:
            return self._pool.get_connection()
        except RedisError as error:
            raise NotSent(str(error)) from error
