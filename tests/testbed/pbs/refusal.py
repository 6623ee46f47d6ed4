"""How a command of the stand-in refuses: PBS's words and exit code."""

from __future__ import annotations

USAGE = {
    "qsub": """\
usage: qsub [-a date_time] [-A account_string] [-c interval]
	[-C directive_prefix] [-e path] [-f ] [-h ] [-I [-X]] [-j oe|eo] [-J X-Y[:Z]]
	[-k keep] [-l resource_list] [-m mail_options] [-M user_list]
	[-N jobname] [-o path] [-p priority] [-P project] [-q queue] [-r y|n]
	[-R o|e|oe] [-S path] [-u user_list] [-W otherattributes=value...]
	[-v variable_list] [-V ] [-z] [script | -- command [arg1 ...]]
       qsub --version
""",
    "qstat": """\
usage: 
qstat [-f] [-J] [-p] [-t] [-x] [-E] [-F format | -w] [-D delim] [ job_identifier... | destination... ]
qstat [-a|-i|-r|-H|-T] [-J] [-t] [-u user] [-n] [-s] [-G|-M] [-1] [-w]
	[ job_identifier... | destination... ]
qstat -Q [-f] [-F format] [-D delim] [ destination... ]
qstat -q [-G|-M] [ destination... ]
qstat -B [-f] [-F format] [-D delim] [ server_name... ]
qstat --version
""",  # noqa: W291  it is PBS's
    "qdel": """\
usage:
	qdel [-W force|suppress_email=X] [-x] job_identifier...
	qdel --version
""",
}


class Refused(Exception):
    """A command ends here, with these words on stderr."""

    def __init__(self, words: str, code: int, usage: str = "") -> None:
        super().__init__(words)
        self.err = f"{words}\n{USAGE.get(usage, '')}" if words else USAGE.get(usage, "")
        self.code = code
