"""Wall times as people and schedulers write them: `12:00:00`, `1-12:00:00`, `90m`, `1h30m`."""

from __future__ import annotations

import re

from hsm_core.config.types import shown

_CLOCK = re.compile(r"(?:(?P<days>\d{1,9})-)?(?P<fields>\d{1,9}(?::\d{1,2}){0,2})", re.ASCII)
_UNITS = re.compile(
    r"(\d{1,9}(?:\.\d{1,9})?)\s*(d(?:ays?)?|h(?:ours?|rs?)?|m(?:in(?:ute)?s?)?|s(?:ec(?:ond)?s?)?)\s*",
    re.IGNORECASE | re.ASCII,
)
_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_EXAMPLES = "write for example 12:00:00, 1-12:00:00 or 90m"


def wall_seconds(walltime: object) -> int:
    """The seconds a wall time stands for, 1 or more.

    Read are Slurm's forms `minutes:seconds`, `hours:minutes:seconds`, `days-hours`, `days-hours:minutes` and
    `days-hours:minutes:seconds` (sbatch(1), --time), of which PBS knows those without days (pbs_resources(7B),
    [[hours:]minutes:]seconds), and numbers with units: `90m`, `1.5h`, `1d 12h`.

    Raises ValueError, in words for people, for everything else - also for a number alone, which is minutes to Slurm
    and seconds to PBS, and is what YAML makes of 12:00:00 without quotes.
    """
    if not isinstance(walltime, str):
        raise ValueError(f"{shown(walltime)} is no wall time; {_EXAMPLES}, in quotes")
    text = walltime.strip()
    if text.isdecimal():
        raise ValueError(f"{shown(walltime)} has no unit; write {text}m for minutes, {text}s for seconds")
    clock = _CLOCK.fullmatch(text)
    seconds = _of_clock(clock) if clock is not None else _of_units(text)
    if seconds is None:
        raise ValueError(f"{shown(walltime)} is no wall time; {_EXAMPLES}")
    if not 0 < seconds < 2**31:
        raise ValueError(f"{shown(walltime)} is no wall time that a job can have; leave it out for the queue's own")
    return seconds


def clock_text(seconds: int) -> str:
    """Seconds as both schedulers read them: `12:00:00`; hours go on above 24."""
    minutes, rest = divmod(seconds, 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest:02d}"


def _of_clock(match: re.Match[str]) -> int | None:
    """None where a field is more than the one before it has room for."""
    fields = [int(field) for field in match["fields"].split(":")]
    if any(field > 59 for field in fields[1:]):
        return None
    if match["days"] is None:
        units = (3600, 60, 1)[-len(fields) :]
        return sum(field * unit for field, unit in zip(fields, units, strict=True))
    if fields[0] > 23:
        return None
    return int(match["days"]) * 86400 + sum(f * unit for f, unit in zip(fields, (3600, 60, 1), strict=False))


def _of_units(text: str) -> int | None:
    parts = list(_UNITS.finditer(text))
    if not parts or "".join(part[0] for part in parts) != text:
        return None
    return round(sum(float(part[1]) * _SECONDS[part[2][0].lower()] for part in parts))
