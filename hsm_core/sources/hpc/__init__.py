"""Clusters behind Slurm or PBS."""
