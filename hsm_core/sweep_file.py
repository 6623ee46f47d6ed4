"""sweep.yaml: which app to sweep over what, and the command line that does it.

For example:

    app: train.py                       # or: -m package.module
    overrides: [epochs=10]              # Hydra overrides that hold for every task
    sweep:
      grid:                             # every combination
        lr: [0.1, 0.01]
        seed: range(0,3)                # text: Hydra's own sweep syntax
      paired:                           # lists that go together, one group each
        - sizes: {width: [64, 128], depth: [2, 4]}
    max_runs: 100
    hsm: {retry_attempts: ..}           # keys of hsm_config.yaml
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hsm_core.config import HsmConfig
from hsm_core.config.check import check
from hsm_core.config.file import Key, read_bytes
from hsm_core.exceptions import ConfigError
from hsm_core.override_text import axis, key_and_value, literal, quote
from hsm_core.suggest import did_you_mean
from hsm_core.text import plural, printable
from hsm_core.yaml_lines import YamlError, read_yaml

TASK_FOLDER = "tasks/${hsm_task:${hydra.job.num}}"
"""`hydra.sweep.subdir` of sweeps that hsm starts"""

_KEYS = ("app", "overrides", "sweep", "max_runs", "hsm")
_SWEEP_KEYS = ("grid", "paired")
_OURS = ("hydra.sweep.dir", "hydra.sweep.subdir", "hydra.sweeper.paired")

_SECTIONS = frozenset(f.name for f in dataclasses.fields(HsmConfig) if dataclasses.is_dataclass(f.default_factory))
"""Keys of the configuration that hold further keys of the schema."""

Axis = Sequence[Any] | str
"""The values of a swept key: a list, or text in Hydra's sweep syntax."""


@dataclass(frozen=True)
class SweepFile:
    """A checked sweep.yaml."""

    path: Path
    app: str
    """a script's path as it is written, or `-m package.module`"""
    overrides: tuple[str, ...] = ()
    grid: Mapping[str, Axis] = field(default_factory=dict)
    paired: tuple[Mapping[str, Sequence[Any]], ...] = ()
    max_runs: int | None = None
    hsm: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunOptions:
    """What the command line of `hsm run` adds; None leaves the matter to the configuration."""

    sources: str | None = None
    strategy: str | None = None
    max_runs: int | None = None
    dependency: str | None = None
    seed: int | None = None
    fail_fast: float | None = None
    retry_attempts: int | None = None
    overrides: tuple[str, ...] = ()
    """Hydra overrides and flags; one for a key of the grid replaces its axis"""

    def launcher_overrides(self) -> list[str]:
        """Those that are settings of the launcher, as Hydra overrides."""
        given = {
            "sources": self.sources,
            "strategy": self.strategy,
            "dependency": self.dependency,
            "seed": self.seed,
            "fail_fast": self.fail_fast,
            "compute.retry_attempts": self.retry_attempts,
        }
        return [f"hydra.launcher.{key}={quote(value)}" for key, value in given.items() if value is not None]


def load(path: Path) -> SweepFile:
    """Read and check a sweep file. Raises ConfigError with all that is wrong, each with its line."""
    try:
        document = read_yaml(read_bytes(path).decode("utf-8"))
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "it is no UTF-8 text"
        raise ConfigError([f"{printable(str(path))} can't be read: {reason}"]) from e
    except YamlError as e:
        raise ConfigError([f"{printable(str(path))}:{e.line}: {e}"]) from e
    checker = _Checker(path, document.lines)
    sweep_file = checker.sweep_file(document.data)
    if checker.problems:
        raise ConfigError(checker.problems)
    return sweep_file


def command_line(
    sweep_file: SweepFile, program: Sequence[str], sweep_dir: str, options: RunOptions = RunOptions()
) -> list[str]:
    """The arguments that run the sweep: `program` (interpreter and app), then Hydra's.

    `sweep_dir` becomes `hydra.sweep.dir`. Raises ConfigError when an override of the options
    contradicts the file.
    """
    given = _keys(options.overrides)
    paired = {key for group in sweep_file.paired for key in group}
    problems = [f"{key} is paired in {sweep_file.path} and can't be overridden alone" for key in given & paired]
    problems += [f"{key} is set by hsm run" for key in _OURS if key in given]
    if problems:
        raise ConfigError([printable(problem) for problem in problems])
    max_runs = sweep_file.max_runs if options.max_runs is None else options.max_runs
    return [
        *program,
        "--multirun",
        "hydra/launcher=hsm",
        "hydra/sweeper=hsm",
        f"hydra.sweep.dir={quote(literal(sweep_dir))}",
        f"hydra.sweep.subdir={quote(TASK_FOLDER)}",
        *_settings(sweep_file),
        *options.launcher_overrides(),
        *(override for override in sweep_file.overrides if key_and_value(override)[0] not in given),
        *(_axis(key, values) for key, values in sweep_file.grid.items() if key.lstrip("+") not in given),
        *_paired(sweep_file.paired),
        *([] if max_runs is None else [f"hydra.sweeper.max_runs={max_runs}"]),
        *options.overrides,
    ]


