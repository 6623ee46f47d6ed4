"""Hydra's view of hsm: a launcher and a sweeper."""
