"""Machines that are reached by SSH, and have nothing of ours."""