def _axis(key: str, values: Axis) -> str:
    return f"{key}={values}" if isinstance(values, str) else axis(key, values)


def _paired(groups: Sequence[Mapping[str, Sequence[Any]]]) -> list[str]:
    if not groups:
        return []
    text = quote([dict(group) for group in groups])
    if "${" in text:
        # Interpolations are meant for the tasks' configuration. Whether Hydra resolves those in the sweeper's own one,
        # and how often, differs between its versions; as JSON with the dollars escaped they are none there.
        text = quote(json.dumps(groups).replace("$", "\\u0024"))
    return [f"hydra.sweeper.paired={text}"]


def _keys(overrides: Iterable[str]) -> set[str]:
    return {key_and_value(override)[0] for override in overrides if not override.startswith("-")}


def _settings(sweep_file: SweepFile) -> list[str]:
    """The `hsm:` section as overrides of the launcher; sections key by key, so that they are merged."""
    hsm, referring = _without_secrets(sweep_file.hsm)
    out = []
    if referring:
        out.append(f"hydra.launcher.sweep_file={quote(literal(os.path.abspath(sweep_file.path)))}")
    for key, value in hsm.items():
        if key in _SECTIONS:
            out += [f"++hydra.launcher.{key}.{name}={quote(item)}" for name, item in value.items()]
        else:
            out.append(f"++hydra.launcher.{key}={quote(value)}")
    return out


