"""`python -m hsm_core` is `hsm`, for where the command is not on PATH."""

from hsm_core.cli import main

if __name__ == "__main__":
    main()
