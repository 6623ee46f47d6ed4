"""The app's code on a host: a copy of the project as it is at the start, or a folder that is there already."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Collection, Sequence
from pathlib import Path

from hsm_core.exceptions import SourceError
from hsm_core.remote.places import Places
from hsm_core.ssh.connection import Connection
from hsm_core.transfer import project
from hsm_core.transfer.transfers import Transfers

GIT_PATIENCE = 30.0
"""seconds that git over there has to name its commit"""


class Code:
    """The code for the sweep of a payload. `named`: the folder there that is to be used as it is (`project_dir`)."""

    def __init__(self, payload: Path, named: str | None, hidden: Collection[Path]) -> None:
        facts = json.loads((payload / "payload.json").read_text("utf-8"))
        tops = [root for root, copy in facts["frozen"].items() if os.path.basename(copy) == "project"]
        self._project = Path(tops[0]) if tops else None
        """the project here; None: the app is an installed package, as it must be there too"""
        self._named = named
        self._listing: project.Listing | None = None
        self._digest = ""
        if self._project is not None and named is None:
            self._listing = project.files(self._project, hidden)
            self._digest = project.digest(self._listing.files)

    def folder(self, base: str, home: str, sweep: str) -> str:
        """Where it will be, below our folder `base` there; `sweep` is the sweep's directory there."""
        if self._named is not None:
            inside = self._named[2:] if self._named.startswith("~/") else self._named
            return os.path.normpath(os.path.join(home, inside))
        if self._project is None or self._listing is None:
            return os.path.join(sweep, ".hsm", "code")
        return project.place_of(base, self._project, self._digest)

    def places(self, folder: str, directory: Path, sweep: str) -> Places:
        """What is where there: the project in `folder`, the sweep's `directory` in `sweep`."""
        ours = [] if self._project is None else [[str(self._project), folder]]
        return Places([*ours, [str(directory), sweep]], sweep)

    @property
    def made_here(self) -> bool:
        """Whether the folder is one of ours that `bring` does not make."""
        return self._named is None and self._listing is None

    @property
    def frozen(self) -> bool:
        """Whether tasks read the frozen texts of the code; not those of a folder that was named."""
        return self._named is None

    def bring(self, connection: Connection, transfers: Transfers, base: str, folder: str) -> Sequence[str]:
        """Have the code there; returns what people should know of it. Raises SourceError and SnapshotError."""
        if self._named is not None:
            return self._compare(connection, folder)
        if self._listing is None or self._project is None:
            return ()
        files, digest = self._listing.files, self._digest
        project.send_project(connection, base, self._project, files, digest, push=transfers.push)
        return [f"{what}; it does not travel" for what in self._listing.left_out]

    def _compare(self, connection: Connection, folder: str) -> Sequence[str]:
        quoted = shlex.quote(folder)
        # dash does not say why it can't go there; ls does, or it shows whose the folder is.
        enter = f"cd -- {quoted} 2>/dev/null || {{ LC_ALL=C ls -ld -- {quoted} >&2; exit 66; }}"
        program = connection.run(f"{enter}\ngit rev-parse HEAD 2>/dev/null || true\n")
        try:
            said = program.stdout.readline(1000).decode(errors="replace").strip()
            status = program.wait(GIT_PATIENCE)
            if status != 0:
                raise SourceError(f"project_dir {folder} can't be entered there: {program.errors().strip()[-500:]}")
        finally:
            program.close()
        ours = _commit(self._project)
        if ours is None or not said or said == ours:
            return ()
        return [f"the code in {folder} is of another commit ({said[:12]}) than that of this machine ({ours[:12]})"]


def _commit(folder: Path | None) -> str | None:
    if folder is None:
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