def _without_secrets(hsm: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
    """The section with a reference in place of every value of `env.set`, and whether there is any.

    A command line is seen by everyone on the machine, and kept in the journal. An interpolation stays: what it
    stands for is not seen.
    """
    sources, referring = {}, False
    for name, source in hsm.get("compute_sources", {}).items():
        values = source.get("env", {}).get("set", {})
        hidden = [variable for variable, value in values.items() if not (isinstance(value, str) and "${" in value)]
        # Without quotes, which would need escapes: OmegaConf takes the override itself for an interpolation too.
        references = {key: f"${{hsm_env:${{hydra.launcher.sweep_file}},{name}/{key}}}" for key in hidden}
        sources[name] = source if not hidden else {**source, "env": {**source["env"], "set": {**values, **references}}}
        referring = referring or bool(hidden)
    return ({**hsm, "compute_sources": sources}, True) if referring else (hsm, False)


def environment_value(path: str, name: str) -> Any:
    """What a reference of `command_line` stands for, `source/variable` of a sweep file; None where it is gone."""
    source, _, variable = name.partition("/")
    try:
        found: Any = load(Path(path)).hsm
    except ConfigError:  # told with the rest of the configuration: OmegaConf, which asks, would show a traceback
        return None
    for key in ("compute_sources", source, "env", "set", variable):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


class _Checker:
    """Collects every problem of one file while it takes the file apart."""

    def __init__(self, path: Path, lines: Mapping[Key, int]) -> None:
        self.path = path
        self.problems: list[str] = []
        self._lines = lines
        self._seen: dict[str, Key] = {}

    def sweep_file(self, data: Any) -> SweepFile:
        """The file's content; only worth something when there are no problems afterwards."""
        if data is not None and not isinstance(data, dict):
            self.report((), f"must be a mapping with the keys {', '.join(_KEYS)}")
        top: dict[str, Any] = data if isinstance(data, dict) else {}
        self._known(top, _KEYS, ())
        sweep = top.get("sweep", {})
        if "sweep" in top and not (isinstance(sweep, dict) and sweep):
            self.report(("sweep",), "must hold grid, paired or both")
        sweep = sweep if isinstance(sweep, dict) else {}
        self._known(sweep, _SWEEP_KEYS, ("sweep",))
        return SweepFile(
            path=self.path,
            app=self._app(top),
            overrides=self._overrides(top.get("overrides")),
            grid=self._grid(sweep["grid"]) if "grid" in sweep else {},
            paired=self._paired(sweep["paired"]) if "paired" in sweep else (),
            max_runs=self._max_runs(top.get("max_runs")),
            hsm=self._hsm(top.get("hsm")),
        )

    def report(self, at: Key, text: str) -> None:
        """Note a problem at a key; the line is that of the key or of what stands nearest above it."""
        place = next((at[:n] for n in range(len(at), -1, -1) if at[:n] in self._lines), ())
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in at).lstrip(".")
        text = f"{where}: {text}" if where else text
        self.problems.append(printable(f"{self.path}:{self._lines.get(place, 1)}: {text}"))

    def _known(self, data: Mapping[Any, Any], known: Sequence[str], at: Key) -> None:
        for key in data:
            if key not in known:
                near = did_you_mean(str(key), known)
                self.report((*at, str(key)), f"unknown key{near}; there are {', '.join(known)}")

    def _app(self, top: Mapping[str, Any]) -> str:
        app = top.get("app")
        if not isinstance(app, str) or not app.strip() or app.strip() == "-m":
            problem = "is missing" if app is None else "must be a text"
            self.report(("app",), f"{problem}: the script to run, such as train.py, or -m package.module")
            return ""
        return app.strip()

    def _hsm(self, value: Any) -> Mapping[str, Any]:
        hsm = {} if value is None else check(value, lambda at, text: self.report(("hsm", *at), text))
        for key, item in hsm.items():
            try:
                quote(item)
            except ValueError as e:
                self.report(("hsm", key), f"{e}; hsm_config.yaml takes it")
        return hsm

    def _max_runs(self, value: Any) -> int | None:
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            self.report(("max_runs",), "must be a whole number, 1 or more")
        return value if isinstance(value, int) else None

    def _overrides(self, value: Any) -> tuple[str, ...]:
        if value is None:
            return ()
        if not isinstance(value, list):
            self.report(("overrides",), "must be a list of Hydra overrides, such as [epochs=10]")
            return ()
        for i, item in enumerate(value):
            if isinstance(item, str):
                self._parsed(item, ("overrides", i))
            else:
                self.report(("overrides", i), "must be a Hydra override as text, such as epochs=10")
        return tuple(item for item in value if isinstance(item, str))

    def _grid(self, value: Any) -> dict[str, Axis]:
        at: Key = ("sweep", "grid")
        if not isinstance(value, dict) or not value:
            self.report(at, "the grid is empty" if not value else "must be a mapping of keys to lists of values")
            return {}
        return {str(key): self._grid_axis(key, item, (*at, str(key))) for key, item in value.items()}

    def _grid_axis(self, key: Any, value: Any, at: Key) -> Axis:
        if isinstance(value, str) and value.strip():
            self._parsed(f"{key}={value}", at)
            return value
        if isinstance(value, (bool, int, float)):
            value = [value]
        return self._values(key, value, at, "a list of values, or text in Hydra's sweep syntax such as range(1,10)")

    def _paired(self, value: Any) -> tuple[Mapping[str, Sequence[Any]], ...]:
        at: Key = ("sweep", "paired")
        if not isinstance(value, list) or not value:
            self.report(at, "must be a list of groups, each `name: {key: [values], key: [values]}`")
            return ()
        groups = []
        for i, item in enumerate(value):
            if not isinstance(item, dict) or len(item) != 1 or not isinstance(next(iter(item.values())), dict):
                self.report((*at, i), "must be one group: `name: {key: [values], key: [values]}`")
                continue
            ((name, lists),) = item.items()
            groups.append(self._group(lists, (*at, i, str(name))))
        return tuple(groups)

    def _group(self, lists: Mapping[Any, Any], at: Key) -> Mapping[str, Sequence[Any]]:
        if not lists:
            self.report(at, "the group is empty")
        group = {str(key): self._values(key, item, (*at, str(key)), "a list of values") for key, item in lists.items()}
        lengths = {key: len(values) for key, values in group.items() if values}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{key} has {plural(n, 'value')}" for key, n in lengths.items())
            self.report(at, f"the lists of a group must be equally long, but {told}")
        return group

    def _values(self, key: Any, value: Any, at: Key, wanted: str) -> Sequence[Any]:
        if not isinstance(value, list) or not value:
            self.report(at, f"is empty; it must be {wanted}" if value in (None, "", [], {}) else f"must be {wanted}")
            return []
        for i, item in enumerate(value):
            try:
                quote(item)
            except ValueError as e:
                self.report((*at, i), str(e))
        self._parsed(f"{key}=1", at)
        return value

    def _parsed(self, override: str, at: Key) -> None:
        """Check an override's syntax, and that its key is set here only."""
        from hydra.core.override_parser.overrides_parser import OverridesParser
        from hydra.errors import HydraException

        try:
            parsed = OverridesParser.create().parse_override(override)
        except HydraException as e:
            self.report(at, f"'{override}' is no Hydra override: {str(e).splitlines()[0]}")
            return
        key = parsed.get_key_element().lstrip("+~")
        if key in _OURS:
            self.report(at, f"{key} is set by hsm run")
        elif key in self._seen:
            self.report(at, f"{key} is set in line {self._lines.get(self._seen[key], 1)} too; keep one of the two")
        elif parsed.is_sweep_override() and parsed.is_range_sweep() and next(parsed.sweep_iterator(), None) is None:
            self.report(at, f"'{override}' has no values")
        self._seen.setdefault(key, at)
