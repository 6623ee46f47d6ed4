"""The app on the compute side: from the payload to a task function and Hydra's context.

The app's own entry runs here as it did in the launcher, up to the point where Hydra would take
over: `_run_hydra` in the module `hydra.main`, in Hydra 1.3 and 1.4. We never return from
there, so what stands around `main()` (decorators, `with` blocks) is in force while tasks run,
and the rest of the app never sees that it was stopped.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import importlib.util
import json
import os
import pickle
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from hsm_core.remote import describe, plugin_configs
from hsm_core.remote.frozen import Frozen
from hsm_core.remote.places import Places

if TYPE_CHECKING:
    from hsm_core.remote.compose import Composer
    from hsm_core.remote.yaml_text import YamlTexts


_BY_TASKS = (
    "hydra.main",
    "hydra._internal.hydra",
    "hydra._internal.callbacks",
    "hydra.core.override_parser.overrides_parser",
    "hsm_core.remote.compose",
    "hsm_core.remote.lean",
    "hsm_core.remote.yaml_text",
)


class EntryError(Exception):
    """The app's entry did not lead to Hydra. The text holds the app's own traceback, if any."""


@dataclass(frozen=True)
class Payload:
    """What the launcher froze for the tasks; made by `hsm_core.payload`."""

    folder: str
    facts: Mapping[str, Any]

    @classmethod
    def read(cls, folder: str) -> Payload:
        with open(os.path.join(folder, "payload.json"), encoding="utf-8") as f:
            return cls(os.path.abspath(folder), json.load(f))

    def copies(self) -> dict[str, str]:
        """Frozen folder -> its copy."""
        return {root: os.path.normpath(os.path.join(self.folder, copy)) for root, copy in self.facts["frozen"].items()}

    def objects(self) -> dict[str, Any]:
        """The pickled half: configuration, callbacks and, without an entry, the function itself.

        To be called once the app is imported: its classes are pickled by reference.
        """
        with open(os.path.join(self.folder, "payload.pkl"), "rb") as f:
            objects: dict[str, Any] = pickle.load(f)  # noqa: S301 - written by our own launcher, mode 0600
        return objects


@dataclass(frozen=True)
class App:
    """A task function ready to be called, with what Hydra's `run_job` needs beside it."""

    function: Callable[[Any], Any]
    hydra_context: Any
    composer: Composer
    texts: YamlTexts
    places: Places | None
    """where the launcher's folders are here; None: where they are there"""

    def compose(self, overrides: Sequence[str], index: int, *, last: bool) -> Any:
        """The configuration of a task, as `hsm_core.remote.compose` makes it, with its paths as they are here."""
        config = self.composer.compose(overrides, index, last=last)
        if self.places is not None:
            self.places.move(config)
        return config

    def prepare(self, overrides: Sequence[str]) -> None:
        """Do now what the task with these overrides shares with others, so that forked children find it done."""
        from hsm_core.remote.clone import clone
        from hsm_core.remote.lean import parse_ahead

        base = self.composer.prepare(overrides)
        if base is not None:
            if self.places is not None:
                base = clone(base)
                self.places.move(base)
            self.texts.text(base)
            for part in ("job_logging", "sweep", "job"):
                parse_ahead(base.hydra._get_node(part))


Then = Callable[[App], NoReturn]


def reach(payload: Payload, then: Then) -> None:
    """Import the app and call `then` with it at the point where Hydra would take over.

    `then` must not return. Raises EntryError where the entry does not get there.
    """
    facts = payload.facts
    entry = facts["entry"]
    os.chdir(entry["cwd"])
    frozen = Frozen(payload.copies())
    frozen.freeze_imports()
    if entry["kind"] == "value":
        # On another machine only the project's own folders are where they are called so.
        sys.path[:] = [*entry["path"], *(sys.path if "places" in facts else ())]
        objects = payload.objects()
        if "places" in facts:
            plugin_configs.restore(objects["stored"])
        else:
            from hydra.core.singleton import Singleton

            Singleton.set_state(pickle.loads(objects["singletons"]))  # noqa: S301 - as above
        frozen.freeze_configs()
        then(_app(payload, objects["function"], objects))

    def reached(function: Any) -> NoReturn:
        # The app may have changed folders on its way here, as it did in the launcher.
        os.chdir(facts["cwd"])
        frozen.freeze_configs()
        then(_app(payload, function, payload.objects()))

    _run_entry(entry, frozen, reached)


