"""TCP ports for daemons which are told their port in a file, free until they take them, whoever else looks for some."""

from __future__ import annotations

import random
import socket

# Below those that the kernel deals out itself (ip_local_port_range begins at 32768).
FIRST, LAST = 20000, 32000


class Ports:
    """So many ports of 127.0.0.1 in a row. Nobody else who asks here gets one of them before `give_back`."""

    def __init__(self, count: int) -> None:
        size = count + 1
        for _ in range(1000):
            # Rows of all sizes begin at multiples of 64, so that rows that overlap have the same first port.
            first = 64 * random.randint(FIRST // 64, LAST // 64)
            assert size <= 64, "one row has at most 63 ports"
            taken = _bound(first)
            if taken is None:
                continue
            # The first one, which we hold for as long, stands for the row.
            self._held = taken
            self.ports = list(range(first + 1, first + size))
            if all(map(_is_free, self.ports)):
                return
            taken.close()
        raise OSError(f"127.0.0.1 has no {size} free ports in a row between {FIRST} and {LAST}")

    def give_back(self) -> None:
        self._held.close()


def _bound(port: int) -> socket.socket | None:
    # Daemons listen on every address, so it has to be free on all of them.
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        server.bind(("0.0.0.0", port))  # noqa: S104
    except OSError:
        server.close()
        return None
    return server


def _is_free(port: int) -> bool:
    server = _bound(port)
    if server is None:
        return False
    server.close()
    return True
