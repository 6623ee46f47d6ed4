"""A submission: what is asked of PBS, as arguments of qsub, and the script that runs in the job.

qsub gets its options as arguments, which pass through unchanged, and `-- /bin/bash SCRIPT`. So the first process of
the job is ours, not a login shell that ends at the first signal: the script gives way to the task's interpreter, which
hears SIGTERM and whose exit code PBS reports. The script opens the log files itself, as PBS's `-o` has no name for
a job's id, reads a colon as the end of a host's name, and delivers at the job's end.

Variables stand in the script, as `qsub -v` drops quotes and doubles backslashes.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from submitit.core.job_environment import JobEnvironment
from submitit.core.utils import JobPaths

from hsm_core.suggest import did_you_mean

BASH = "/bin/bash"
_VARIABLE = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_SECONDS = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+)")
_MEMORY = re.compile(r"\d+(?:[kmgtp]?[bw])?", re.IGNORECASE)


@dataclass(frozen=True)
class Options:
    """What a submission may say; each field is a parameter of the executor, in AutoExecutor with `pbs_` before it."""

    job_name: str = "submitit"
    """without spaces, `/` and `:`; versions before 20 take 15 characters"""
    queue: str | None = None
    """also `queue@server`"""
    account: str | None = None
    project: str | None = None
    walltime: int | str | None = 300
    """seconds, or `[[H:]M:]S`; None leaves it to the queue"""
    nodes: int = 1
    tasks_per_node: int = 1
    """processes of the function on each node"""
    cpus_per_task: int | None = None
    gpus_per_node: int | None = None
    mem: int | str | None = None
    """of each node: MiB, or as PBS writes it (`4gb`)"""
    select: str | None = None
    """instead of cpus, gpus and memory: chunks as `qsub -l select=` takes them"""
    place: str | None = None
    """as `qsub -l place=` takes it; several nodes are scattered by default"""
    array_parallelism: int | None = None
    """how many elements of an array run at once, at most"""
    rerunnable: bool = True
    """whether PBS may start the job again, after it was preempted or its node failed"""
    dependency: str | None = None
    """as `qsub -W depend=` takes it, such as `afterok:12.server`"""
    setup: Sequence[str] | None = None
    """lines of shell that run before the function"""
    environment: Mapping[str, str] | None = None
    """variables for the function; a job gets none of the submitter's"""
    signal_delay_s: int = 90
    """how long before its time limit a job is told to checkpoint, at most half the limit; 0: it is not"""
    stderr_to_stdout: bool = False
    extra: Sequence[str] | None = None
    """more options of qsub, as they stand behind `#PBS` in a script: `-l software=x`"""

    def __post_init__(self) -> None:
        problems = [problem for problem in _problems(self) if problem]
        if problems:
            raise ValueError("PBS could not take this: " + "; ".join(problems))

    @property
    def processes(self) -> int:
        return self.nodes * self.tasks_per_node

    @property
    def seconds(self) -> int | None:
        """The time limit."""
        return None if self.walltime is None else seconds(self.walltime)


def options(parameters: Mapping[str, Any]) -> Options:
    """The options that parameters ask for. Raises ValueError for an unknown one, listing all there are."""
    known = {field.name: field.default for field in fields(Options)}
    unknown = [name for name in parameters if name not in known]
    if unknown:
        hints = ", ".join(f"{name!r}{did_you_mean(name, known)}" for name in unknown)
        valid = "\n  - ".join(f"{name} (default: {default!r})" for name, default in sorted(known.items()))
        raise ValueError(f"Unavailable parameter(s): {hints}\nValid parameters are:\n  - {valid}")
    return Options(**parameters)


