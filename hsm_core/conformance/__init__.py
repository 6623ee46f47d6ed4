"""Parts of `hsm_core.testing`, the conformance suite for sources."""
