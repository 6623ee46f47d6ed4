"""What runs on the compute side: agent, zygote, supervisor and worker.

    agent        one per source; talks to the launcher, starts and watches the zygote
    zygote       imports the app once, forks a supervisor per attempt
    supervisor   one per attempt: starts the worker, ends it, cleans up, writes the result record
    worker       runs the task

This package travels: it imports the standard library and, in zygote and worker, Hydra; nothing
else of hsm_core.
"""
