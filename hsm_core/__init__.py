"""hsm: one Hydra sweep over every computer you have."""

__version__ = "0.1.0"
