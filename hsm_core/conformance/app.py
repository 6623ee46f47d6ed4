"""The Hydra app that the conformance suite for sources runs; `do` says what a task does."""

from __future__ import annotations

APP = """
import ctypes, json, os, signal, subprocess, sys, time
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

EVIL = "\\x1b]0;evil\\x07\\x9b31m\\x00\\u202e\\ud800"


def sleeper():
    '''A process far from here: two forks away, a session of its own, deaf, holding all that is open.'''
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            os.write(write, b"%d" % os.getpid())
            while True:
                time.sleep(60)
        os._exit(0)
    os.wait()
    return os.read(read, 100).decode()


@hydra.main(version_base=None, config_path=None)
def main(cfg):
    out = Path(HydraConfig.get().runtime.output_dir)
    (out / "pid").write_text(str(os.getpid()))
    do = cfg.do
    if do == "return":
        return OmegaConf.to_container(cfg).get("value")
    if do == "evil":
        return EVIL
    if do == "raise_evil":
        raise ValueError(EVIL)
    if do == "raise":
        raise ValueError("no luck with it")
    if do == "exit":
        os._exit(cfg.code)
    if do == "sysexit":
        sys.exit(cfg.code)
    if do == "signal":
        os.kill(os.getpid(), cfg.number)
    if do == "segfault":
        ctypes.string_at(0)
    if do == "eat":
        return len([bytearray(b"x" * (8 << 20)) for _ in range(cfg.mib // 8)])
    if do == "hang":
        if cfg.stubborn:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            (out / "child").write_text(sleeper())
        print("hanging", flush=True)
        (out / "hanging").touch()
        while True:
            time.sleep(60)
    if do == "save":
        return resumed(out)
    if do == "daemon":
        (out / "child").write_text(sleeper())
    if do == "show":
        (out / "text.json").write_text(json.dumps(cfg.text))
    if do == "noise":
        os.write(1, bytes(range(256)) * 64 + b"\\x1b]0;evil\\x07")
        for _ in range(cfg.megabytes):
            os.write(1, b"x" * 1_000_000)
    if do == "litter":
        for number in range(cfg.count):
            (out / f"tiny_{number}").touch()
        with open(out / "checkpoint", "wb") as f:
            f.truncate(cfg.size)
    if do == "strange":
        return strange_value(cfg.kind)
    if do == "fail":
        raise strange_error(cfg.kind)


def resumed(out):
    '''Where it goes on from; without a checkpoint it waits to be told to write one, and to be ended.'''
    with open(out / "starts", "a") as f:
        f.write(os.environ["HSM_ATTEMPT"])
    checkpoint = out / "checkpoint"
    if checkpoint.exists():
        return checkpoint.read_text()
    signal.signal(signal.SIGUSR2, lambda signum, frame: checkpoint.write_text("half of it"))
    (out / "hanging").touch()
    while True:
        time.sleep(60)


def strange_value(kind):
    if kind == "lock":
        import threading
        return threading.Lock()
    if kind == "generator":
        return (i for i in range(3))
    if kind == "huge":
        return bytearray(500 << 20)
    if kind == "long":
        return "x" * (30 << 20)
    if kind == "not_a_number":
        return float("nan")
    if kind == "loop":
        loop = []
        loop.append(loop)
        return loop
    return Odd(kind)


class Odd:
    def __init__(self, kind):
        self.kind = kind

    def __reduce__(self):
        if self.kind == "raises":
            raise RuntimeError("not to be pickled")
        if self.kind == "exits":
            os._exit(0)
        if self.kind == "dies":
            os.kill(os.getpid(), 9)
        if self.kind == "recurses":
            return self.__reduce__()
        return list, (1, 2, 3)


class Choosy(Exception):
    def __init__(self, code, *, reason):
        super().__init__(f"{code}: {reason}")
        self.lock = __import__("threading").Lock()


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no words")

    __repr__ = __str__


class Final(BaseException):
    pass


def strange_error(kind):
    if kind == "choosy":
        return Choosy(3, reason="picky")
    if kind == "mute":
        return Mute()
    if kind == "final":
        return Final("the last word")
    if kind == "interrupt":
        return KeyboardInterrupt("nobody pressed it")
    if kind == "group":
        errors = [ValueError("one"), TypeError("two")]
        return ExceptionGroup("several", errors) if sys.version_info >= (3, 11) else ValueError("several (2 errors)")
    if kind == "huge":
        return ValueError("x" * (100 << 20))
    if kind == "dirty":
        return ValueError("bell\\x07 \\x1b]0;evil\\x07 half \\ud800 nul \\0")
    if kind == "loop":
        one, other = ValueError("one"), ValueError("other")
        one.__cause__, other.__cause__ = other, one
        return one
    error = ValueError("0")
    for number in range(1, 2000):
        later = ValueError(str(number))
        later.__cause__, error = error, later
    return error


if __name__ == "__main__":
    main()
"""
