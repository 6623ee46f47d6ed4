"""The hosts that the suite's ssh sources lead to."""

from __future__ import annotations

from tests.testbed.fixtures import client_key, far_python, make_host, ssh_home, ssh_host

__all__ = ["client_key", "far_python", "make_host", "ssh_home", "ssh_host"]
