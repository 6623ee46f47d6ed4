"""The program that rsync starts as its remote shell: hands rsync's pipes to the launcher, and is done.

Called as `python -I -S relay.py DESCRIPTOR HOST COMMAND...`; DESCRIPTOR is a socket to the launcher, inherited
through rsync. The launcher gets the command and the two pipes themselves, so that no byte of the transfer goes through
here. rsync sees the end of a transfer by the end of the pipes, and looks only every 20 ms whether its remote shell has
ended too: this one has, by then.
"""

import os
import sys

# Not `socket`, which needs longer to be imported than all else here, and rsync waits meanwhile.
from _socket import SCM_RIGHTS, SHUT_WR, SOL_SOCKET, socket


def main() -> None:
    launcher = socket(fileno=int(sys.argv[1]))
    command = os.fsencode("\0".join(sys.argv[3:]))
    pipes = b"".join(pipe.to_bytes(4, sys.byteorder) for pipe in (0, 1))
    launcher.sendmsg([command], [(SOL_SOCKET, SCM_RIGHTS, pipes)])
    launcher.shutdown(SHUT_WR)


if __name__ == "__main__":
    main()
    os._exit(0)
