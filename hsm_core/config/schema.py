"""The one configuration schema: `hsm_config.yaml` and the `hydra.launcher` node are both this.

Only the shape, its defaults and its units stand here; `hsm_core.config.load` reads and checks.
Every field's default is what holds when neither file nor command line says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class SourceConfig:
    """One entry of `compute_sources`."""

    type: str
    """local, ssh, hpc, distributed (a group of others), or a third party's"""
    max_parallel_tasks: int | None = None
    """slots; None: as many as its GPUs have room for, without `gpus` one per core for local, else the type's own
    default"""
    host: str | None = None
    """ssh: a name, an address or an alias of ~/.ssh/config, with `user@` before it or not; None: the source's name.
    hpc: the login node from which the scheduler is reached; None: this machine"""
    port: int | None = None
    user: str | None = None
    ssh_key: str | None = None
    host_key_policy: str = "verify"
    """ssh: verify (an unknown host key is refused) or accept_new (that of a host never seen is added to known_hosts; a
    changed one is refused all the same)"""
    project_dir: str | None = None
    conda_env: str | None = None
    python: str | None = None
    setup: list[str] = field(default_factory=list)
    system: str | None = None
    """hpc: slurm or pbs; None: detected"""
    mode: str = "jobs"
    """hpc: jobs (each task is an element of a job array) or pilot (a few long jobs, each with an agent that takes tasks
    as they come)"""
    pilots: int = 1
    """hpc, mode pilot: jobs at a time, at most; each has its share of `max_parallel_tasks`"""
    default_resources: str | Mapping[str, Any] | None = None
    """hpc: what a task asks for unless its own `hsm.resources` says otherwise, as `nodes=1:ntasks=4:mem=32GB` or as a
    mapping of the same; in mode pilot, what each job asks for"""
    default_walltime: str | None = None
    """hpc: the time limit of a job, as `12:00:00`, `1-12:00:00` or `90m`; None: the queue's own"""
    queue: str | None = None
    """hpc: Slurm's partition, PBS's queue; None: the cluster's default"""
    account: str | None = None
    qos: str | None = None
    """hpc: Slurm's quality of service"""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """hpc: options of the scheduler by their own names: `{mail-type: END}` of Slurm, `{W: group_list=staff}` of PBS"""
    requeue: bool = False
    """hpc: whether the scheduler may start a job again by itself when it was preempted or its node failed; else hsm
    makes up for it"""
    signal_delay: int = 90
    """hpc: seconds before its time limit at which a task that catches SIGUSR2 is sent it, to save what it has; 0: it is
    not"""
    module_commands: list[str] = field(default_factory=list)
    resources: str | Mapping[str, Any] | None = None
    """hpc: the same as `default_resources`"""
    weight: float | None = None
    """share under `weighted`; None: the number of slots"""
    priority: str | int | None = None
    """high, medium, low or a number (larger is preferred); None: medium"""
    gpus: str | int | list[Any] | None = None
    """GPUs that tasks there lease: `auto` for all that are visible, how many, or a list of indices (as nvidia-smi
    counts) and UUIDs; None: tasks see all GPUs, unless `gpus_per_task` says otherwise"""
    trusted: bool | None = None
    """whether pickles from there may be read; None: only where the source shares our files"""
    sources: list[str] = field(default_factory=list)
    """distributed: the names of its members"""
    env: Mapping[str, Any] = field(default_factory=dict)
    """`pass`: names of variables to hand on (tasks of a local source get all of the launcher's anyway);
    `set`: values, which are masked wherever the configuration is shown or saved"""
    worker: str | None = None
    """fork or spawn; None: as `hydra.launcher.worker`"""
    isolation: str | None = None
    """process or reuse; None: as `hydra.launcher.isolation`"""


@dataclass(frozen=True)
class ComputeConfig:
    """Section `compute`."""

    health_check_interval: float = 300.0
    """seconds"""
    result_collection_interval: float = 60.0
    """seconds"""
    source_failure_threshold: float = 0.4
    """fraction of a source's tasks"""
    health_check_failure_threshold: int = 3
    """consecutive failed checks"""
    auto_disable_unhealthy_sources: bool = True
    retry_attempts: int = 0
    """how often a task that failed with `error` is tried again"""
    retry_delay: float = 0.0
    """seconds before a retry"""
    exponential_backoff: bool = False
    """double the delay with every retry of a task, up to an hour"""
    unreachable_timeout: float = 600.0
    """seconds that a source may be out of reach before its running tasks are given to others"""
    orphan_timeout: float = 3600.0
    """seconds after which an agent on a host ends that has neither a launcher nor a task"""
    ssh_compression: bool = False
    rsync_compression: bool = False


