"""A TCP proxy that loses what it is told to lose, between a store and its server."""

import socket
import threading
from contextlib import contextmanager, suppress


class Proxy:
    """Forwards 127.0.0.1:`port` to `target`. `mode` is what it does to all connections, those that are there included:

    ``pass`` forwards; ``cut`` closes them and refuses new ones; ``hole`` swallows requests and never answers.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.lost = 0
        self.swallowed = 0  # bytes
        self._mode = "pass"
        self._lose: list[bytes] = []
        self._guard = threading.Lock()
        self._links: set[socket.socket] = set()
        self._listener: socket.socket | None = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    def lose_reply(self, to: bytes, times: int = 1) -> None:
        """The next replies to requests that hold the bytes `to` are lost, with their connections, once they are there:
        what was asked for has happened."""
        with self._guard:
            self._lose += [to] * times

    def forgive(self) -> None:
        """No more replies are lost."""
        with self._guard:
            self._lose.clear()

    def set_mode(self, mode: str) -> None:
        """From now on ``pass``, ``cut`` or ``hole``."""
        self._mode = mode
        if mode == "cut":
            self._stop_listening()
            self._drop_links()
        elif self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port))
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        if mode == "pass":
            self._drop_links()  # what was swallowed stays lost

    def close(self) -> None:
        """Ends it."""
        self._stop_listening()
        self._drop_links()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self.target)
            except OSError:
                near.close()
                continue
            for one in (near, far):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._guard:
                self._links |= {near, far}
            losing = threading.Event()
            threading.Thread(target=self._carry, args=(near, far, losing, True), daemon=True).start()
            threading.Thread(target=self._carry, args=(far, near, losing, False), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, losing: threading.Event, requests: bool) -> None:
        with suppress(OSError):
            while content := source.recv(1 << 16):
                if self._mode == "hole":
                    self.swallowed += len(content)
                    continue
                if requests and self._is_to_lose(content):
                    losing.set()
                elif not requests and losing.is_set():
                    self.lost += 1
                    break
                sink.sendall(content)
        self._drop(source, sink)

    def _is_to_lose(self, content: bytes) -> bool:
        with self._guard:
            for to in self._lose:
                if to in content:
                    self._lose.remove(to)
                    return True
        return False

    def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            listener.close()

    def _drop_links(self) -> None:
        with self._guard:
            links = list(self._links)
        self._drop(*links)

    def _drop(self, *links: socket.socket) -> None:
        for link in links:
            with self._guard:
                self._links.discard(link)
            with suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
            link.close()


@contextmanager
def proxy_to(target: tuple[str, int]):
    """A proxy that forwards."""
    proxy = Proxy(target)
    try:
        yield proxy
    finally:
        proxy.close()
