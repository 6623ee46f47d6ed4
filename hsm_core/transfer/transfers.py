"""Moving trees of files to and from one host: by rsync where both ends have it, else by SFTP."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hsm_core.exceptions import NoRsync
from hsm_core.ssh.connection import Connection
from hsm_core.transfer import rsync, sftp, sftp_push
from hsm_core.transfer.rsync import Moved

log = logging.getLogger(__name__)


class Transfers:
    """What is said of `pull` and `push` in `hsm_core.transfer.rsync` holds here, but for NoRsync."""

    def __init__(self, connection: Connection, *, compress: bool) -> None:
        self._connection = connection
        self._compress = compress
        self._rsync = True

    def pull(self, remote: str, names: Sequence[str], into: Path) -> Moved:
        """Bring what stands below these names in the folder `remote` to the same names below `into`."""
        if self._rsync:
            try:
                return rsync.pull(self._connection, remote, names, into, compress=self._compress)
            except NoRsync as e:
                self._do_without(e)
        return sftp.pull(self._connection, remote, names, into)

    def push(self, connection: Connection, local: Path, names: Sequence[str], remote: str, **how: Any) -> Moved:
        """Bring what stands below these names in the folder `local` to the same names below `remote`."""
        how["compress"] = self._compress
        if self._rsync:
            try:
                return rsync.push(connection, local, names, remote, **how)
            except NoRsync as e:
                self._do_without(e)
        return sftp_push.push(connection, local, names, remote, **how)

    def _do_without(self, why: NoRsync) -> None:
        self._rsync = False
        log.info("%s; files are transferred by SFTP, which takes longer", why)
