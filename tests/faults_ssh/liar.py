"""A host that lies: a program to stand where its Python is to be. It greets as ours do, and then says what it likes.

Its name is the lie. Arguments: `-c`, our boot program, a token, our folder, digest and size of the archive.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-overload"

import json
import os
import sys

DEEP = b"[" * 200_000
ENDLESS = b"x" * (17 << 20)


def put(data):
    sys.stdout.buffer.write(data + b"\n")
    sys.stdout.buffer.flush()


def say(kind, **body):
    put(json.dumps({"ev": kind, **body}).encode())


class Liar:
    def __init__(self, lie, token):
        self.lie = lie
        self.token = token.encode()

    def tell(self, **facts):
        put(self.token + b" " + json.dumps(facts).encode())

    def greet(self):
        home = os.path.expanduser("~")
        facts = {
            "python": "3.11.2",
            "executable": "/usr/bin/python3",
            "base": home + "/.hsm",
            "home": home,
            "agent": True,
        }
        if self.lie == "boot_numbers":
            facts.update(base=5, home=[])
        if self.lie == "boot_nothing":
            facts = {}
        if self.lie == "boot_deep":
            put(self.token + b" " + DEEP)
        if self.lie == "boot_setup":
            facts["problem"] = "setup 7"
        if self.lie == "boot_list":
            put(self.token + b" [1]")
        self.tell(**facts)
        wanted = json.loads(self.take())
        sys.stdin.buffer.read(wanted["size"])
        self.place = wanted["sweep"]
        self.results = self.place + "/.hsm/results/"
        os.makedirs(self.results, exist_ok=True)
        self.tell(hydra="1.3.2")
        self.take()
        if self.lie == "hello_deep":
            put(DEEP)
        if self.lie == "hello_list":
            put(b"[]")
        if self.lie == "hello_utf8":
            put(b"\xff\xfe")
        if self.lie == "hello_infinite":
            put(b'{"ev": "hello", "agent": 1, "heard": Infinity, "offset": NaN}')
        say("hello", agent="x", heard=0, offset=0)

    def take(self):
        return sys.stdin.buffer.readline()

    def serve(self):
        while line := self.take():
            request = json.loads(line)
            if request["do"] == "begin":
                self.begin()
            elif request["do"] == "run":
                for attempt in request["attempts"]:
                    self.run(attempt)
            elif request["do"] == "attach":
                for attempt_id in request["ids"]:
                    say("lost", id=attempt_id, reason="gone", cause="lost", host="liar")
            elif request["do"] == "stop":
                return

    def begin(self):
        if self.lie == "ready_strange":
            say("ready", host="\ud800\x1b]0;evil\x07", pid=10**40, cpus=float("nan"), gpus=5, python=None)
        elif self.lie == "ready_unusable":
            say("unusable", reason={"a": 5})
        else:
            say("ready", host="liar", pid=1, python="3.11.2", worker="fork", cpus=1)

    def run(self, attempt):
        mine = attempt["id"]
        if self.lie in RAW:
            put(RAW[self.lie].replace(b"ID", mine.encode()))
            return
        folder = self.place + "/" + str(attempt["task"])
        if self.lie in FOLDERS:
            folder = FOLDERS[self.lie].format(place=self.place, other=attempt["task"] + 1)
        else:
            os.makedirs(folder, exist_ok=True)
            with open(folder + "/result.txt", "w") as file:
                file.write("a lie")
        say("started", id=mine, host="liar", pid=1, output_dir=folder)
        record = {"format": 1, "status": "completed", "output_dir": folder, "working_dir": folder}
        record.update({key: attempt[key] for key in ("task", "attempt", "epoch")})
        record.update(RECORDS.get(self.lie, {}))
        with open(self.results + mine + ".pkl", "wb") as file:
            file.write(b"cos\nsystem\n(S'touch MARKER'\ntR.")
        say("finished", id=mine, record=record)


RAW = {
    "endless": ENDLESS,
    "invalid_utf8": b'{"ev": "\xff\xfe"}',
    "deep": DEEP,
    "no_json": b"Segmentation fault",
    "list": b"[1, 2]",
    "no_kind": b'{"id": "ID"}',
    "numbers": b'{"ev": "started", "id": "ID", "host": 5, "pid": "x", "output_dir": 7, "gpus": {}}',
    "gpus": b'{"ev": "started", "id": "ID", "gpus": [1, {"a": 2}]}',
    "unhashable": b'{"ev": "finished", "id": ["ID"], "record": {}}',
    "cause": b'{"ev": "lost", "id": "ID", "cause": "alien", "reason": 5, "host": 6}',
    "note": b'{"ev": "note", "level": 5, "message": []}',
    "level": b'{"ev": "note", "level": "EVIL", "message": "x\\u001b]0;EVIL\\u0007"}\n{"ev": 5}\n{"ev": 6, "id": 1',
    "heard": b'{"ev": "heard", "n": "all"}',
    "lost": b'{"ev": "lost", "id": "ID", "cause": "lost", "reason": {}, "host": 6}',
}
"""lines that are no word of an agent"""
FOLDERS = {
    "above": "{place}/../../x",
    "etc": "/etc",
    "ours": "{place}/.hsm/results",
    "itself": "{place}",
    "others": "{place}/{other}",
    "newline": "{place}/a\n/../../../x",
    "nul": "{place}/a\0b",
    "long": "{place}/" + "a" * 5000,
}
"""output directories that are none of the task"""
RECORDS = {
    "pickled": {"pickle": "../../../../x", "return_value": {"value": 1, "exact": False}},
    "others_record": {"task": 10**6},
    "record_numbers": {"status": 7, "message": {}, "duration": "long"},
    "record_huge": {"duration": 10**400, "exit_code": -1, "host": "\ud800"},
    "record_message": {"message": "\x1b]0;EVIL\x07" * 10_000, "warning": "\x1b]0;EVIL\x07"},
}
"""what is wrong with a record"""


if __name__ == "__main__":
    liar = Liar(os.path.basename(sys.argv[0]), sys.argv[3])
    liar.greet()
    liar.serve()