def _run_entry(entry: Mapping[str, Any], frozen: Frozen, reached: Callable[[Any], NoReturn]) -> None:
    import hydra.main  # noqa: F401 - `hydra.main` the name is the decorator

    hydra_main = sys.modules["hydra.main"]

    passed: list[str] = []

    def take_over(*args: Any, **kwargs: Any) -> None:
        function = kwargs["task_function"]
        name = function_name(function)
        if name == entry["function"]:
            reached(function)
        # The launcher is beyond this one already: an app may have several, one after the other.
        passed.append(name)

    hydra_main._run_hydra = take_over  # type: ignore[attr-defined]
    main = ModuleType("__main__")
    sys.modules["__main__"] = main
    sys.argv = [entry["argv0"], *entry["args"]]
    try:
        code = _prepare_main(main, entry, frozen)
        exec(code, main.__dict__)  # noqa: S102 - the app's own entry
    except EntryError:
        raise
    except BaseException as e:
        what = describe.failure(e)["message"]
        raise EntryError(f"the app failed while it was imported: {what}\n{_traceback(e)}") from e
    seen = f"; on its way there were {', '.join(passed)}" if passed else ""
    raise EntryError(f"the app ended before it reached its @hydra.main function {entry['function']}{seen}")


def _prepare_main(main: ModuleType, entry: Mapping[str, Any], frozen: Frozen) -> Any:
    """Make `main` look as Python makes `__main__` look for this entry; return its code."""
    path = entry["path"]
    if entry["kind"] == "script":
        _put_first(os.path.dirname(os.path.realpath(path)))
        main.__file__ = path
        main.__dict__["__cached__"] = None
        main.__loader__ = importlib.machinery.SourceFileLoader("__main__", path)
        return compile(frozen.read(path), path, "exec", dont_inherit=True)
    _put_first(os.getcwd())
    spec = importlib.util.find_spec(entry["name"])
    loader: Any = None if spec is None else spec.loader
    code = None if spec is None or loader is None else loader.get_code(spec.name)
    if spec is None or code is None:
        raise EntryError(f"the app's module {entry['name']} can't be found; sys.path is {sys.path}")
    main.__spec__ = spec
    main.__file__ = spec.origin
    main.__package__ = spec.parent
    main.__loader__ = loader
    main.__dict__["__cached__"] = spec.cached
    return code


def _put_first(folder: str) -> None:
    """Put a folder where Python puts the program's own, unless it was told not to (-P, -I)."""
    if not getattr(sys.flags, "safe_path", sys.flags.isolated):
        sys.path.insert(0, folder)


def _traceback(error: BaseException) -> str:
    """The traceback from the app's first frame on."""
    tb = error.__traceback__
    while tb is not None and tb.tb_frame.f_globals.get("__name__") == __name__:
        tb = tb.tb_next
    return "".join(traceback.format_exception(type(error), error, tb)).rstrip()


def function_name(function: Any) -> str:
    """`module:qualified name` of a task function; of its class where it is a callable object."""
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}:{named.__qualname__}"


def import_hydra() -> None:
    """Import what tasks need of Hydra; it may be done before there is a payload. Raises ImportError."""
    for name in _BY_TASKS:
        importlib.import_module(name)
    with contextlib.suppress(ImportError):  # what `run_job` imports when it is called; there since Hydra 1.3.3
        importlib.import_module("hydra._internal.logging_config")


def _app(payload: Payload, function: Any, objects: Mapping[str, Any]) -> App:
    from hydra._internal.callbacks import Callbacks
    from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
    from hydra._internal.hydra import Hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import HydraContext

    from hsm_core.remote.compose import Composer
    from hsm_core.remote.lean import make_lean
    from hsm_core.remote.yaml_text import YamlTexts

    import_hydra()
    facts = payload.facts
    search_path = ConfigSearchPathImpl()
    for provider, path in facts["search_path"]:
        search_path.append(provider, path)
    GlobalHydra.instance().clear()
    hydra = Hydra.create_main_hydra2(facts["job_name"], search_path)
    plugin_configs.add(hydra.config_loader, objects["plugin_configs"])
    config = objects["config"]
    callbacks = objects["callbacks"]
    if callbacks is None:
        callbacks = Callbacks(config)
    context = HydraContext(config_loader=hydra.config_loader, callbacks=callbacks)
    if hasattr(context, "execution_whitelist"):
        context.execution_whitelist = objects["execution_whitelist"]
    texts = YamlTexts()
    make_lean(texts)
    composer = Composer(hydra.config_loader, config, objects["learnt"] if facts.get("learnt", True) else None)
    places = Places(facts["places"], facts["sweep_dir"]) if "places" in facts else None
    return App(function, context, composer, texts, places)
