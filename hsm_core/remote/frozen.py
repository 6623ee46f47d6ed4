"""The snapshot in use: imports and configuration files are read from their frozen copies.

A module keeps its real `__file__`, so that data files beside it are found; only the text
comes from the copy. What the snapshot does not hold is read from where it is.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import linecache
import os
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any


class Frozen:
    """Which folders are frozen, and where their copies are."""

    def __init__(self, roots: Mapping[str, str]) -> None:
        self._roots = sorted(((os.path.abspath(r), c) for r, c in roots.items()), key=lambda p: -len(p[0]))

    def copy_of(self, path: str) -> str | None:
        """The frozen copy of a file or folder, by any of its names; None where there is none."""
        for name in dict.fromkeys((os.path.abspath(path), os.path.realpath(path))):
            for root, copy in self._roots:
                if name == root or name.startswith(root + os.sep):
                    target = os.path.normpath(os.path.join(copy, os.path.relpath(name, root)))
                    return target if os.path.exists(target) else None
        return None

    def read(self, path: str) -> bytes:
        """The frozen text of a source file, or its text of today where it is not frozen."""
        with open(self.copy_of(path) or path, "rb") as f:
            text = f.read()
        _keep_lines(path, text)
        return text

    def freeze_imports(self) -> None:
        """From now on imports read the copies."""
        sys.path_hooks.insert(0, self._path_hook)
        sys.path_importer_cache.clear()

    def freeze_configs(self) -> None:
        """From now on Hydra's configuration sources read the copies.

        To be called where Hydra would begin: it looks for plugins now, those of the app among them.
        """
        from hydra._internal.sources_registry import SourcesRegistry
        from hydra.core.plugins import Plugins

        Plugins.instance()
        SourcesRegistry.instance().types.update(_config_sources(self))

    def freeze_loader(self, loader: Any) -> None:
        """From now on one of Hydra's config loaders reads the copies, and no other in this process does."""
        types = _config_sources(self)
        sources = loader.repository.sources
        for place, source in enumerate(sources):
            kind = types.get(source.scheme())
            if kind is not None:
                sources[place] = kind(source.provider, f"{source.scheme()}://{source.path}")

    def _path_hook(self, path: str) -> FrozenFinder:
        copy = self.copy_of(path or os.getcwd())
        if copy is None or not os.path.isdir(copy):
            raise ImportError(f"{path} is not frozen")
        return FrozenFinder(path or os.getcwd(), copy)


class FrozenFinder:
    """Finds the modules of one folder: those of its copy first, then those of the folder."""

    def __init__(self, folder: str, copy: str) -> None:
        self.path = folder
        self._copy_path = copy
        sources = (importlib.machinery.SourceFileLoader, importlib.machinery.SOURCE_SUFFIXES)
        self._copy = importlib.machinery.FileFinder(copy, sources)
        self._folder = importlib.machinery.FileFinder(
            folder,
            (importlib.machinery.ExtensionFileLoader, importlib.machinery.EXTENSION_SUFFIXES),
            sources,
            (importlib.machinery.SourcelessFileLoader, importlib.machinery.BYTECODE_SUFFIXES),
        )

    def find_spec(self, name: str, target: ModuleType | None = None) -> importlib.machinery.ModuleSpec | None:
        frozen = self._copy.find_spec(name, target)
        if frozen is None or frozen.loader is None or frozen.origin is None:
            return self._folder.find_spec(name, target)
        origin = os.path.join(self.path, os.path.relpath(frozen.origin, self._copy_path))
        package = frozen.submodule_search_locations is not None
        return importlib.util.spec_from_file_location(
            name,
            origin,
            loader=FrozenLoader(name, origin, frozen.origin),
            submodule_search_locations=[os.path.dirname(origin)] if package else None,
        )

    def iter_modules(self, prefix: str = "") -> Iterator[tuple[str, bool]]:
        """Names of the folder's modules and whether each is a package, for `pkgutil.iter_modules`."""
        listed = pkgutil.iter_importer_modules  # type: ignore[attr-defined]
        return iter({**dict(listed(self._folder, prefix)), **dict(listed(self._copy, prefix))}.items())

    def invalidate_caches(self) -> None:
        self._copy.invalidate_caches()
        self._folder.invalidate_caches()


