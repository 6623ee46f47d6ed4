"""What the tests of SSH sources share: real hosts."""

from __future__ import annotations

from tests.testbed.fixtures import client_key, far_python, make_host, netns_host, ssh_home, ssh_host

__all__ = ["client_key", "far_python", "make_host", "netns_host", "ssh_home", "ssh_host"]