@dataclass(frozen=True)
class OomRetry:
    """`retry.oom`: what happens to a task that ran out of memory."""

    times: int = 0
    mem: str | None = None
    """`x2`: each retry gets so many times the memory of the attempt before"""
    max: str | int | None = None
    """no attempt gets more than this, as `64GB` or in MiB; one that had it already is not retried"""


@dataclass(frozen=True)
class RetryConfig:
    """Section `retry`: how often a task is tried again, by the cause of its failure."""

    error: int | None = None
    """None: as `compute.retry_attempts`"""
    timeout: int = 0
    oom: int | OomRetry = 0
    lost: int = 3
    """the task is given up when it has taken so many workers down with it"""


@dataclass(frozen=True)
class ResultCollectionConfig:
    """Section `result_collection`."""

    batch_size: int = 10
    parallel_transfers: int = 4
    immediate_error_collection: bool = True
    continuous_sync: bool = True
    cleanup_remote_on_success: bool = False


@dataclass(frozen=True)
class LoggingConfig:
    """Section `logging`."""

    level: str = "INFO"
    file_logging: bool = True
    source_specific_logs: bool = True
    aggregated_logs: bool = True
    max_output: str | int = "256MB"
    """size that a task's stdout.log and stderr.log may have each, as `1GB` or in MiB; 0: no limit"""


@dataclass(frozen=True)
class HsmConfig:
    """All of it. Sections are those of hsm_config.yaml; the rest is about one sweep."""

    compute_sources: Mapping[str, SourceConfig] = field(default_factory=dict)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    retry: RetryConfig = field(default_factory=RetryConfig)
    result_collection: ResultCollectionConfig = field(default_factory=ResultCollectionConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    config_file: str | None = None
    """path of an hsm_config.yaml; None: looked for in the usual places"""
    sweep_file: str | None = None
    """the sweep.yaml in which the values of `env.set` are looked up; given by `hsm run`"""
    sources: str = "all"
    """which sources to use, as for `--sources`"""
    strategy: str | None = None
    """a name, `file.py:Class`, a dotted path or an entry point; None: `priority` where the selection gives
    priorities, else round_robin"""
    dependency: str | None = None
    """what jobs on clusters wait for, in the scheduler's words: `afterok:12345`; until the first of them has started"""
    seed: int | None = None
    """of the random strategy; None: different in every sweep"""
    worker: str = "fork"
    """fork (from a process that imported the app once) or spawn (a new interpreter a task)"""
    isolation: str = "process"
    """process (each task has one of its own) or reuse (tasks that complete leave theirs to later ones)"""
    timeout: float | None = None
    """seconds a task may run; None: no limit"""
    grace: float = 10.0
    """seconds between SIGTERM and SIGKILL"""
    stream: bool = False
    """show the tasks' output on the terminal"""
    raise_on_failure: bool = True
    """False: a failed task's return value is None instead of raising"""
    fail_fast: float | None = None
    """stop the sweep after this many failed tasks (1 or more) or this fraction of all (below 1)"""
    on_existing: str = "refuse"
    """refuse, resume or overwrite a sweep that the directory holds already"""
    on_interrupt: str = "cancel"
    """what SIGINT and SIGTERM do: `cancel` ends all running tasks, `detach` leaves those running that don't need
    the launcher; tasks of local sources do"""
    resume: bool = False
    retry_failed: bool = False
    """with resume: run failed tasks again too"""
    tasks: str | None = None
    """with resume: only these, e.g. `task_050:task_100`"""
    takeover: bool = False
    """with resume: take the sweep from a launcher that may still live"""
    accept_config_change: bool = False
    """with resume: use a configuration that differs from the recorded one for what is left"""
    original_code: bool = False
    """with resume: run what is left with the code and configuration of the sweep's start"""
    dry_run: bool = False
    """show what would be run, and run nothing"""
    threads_per_task: int | None = None
    """OMP_NUM_THREADS and its kin; None: cores divided by slots"""
    gpus_per_task: float | None = None
    """GPUs a task has to itself, or the fraction of one that it shares; it sees no others, and with 0 none.
    None: 1 on sources with `gpus`, elsewhere tasks see all GPUs"""
    memory_per_task: str | int | None = None
    """memory a task may use, as `4GB` or in MiB; None: no limit. A cluster is asked for it where nothing else says how
    much"""


SOURCE_KINDS = ("local", "ssh", "hpc")
"""The types of source hsm brings along; `hsm.sources` entry points add others."""
