"""Package metadata. Tool settings are in pyproject.toml."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import find_namespace_packages, find_packages, setup

HERE = Path(__file__).resolve().parent


def version() -> str:
    """The version as text: importing hsm_core here would need its dependencies."""
    found = re.search(
        r'^__version__ = "([^"]+)"$', (HERE / "hsm_core" / "__init__.py").read_text("utf-8"), re.MULTILINE
    )
    if found is None:
        raise SystemExit('setup.py: hsm_core/__init__.py has no line __version__ = "..."')
    return found.group(1)


setup(
    name="hydra-hsm",
    version=version(),
    description="Runs a Hydra multirun over every computer you have, and brings every result home",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    author="hsm contributors",
    license="MIT",
    license_files=["LICENSE"],
    # WHY "": makes an editable install one plain entry in sys.path, so that Hydra and type checkers find the packages.
    package_dir={"": "."},
    packages=[
        *find_namespace_packages(include=["hydra_plugins.*"]),
        *find_packages(include=["hsm_core", "hsm_core.*"]),
    ],
    package_data={"hsm_core": ["py.typed"]},
    zip_safe=False,
    python_requires=">=3.10",
    install_requires=[
        "hydra-core>=1.3",
        "omegaconf>=2.3",
        "rich>=13.0",
        "click>=8.1",
        "rich-click>=1.7",
        # WHY <3.1.3: it names the file of every function sent by value <dynamic-code>; tracebacks lose their places.
        "cloudpickle>=2.2,<3.1.3",
        "psutil>=5.9",
        "tblib>=3.0",
        "PyYAML>=6.0",
        "jinja2>=3.1",
        "msgspec>=0.21",
        "fabric>=3.2",
        # WHY >=4.0: earlier ones warn of their ciphers whenever they are imported beside a newer cryptography.
        "paramiko>=4.0",
        "cryptography>=41.0",
        # WHY 0.10: the first one whose GitIgnoreSpec lets the last pattern that fits decide, as git does.
        "pathspec>=0.10",
        # WHY 1.5.4: earlier ones look for plugins by pkg_resources, which setuptools no longer has.
        "submitit>=1.5.4",
    ],
    extras_require={
        "example": ["scikit-learn>=1.3"],
        # WHY <1.4: pip takes a pre-release of Hydra by itself for these two, which they were not made for.
        "bench": ["hydra-joblib-launcher>=1.2", "hydra-submitit-launcher>=1.2", "hydra-core<1.4"],
        # WHY <1.4: hydra-optuna-sweeper 1.3.0 accepts Hydra 1.4 pre-releases, but fails on them.
        # WHY sqlalchemy<2: the sweeper keeps Optuna below 3, whose storages can't be used with SQLAlchemy 2.
        "optuna": ["hydra-optuna-sweeper>=1.2", "hydra-core<1.4", "sqlalchemy<2"],
        "test": [
            "pytest>=8.0",
            "pytest-timeout>=2.2",
            "pytest-xdist>=3.2",
            "hypothesis>=6.90",
            "mypy>=1.11",
            "types-PyYAML",
            "types-psutil",
            "ruff>=0.8",
            "build>=1.0",
            "setuptools>=70.1",
        ],
    },
    entry_points={
        "console_scripts": ["hsm = hsm_core.cli:main", "hsm-monitor = hsm_core.cli:monitor_main"],
        "submitit": ["executor = hsm_core.pbs:PbsExecutor", "job_environment = hsm_core.pbs:PbsJobEnvironment"],
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Topic :: System :: Distributed Computing",
        "Typing :: Typed",
    ],
)
