"""Which sources a sweep uses: the text of `--sources`.

    all                                  every configured source
    local,spare                          these, in this order
    spare:8                              at most 8 tasks at a time there
    ssh:gpu-server, ssh:gpu-server:16    as above; the type is checked
    hpc                                  every source of this type, where no source has that name
    cluster:high,server1:medium          with a priority
    big-machines                         a group (`type: distributed`): its members

A group's members may be groups. `all`, types and groups take a priority, which holds for each of
their sources, but no limit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hsm_core.config import SOURCE_KINDS, SourceConfig
from hsm_core.config.rules import GROUP, PRIORITIES
from hsm_core.exceptions import SelectionError
from hsm_core.suggest import did_you_mean
from hsm_core.text import printable


@dataclass(frozen=True)
class Selected:
    """One source to be used."""

    name: str
    config: SourceConfig
    limit: int | None
    """tasks at a time as the selection says; counts instead of `max_parallel_tasks`, also when larger"""
    priority: int | None
    """as the selection says; None: as the source's configuration says"""

    @property
    def rank(self) -> int:
        """The priority that holds: larger is preferred."""
        return priority_number(self.config.priority) if self.priority is None else self.priority


def select(text: str, configured: Mapping[str, SourceConfig]) -> list[Selected]:
    """The sources the text names, in its order; those of one `all`, type or group as configured.

    None of them is a group, and none is there twice. Raises SelectionError when the text is
    malformed, names what does not exist or is of another type, or a source twice; or when a
    group has itself as a member.
    """
    chosen: dict[str, Selected] = {}
    named_by: dict[str, str] = {}
    for part in text.split(","):
        item = _parse(part, text)
        names = _sources_of(item, configured)
        if item.limit is not None and names != [item.words[-1]]:
            example = ",".join(f"{name}:{item.limit}" for name in names)
            raise SelectionError(f"'{item.text}': a limit belongs to a source by its name; write for example {example}")
        for name in names:
            if name in chosen:
                raise SelectionError(
                    f"source '{name}' is selected twice, by '{named_by[name]}' and by '{item.text}'; name it once"
                )
            chosen[name] = Selected(name, configured[name], item.limit, item.priority)
            named_by[name] = item.text
    return list(chosen.values())


def priorities_given(selected: Iterable[Selected]) -> bool:
    """Whether the selection itself names a priority: then the strategy, if none was chosen, is `priority`."""
    return any(one.priority is not None for one in selected)


def priority_number(priority: str | int | None) -> int:
    """The number behind `high`, `medium` or `low`; None is medium. Numbers stay. Raises KeyError otherwise."""
    if isinstance(priority, int):
        return priority
    return PRIORITIES["medium" if priority is None else priority]


@dataclass(frozen=True)
class _Item:
    text: str
    words: Sequence[str]
    """[name] or [type, name]"""
    limit: int | None
    priority: int | None


def _parse(part: str, text: str) -> _Item:
    shown = printable(part.strip())
    words = [word.strip() for word in part.split(":")]
    if not all(words):
        what = f"'{shown}' lacks something beside a ':'" if part.strip() else "there is nothing between two commas"
        raise SelectionError(f"sources '{printable(text)}': {what}; write for example local,server1:8")
    limit: int | None = None
    priority: int | None = None
    while len(words) > 1:
        if re.fullmatch(r"[+-]?[0-9]+", words[-1]) and limit is None:
            limit = int(words[-1])
        elif words[-1] in PRIORITIES and priority is None:
            priority = PRIORITIES[words[-1]]
        else:
            break
        words.pop()
    if limit is not None and limit < 1:
        raise SelectionError(f"'{shown}': the limit must be 1 or more; leave the source out to use none of it")
    return _Item(shown, words, limit, priority)


def _sources_of(item: _Item, configured: Mapping[str, SourceConfig]) -> list[str]:
    if len(item.words) == 1:
        return _by_word(item, item.words[0], configured)
    kind, name = item.words[0], item.words[1]
    if len(item.words) > 2:
        raise SelectionError(f"'{item.text}' has too many parts; write name, name:limit or type:name:limit")
    if name not in configured:
        if kind not in configured:
            raise _unknown(item, name, configured)
        near = did_you_mean(
            name, [*PRIORITIES, *(other for other, config in configured.items() if config.type == kind)]
        )
        raise SelectionError(
            f"'{item.text}': '{printable(name)}' is neither a number of tasks nor one of {', '.join(PRIORITIES)}{near}"
        )
    if configured[name].type != kind:
        hint = "" if kind in _types(configured) else did_you_mean(kind, _types(configured))
        raise SelectionError(f"'{item.text}': source '{name}' is of type {configured[name].type}, not {kind}{hint}")
    return _expand(name, configured)


def _by_word(item: _Item, word: str, configured: Mapping[str, SourceConfig]) -> list[str]:
    if word in configured:
        return _expand(word, configured)
    if word == "all":
        return [name for name, config in configured.items() if config.type != GROUP]
    members = [name for name, config in configured.items() if config.type == word]
    if not members:
        raise _unknown(item, word, configured)
    return list(dict.fromkeys(source for name in members for source in _expand(name, configured)))


def _expand(name: str, configured: Mapping[str, SourceConfig], above: Sequence[str] = ()) -> list[str]:
    """The sources behind a name: itself, or the members of a group down to the last, each once."""
    config = configured[name]
    if config.type != GROUP:
        return [name]
    path = [*above, name]
    if name in above:
        raise SelectionError(f"group '{name}' contains itself: {' > '.join(path)}")
    names: list[str] = []
    for member in config.sources:
        if member not in configured:
            raise SelectionError(
                f"group '{name}' names '{printable(member)}', which is no source{did_you_mean(member, configured)}"
            )
        names += _expand(member, configured, path)
    return list(dict.fromkeys(names))


def _types(configured: Mapping[str, SourceConfig]) -> list[str]:
    return list(dict.fromkeys([*SOURCE_KINDS, *(config.type for config in configured.values())]))


def _unknown(item: _Item, word: str, configured: Mapping[str, SourceConfig]) -> SelectionError:
    known = ", ".join(f"{name} ({config.type})" for name, config in configured.items())
    if word in _types(configured):
        return SelectionError(f"'{item.text}': there is no source of type {word}; there are {known}")
    near = did_you_mean(word, [*configured, *_types(configured), "all"])
    return SelectionError(f"'{item.text}': there is no source '{printable(word)}'{near}; there are {known}")
