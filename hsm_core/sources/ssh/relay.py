"""The program that rsync starts as its remote shell: hands rsync's pipes to the launcher, then waits for the end.

Called as `python -I -S relay.py DESCRIPTOR HOST COMMAND...`; DESCRIPTOR is a socket to the launcher, inherited
through rsync. The launcher gets the command and the two pipes themselves, so that no byte of the transfer goes through
here, and answers with the exit status. It imports next to nothing: rsync waits while it starts.
"""

import os
import socket
import sys


def main() -> int:
    """Exit status of the command; 255, as from ssh, where the launcher is gone."""
    with socket.socket(fileno=int(sys.argv[1])) as launcher:
        command = "\0".join(sys.argv[3:]).encode(sys.getfilesystemencoding(), "surrogateescape")
        socket.send_fds(launcher, [command], [0, 1])
        launcher.shutdown(socket.SHUT_WR)
        # The launcher has them now; while they were open here too, rsync would see no end of them.
        os.close(0)
        os.close(1)
        status = launcher.recv(1)
    return status[0] if status else 255


if __name__ == "__main__":
    os._exit(main())