class FrozenLoader(importlib.machinery.SourceFileLoader):
    """Loads the copy under the original's path; the original's bytecode is used while it fits."""

    def __init__(self, name: str, path: str, copy: str) -> None:
        super().__init__(name, path)
        self._copy = copy

    def exec_module(self, module: ModuleType) -> None:
        _keep_lines(self.path, self.get_data(self.path))
        super().exec_module(module)

    def get_data(self, path: str) -> bytes:
        return super().get_data(self._copy if path == self.path else path)

    def path_stats(self, path: str) -> Mapping[str, Any]:
        return super().path_stats(self._copy if path == self.path else path)

    def set_data(self, path: str, data: Any, *, _mode: int = 0o666) -> None:
        """Write no bytecode: the original may have another text by now."""


def _keep_lines(path: str, text: bytes) -> None:
    """Have tracebacks and `inspect.getsource` show these lines, whatever the file holds by then."""
    try:
        lines = importlib.util.decode_source(text).splitlines(keepends=True)
    except (SyntaxError, UnicodeDecodeError):
        return  # the import is about to say so
    linecache.cache[path] = (len(text), None, lines, path)


def _config_sources(frozen: Frozen) -> dict[str, Any]:
    """Hydra's configuration sources by their schemes, as classes that read the copies."""
    # Hydra is imported here only: the agent uses this package on a bare interpreter.
    from hydra._internal.core_plugins.file_config_source import FileConfigSource as HydraFiles
    from hydra._internal.core_plugins.importlib_resources_config_source import (
        ImportlibResourcesConfigSource as HydraPackages,
    )
    from hydra.plugins.config_source import ConfigResult

    class FromCopy:
        """Reads one source's folder from its copy first, and calls it by the source's own path."""

        scheme: Any
        path: str
        provider: str
        _files: HydraFiles | None = None

        def _use(self, folder: str | None) -> None:
            copy = None if folder is None else frozen.copy_of(folder)
            self._files = None if copy is None else HydraFiles(self.provider, f"file://{copy}")

        def available(self) -> bool:
            return self._files is not None or super().available()  # type: ignore[misc]

        def load_config(self, config_path: str) -> ConfigResult:
            if self._files is None or not self._files.is_config(config_path):
                return super().load_config(config_path)  # type: ignore[misc,no-any-return]
            result = self._files.load_config(config_path)
            result.path = f"{self.scheme()}://{self.path}"
            return result

        def is_group(self, config_path: str) -> bool:
            frozen_group = self._files is not None and self._files.is_group(config_path)
            return frozen_group or super().is_group(config_path)  # type: ignore[misc]

        def is_config(self, config_path: str) -> bool:
            frozen_config = self._files is not None and self._files.is_config(config_path)
            return frozen_config or super().is_config(config_path)  # type: ignore[misc]

        def list(self, config_path: str, results_filter: Any) -> Any:
            if self._files is None or not self._files.is_group(config_path):
                return super().list(config_path, results_filter)  # type: ignore[misc]
            return self._files.list(config_path, results_filter)

    # The registry tells classes apart by name and refuses a second name for a scheme: hence the
    # names of Hydra's own classes.
    class FileConfigSource(FromCopy, HydraFiles):
        def __init__(self, provider: str, path: str) -> None:
            super().__init__(provider, path)
            self._use(self.path)

    class ImportlibResourcesConfigSource(FromCopy, HydraPackages):
        def __init__(self, provider: str, path: str) -> None:
            super().__init__(provider, path)
            self._use(_package_folder(self.path))

    return {"file": FileConfigSource, "pkg": ImportlibResourcesConfigSource}


def _package_folder(name: str) -> str | None:
    try:
        spec = importlib.util.find_spec(name) if name else None
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    return next(iter(spec.submodule_search_locations))
