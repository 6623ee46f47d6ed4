"""What a shell does on a compute host before it starts the app's Python: setup commands, modules, conda."""

from __future__ import annotations

import shlex
from collections.abc import Callable

from hsm_core.config import SourceConfig

_CONDAS = "~/miniconda3 ~/miniforge3 ~/mambaforge ~/anaconda3 /opt/conda /opt/miniconda3 /opt/miniforge3 /opt/anaconda3"
"""where conda is looked for if it is not on PATH"""


def preamble(config: SourceConfig, told: Callable[[str], str]) -> list[str]:
    """Commands of a POSIX shell; what they print goes to standard error.

    One that fails calls the shell's function `hsm_problem` with what `told` makes of the problem's name, see `words`.
    """

    def problem(name: str) -> str:
        return f"hsm_problem {shlex.quote(told(name))}"

    lines = []
    for number, command in enumerate([*config.module_commands, *config.setup]):
        lines.append(f"{{\n{command}\n}} >&2 </dev/null || {problem(f'setup {number}')}")
    if config.conda_env is not None:
        name = quoted(config.conda_env) if "/" in config.conda_env else shlex.quote(config.conda_env)
        # As conda's own shell function does.
        lines.append(f"""for hsm_conda in "$(conda info --base 2>/dev/null </dev/null)" {_CONDAS}; do
[ -f "$hsm_conda/etc/profile.d/conda.sh" ] && break
done
[ -f "$hsm_conda/etc/profile.d/conda.sh" ] || {problem("no conda")}
{{ . "$hsm_conda/etc/profile.d/conda.sh" && conda activate {name}; }} >&2 </dev/null || {problem("no environment")}""")
    return lines


def words(problem: str, config: SourceConfig) -> str | None:
    """What a problem's name stands for, in words for people; None for one that comes from elsewhere."""
    if problem.startswith("setup "):
        command = [*config.module_commands, *config.setup][int(problem[len("setup ") :])]
        return f"the command {command!r} of setup failed"
    return {
        "no conda": f"conda was not found, neither on PATH nor in {_CONDAS}: load it by a command of `setup`",
        "no environment": f"conda has no environment {config.conda_env}, or can't activate it",
    }.get(problem)


def for_job(config: SourceConfig) -> list[str]:
    """The same for the script of a job; where a command fails the job ends, and says why."""
    wanted = preamble(config, lambda problem: words(problem, config) or problem)
    return ["hsm_problem() { printf '%s\\n' \"$1\" >&2; exit 1; }", *wanted]


def quoted(path: str) -> str:
    """A path or a program's name for the shell, `~` being the home there."""
    return f'"$HOME"/{shlex.quote(path[2:])}' if path.startswith("~/") else shlex.quote(path)
