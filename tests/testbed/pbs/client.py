"""Every command of the stand-in is a copy of this, by its name: it asks the server, whose sockets are beside it."""

import getpass
import json
import os
import pathlib
import socket
import subprocess
import sys
import time

FOLDER = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = pathlib.Path(sys.argv[0]).name


def ask() -> None:
    piped = PROGRAM == "qsub" and not any(not word.startswith("-") for word in sys.argv[-1:])
    call = {
        "argv": [PROGRAM, *sys.argv[1:]],
        "cwd": os.getcwd(),
        "environ": dict(os.environ),
        "stdin": sys.stdin.read() if piped else "",
        "user": getpass.getuser(),
    }
    with socket.socket(socket.AF_UNIX) as line:
        try:
            line.connect(str(FOLDER / "server"))
        except OSError:
            away()
        line.sendall(json.dumps(call).encode())
        line.shutdown(socket.SHUT_WR)
        said = json.loads(b"".join(iter(lambda: line.recv(1 << 16), b"")))
    sys.stdout.write(said["out"])
    sys.stderr.write(said["err"])
    sys.exit(said["code"])


def away() -> None:
    """What the commands say, and how they end, when the server does not run."""
    if PROGRAM == "qstat" and "json" in sys.argv:
        sys.stdout.write(
            f'{{\n\t"timestamp":\t{int(time.time())},\n\t"pbs_version":\t"23.06.06",\n\t"pbs_server":\t"pbs1"\n}}\n'
        )
    words = {
        "qdel": "Couldn't connect to cluster: pbs1",
        "pbsnodes": "pbsnodes: cannot connect to server pbs1, error=15010",
    }
    sys.stderr.write(
        f"Connection refused\n{words.get(PROGRAM, f'{PROGRAM}: cannot connect to server pbs1 (errno=15010)')}\n"
    )
    sys.exit({"qstat": 255, "pbsnodes": 1}.get(PROGRAM, 162))


def pbsdsh() -> None:
    """Start a program for the n-th place of the job, with the job's environment; its exit code is only printed."""
    lines = (FOLDER / "environ" / os.environ["PBS_JOBID"]).read_text().split("\0")
    environ = dict(line.split("=", 1) for line in lines)
    words = sys.argv[sys.argv.index("--") + 1 :]
    code = subprocess.run(words, env=environ, check=False).returncode
    if code:
        print(f"pbsdsh: task 0x00000000 exit status {code}")
    sys.exit(0)


if PROGRAM == "pbsdsh":
    pbsdsh()
ask()