def seconds(walltime: int | str) -> int:
    """A time as PBS writes it, `[[H:]M:]S`, or a number of seconds. Raises ValueError for others."""
    found = _SECONDS.fullmatch(str(walltime))
    if found is None or isinstance(walltime, bool):
        raise ValueError(f"walltime {walltime!r} is neither a number of seconds nor like 1:30:00")
    hours, minutes, rest = (int(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + rest


def _problems(options: Options) -> list[str]:
    found = []
    if not options.job_name or re.search(r"[\s/:]", options.job_name) or not options.job_name.isprintable():
        found.append(f"job_name {options.job_name!r} must have no spaces, '/' or ':'")
    for name in ("nodes", "tasks_per_node", "cpus_per_task", "array_parallelism"):
        value = getattr(options, name)
        if value is not None and (not isinstance(value, int) or value < 1):
            found.append(f"{name} must be a whole number of at least 1, not {value!r}")
    if options.walltime is not None:
        try:
            if seconds(options.walltime) < 1:
                found.append("walltime must be at least 1 second")
        except ValueError as e:
            found.append(str(e))
    if isinstance(options.mem, str) and not _MEMORY.fullmatch(options.mem):
        found.append(f"mem {options.mem!r} is neither a number of MiB nor like 4gb")
    together = [name for name in ("cpus_per_task", "gpus_per_node", "mem") if getattr(options, name) is not None]
    if options.select is not None and together:
        found.append(f"select says it all; {' and '.join(together)} can't be given beside it")
    for name in options.environment or {}:
        if not _VARIABLE.fullmatch(name):
            found.append(f"environment: {name!r} is no name of a variable")
    for name in ("setup", "extra"):
        if isinstance(getattr(options, name), str):
            found.append(f"{name} is a list of lines, not a text")
    if options.extra and not isinstance(options.extra, str):
        for line in options.extra:
            try:
                shlex.split(line)
            except ValueError as e:
                found.append(f"extra: {line!r}: {e}")
    return found


def select(options: Options) -> str:
    """The chunks: one for each node, with all its tasks."""
    if options.select is not None:
        return options.select
    cpus, tasks = options.cpus_per_task or 1, options.tasks_per_node
    parts = [str(options.nodes), f"ncpus={cpus * tasks}"]
    if tasks > 1:
        parts += [f"mpiprocs={tasks}", f"ompthreads={cpus}"]
    if options.mem is not None:
        parts.append(f"mem={options.mem}mb" if isinstance(options.mem, int) else f"mem={options.mem}")
    if options.gpus_per_node:
        parts.append(f"ngpus={options.gpus_per_node}")
    return ":".join(parts)


def qsub_command(options: Options, script: Path, count: int = 1) -> list[str]:
    """Submit the script; as an array of `count` elements, where that is more than one: PBS has no array of one."""
    command = ["qsub", "-N", options.job_name, "-r", "y" if options.rerunnable else "n"]
    for flag, value in (("-q", options.queue), ("-A", options.account), ("-P", options.project)):
        command += [flag, value] if value is not None else []
    command += ["-l", f"select={select(options)}"]
    place = options.place or ("scatter" if options.nodes > 1 else None)
    command += ["-l", f"place={place}"] if place else []
    command += ["-l", f"walltime={options.seconds}"] if options.seconds is not None else []
    command += ["-W", f"depend={options.dependency}"] if options.dependency else []
    if count > 1:
        limit = options.array_parallelism
        command += ["-J", f"0-{count - 1}{f'%{limit}' if limit is not None and limit < count else ''}"]
    for line in options.extra or ():
        command += shlex.split(line)
    # What PBS itself writes into a job's output goes nowhere; it would come as files of its own.
    return [*command, "-o", "/dev/null", "-e", "/dev/null", "--", BASH, str(script)]


def script_text(options: Options, command: str, folder: Path, script: Path) -> str:
    """The script; `command` is a shell command that runs the function.

    It comes by here up to three times: as the job's first process, which opens the logs and, where there are several
    tasks, starts one more for each; and in a login shell, which knows `module` and what else a profile brings.
    """
    paths = JobPaths(folder)
    err = "2>&1" if options.stderr_to_stdout else '2>>"$(place "$err")"'
    lines = [
        f"#!{BASH}",
        "# Runs a function for submitit, by hsm_core.pbs.",
        f"export SUBMITIT_EXECUTOR=pbs SUBMITIT_PREEMPT_SIGNAL={JobEnvironment.USR_SIG}",
        f"export SUBMITIT_PBS_NODES={options.nodes} SUBMITIT_PBS_NTASKS={options.processes}",
        f"script={shlex.quote(str(script))}",
        f"out={shlex.quote(str(paths.stdout))}",
        f"err={shlex.quote(str(paths.stderr))}",
        'job=${PBS_JOBID/"[${PBS_ARRAY_INDEX-}]"/}${PBS_ARRAY_INDEX:+_$PBS_ARRAY_INDEX}',
        "",
        "# Where a log file is, with the directory made.",
        "place() {",
        "    local path=$1 rank=${SUBMITIT_PBS_RANK-0}",
        '    path=${path//"%j"/"$job"} path=${path//"%t"/"$rank"}',
        '    path=${path//"%A"/"${job%%_*}"} path=${path//"%a"/"${job#*_}"}',
        '    mkdir -p -- "${path%/*}" && printf %s "$path"',
        "}",
        "",
        "if [ -z ${SUBMITIT_PBS_LOGIN-} ]; then",
        f'    exec </dev/null >>"$(place "$out")" {err}',
        *_spread(options),
        "    export SUBMITIT_PBS_LOGIN=1",
        f'    exec {BASH} -l "$script"',
        "fi",
        "unset SUBMITIT_PBS_LOGIN",
        "",
        'cd -- "$PBS_O_WORKDIR" || exit',
        *(options.setup or ()),
        *(f"export {name}={shlex.quote(str(value))}" for name, value in (options.environment or {}).items()),
        *_warning(options),
        f"exec {command}",
        "",
    ]
    return "\n".join(lines)


def _spread(options: Options) -> list[str]:
    """The first process of a job with several tasks: starts each, and ends with the exit code of one that failed."""
    if options.processes == 1:
        return []
    start = f'/usr/bin/env SUBMITIT_PBS_RANK=$rank {BASH} "$script"'
    # Every line of PBS_NODEFILE is a place for one task; pbsdsh counts them from 0. Before a profile, PATH is short.
    start = f"PATH=$PATH:$PBS_O_PATH pbsdsh -n $rank -- {start}" if options.nodes > 1 else start
    return [
        "    if [ -z ${SUBMITIT_PBS_RANK-} ]; then",
        "        # Signals are for the tasks; this process waits for them.",
        f"        trap : TERM {JobEnvironment.USR_SIG}",
        f"        for ((rank = 0; rank < {options.processes}; rank++)); do",
        f"            {start} &",
        "        done",
        "        code=0",
        "        for task in $(jobs -p); do",
        '            while wait "$task"; ended=$?; kill -0 "$task" 2>/dev/null; do :; done',
        "            ((ended == 0)) || code=$ended",
        "        done",
        "        exit $code",
        "    fi",
    ]


def _warning(options: Options) -> list[str]:
    """PBS has no signal before the time limit: a process beside the task sends it."""
    limit = options.seconds
    if limit is None or options.signal_delay_s == 0:
        return []
    after = limit - min(options.signal_delay_s, limit // 2)
    return [
        f"({{ sleep {after} && kill -s {JobEnvironment.USR_SIG} $$; }} </dev/null >/dev/null 2>&1 &)",
    ]
