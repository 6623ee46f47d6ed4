"""The first program that a host is given: it tells what is there and takes the agent's code if that is not.

It comes as text (`python -c`) with the arguments: a token, hsm's folder there unless HSM_HOME names it, the
SHA-256 of the archive of `hsm_core.remote`, its size in bytes, and which program of it is to go on. It must be
understood by any Python, so that one that is too old can be told so. What it says stands behind the token: whatever a
shell's profile prints comes before.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

import sys

if sys.path and sys.path[0] == "":
    del sys.path[0]  # nothing that lies in the home folder is ours

import json
import os

OLDEST = (3, 10)
KEPT = 90 * 24 * 3600
"""seconds that a version of our code stays there without being used"""


def _say(token, **facts):
    sys.stdout.write(token + " " + json.dumps(facts) + "\n")
    sys.stdout.flush()


def _take(size):
    """Read exactly so many bytes of the standard input: what follows is for others."""
    data = b""
    while len(data) < size:
        chunk = os.read(0, min(1 << 16, size - len(data)))
        if not chunk:
            sys.exit(1)
        data += chunk
    return data


def _unpack(archive, digest, folder):
    """Put the archive's files into the folder, all of them or none."""
    import hashlib
    import io
    import shutil
    import tempfile
    import time
    import zipfile

    if hashlib.sha256(archive).hexdigest() != digest:
        raise ValueError("the agent's code was damaged on its way")
    staging = tempfile.mkdtemp(prefix=".part", dir=os.path.dirname(folder))
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as packed:
            packed.extractall(staging)
        os.rename(staging, folder)
    except OSError:
        shutil.rmtree(staging, ignore_errors=True)
        if not os.path.isdir(folder):  # another launcher was quicker
            raise
    for name in os.listdir(os.path.dirname(folder)):
        other = os.path.join(os.path.dirname(folder), name)
        if other != folder and os.stat(other).st_mtime < time.time() - KEPT:
            shutil.rmtree(other, ignore_errors=True)


def _main(token, base, digest, size, role):
    version = ".".join(map(str, sys.version_info[:3]))
    me = {"python": version, "executable": sys.executable}
    if sys.version_info < OLDEST:
        _say(token, problem="old python", **me)
        return
    base = os.path.abspath(os.path.expanduser(os.environ.get("HSM_HOME") or base))
    folder = os.path.join(base, "agent", digest)
    try:
        os.makedirs(base, mode=0o700, exist_ok=True)  # nobody else gets to what is in it
        os.makedirs(os.path.dirname(folder), exist_ok=True)
        found = os.path.isdir(folder)
        _say(token, base=base, home=os.path.expanduser("~"), agent=found, **me)
        if found:
            os.utime(folder)
        else:
            _unpack(_take(int(size)), digest, folder)
    except OSError as e:
        _say(token, problem="not writable", base=base, reason=str(e), **me)
        return
    import runpy

    program = os.path.join(folder, "hsm_core", "remote", "__main__.py")
    sys.argv = [program, role, token]
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    _main(*sys.argv[1:])
