"""Reading the configuration: precedence, and the place and hint of everything that can be wrong."""

from __future__ import annotations

import dataclasses
import sys
import textwrap
from importlib.metadata import Distribution, DistributionFinder
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from hsm_core.config import (
    ComputeConfig,
    HsmConfig,
    LoggingConfig,
    OomRetry,
    ResultCollectionConfig,
    RetryConfig,
    SourceConfig,
)
from hsm_core.config.load import load
from hsm_core.config.rules import RULES
from hsm_core.exceptions import ConfigError


@pytest.fixture(autouse=True)
def no_config_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))


def write(folder: Path, text: str, name: str = "hsm_config.yaml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def problems(node: dict[str, Any] | None, cwd: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(node, cwd=cwd)
    return caught.value.problems


# --- what is right -------------------------------------------------------------------------------


def test_no_configuration_is_one_local_source(tmp_path: Path) -> None:
    assert load(None, cwd=tmp_path) == HsmConfig(compute_sources={"local": SourceConfig(type="local")})


def test_an_empty_file_is_no_configuration(tmp_path: Path) -> None:
    path = write(tmp_path, "# nothing yet\n")
    assert load({}, cwd=tmp_path) == dataclasses.replace(load(None, cwd=tmp_path / "other"), config_file=str(path))


MULTIPLE_SOURCES = """\
    compute_sources:
      local:
        type: local
        max_parallel_tasks: 4

      server1:
        type: ssh
        host: compute-server-1.example.com
        max_parallel_tasks: 8
        ssh_key: ~/.ssh/id_rsa
        project_dir: /home/user/project
        conda_env: myenv

      server2:
        type: ssh
        host: compute-server-2.example.com
        max_parallel_tasks: 16
        ssh_key: ~/.ssh/id_rsa
        project_dir: /home/user/project
        conda_env: myenv

      cluster:
        type: hpc
        system: slurm
        max_parallel_tasks: 32
        default_resources: "nodes=1:ntasks=4:mem=32GB"
        default_walltime: "12:00:00"
        queue: gpu
        module_commands:
          - "module load python/3.9"
          - "module load cuda/11.8"

    # Health monitoring settings
    compute:
      health_check_interval: 300  # 5 minutes
      result_collection_interval: 60  # 1 minute
      source_failure_threshold: 0.4  # Disable if 40% of tasks fail
      auto_disable_unhealthy_sources: true
    """


def test_guide_multiple_sources(tmp_path: Path) -> None:
    write(tmp_path, MULTIPLE_SOURCES)
    config = load(None, cwd=tmp_path)
    assert list(config.compute_sources) == ["local", "server1", "server2", "cluster"]
    assert config.compute_sources["server2"] == SourceConfig(
        type="ssh",
        host="compute-server-2.example.com",
        max_parallel_tasks=16,
        ssh_key="~/.ssh/id_rsa",
        project_dir="/home/user/project",
        conda_env="myenv",
    )
    assert config.compute_sources["cluster"] == SourceConfig(
        type="hpc",
        system="slurm",
        max_parallel_tasks=32,
        default_resources="nodes=1:ntasks=4:mem=32GB",
        default_walltime="12:00:00",
        queue="gpu",
        module_commands=["module load python/3.9", "module load cuda/11.8"],
    )
    assert config.compute == ComputeConfig(300.0, 60.0, 0.4, auto_disable_unhealthy_sources=True)


def test_guide_network(tmp_path: Path) -> None:
    write(
        tmp_path,
        """\
        compute:
          result_collection_interval: 300  # Collect less frequently for slow networks
          ssh_compression: true            # Enable SSH compression
          rsync_compression: true          # Enable rsync compression

        # Batch result collection
        result_collection:
          batch_size: 10                   # Collect multiple tasks at once
          parallel_transfers: 4            # Concurrent transfer streams
        """,
    )
    config = load(None, cwd=tmp_path)
    assert config.compute == ComputeConfig(
        result_collection_interval=300.0, ssh_compression=True, rsync_compression=True
    )
    assert config.result_collection == ResultCollectionConfig(batch_size=10, parallel_transfers=4)


def test_guide_flow_style_and_ssh_without_host(tmp_path: Path) -> None:
    write(
        tmp_path,
        """\
        compute_sources:
          local:     { type: local, max_parallel_tasks: 4 }
          remote:    { type: ssh, max_parallel_tasks: 8 }
          cluster:   { type: hpc, max_parallel_tasks: 32 }
          backup:    { type: ssh, max_parallel_tasks: 4 }  # Backup source
        """,
    )
    sources = load(None, cwd=tmp_path).compute_sources
    assert {name: (s.type, s.max_parallel_tasks, s.host) for name, s in sources.items()} == {
        "local": ("local", 4, None),
        "remote": ("ssh", 8, "remote"),
        "cluster": ("hpc", 32, None),
        "backup": ("ssh", 4, "backup"),
    }


def test_guide_resources_of_sources(tmp_path: Path) -> None:
    write(
        tmp_path,
        """\
        compute_sources:
          server1:
            type: ssh
            max_parallel_tasks: 8   # Don't over-allocate
            resources: "mem=16GB"   # Appropriate memory

          cluster:
            type: hpc
            max_parallel_tasks: 64  # Leverage cluster capacity
            resources: "nodes=4:ntasks=16"
        """,
    )
    sources = load(None, cwd=tmp_path).compute_sources
    assert sources["server1"].resources == "mem=16GB"
    assert sources["cluster"].resources == "nodes=4:ntasks=16"


def test_guide_health_retry_results_logging(tmp_path: Path) -> None:
    write(
        tmp_path,
        """\
        compute:
          health_check_interval: 180        # Check frequently (3 min)
          source_failure_threshold: 0.3     # Disable at 30% failure rate
          health_check_failure_threshold: 2  # Disable after 2 consecutive failures
          auto_disable_unhealthy_sources: true
          retry_attempts: 3          # Retry failed tasks
          retry_delay: 60           # Wait between retries
          exponential_backoff: true # Increase delay exponentially
        result_collection:
          immediate_error_collection: true    # Collect failures immediately
          continuous_sync: true              # Sync results during execution
          cleanup_remote_on_success: true    # Clean up remote files after sync
        logging:
          level: INFO                    # Detailed logging
          file_logging: true            # Log to files
          source_specific_logs: true    # Per-source log files
          aggregated_logs: true         # Combined log file
        """,
    )
    config = load(None, cwd=tmp_path)
    assert config.compute == ComputeConfig(
        health_check_interval=180.0,
        source_failure_threshold=0.3,
        health_check_failure_threshold=2,
        auto_disable_unhealthy_sources=True,
        retry_attempts=3,
        retry_delay=60.0,
        exponential_backoff=True,
    )
    assert isinstance(config.compute.retry_delay, float)
    assert config.result_collection == ResultCollectionConfig(cleanup_remote_on_success=True)
    assert config.logging == LoggingConfig()


def test_everything_else_a_source_and_a_sweep_can_have(tmp_path: Path) -> None:
    write(
        tmp_path,
        """\
        compute_sources:
          my-gpu.box:
            type: ssh
            host: gpu.example.com
            port: 2222
            user: jane
            python: python3.12
            setup: ['export A=${HOME}/b']
            weight: 2
            priority: high
            gpus: [0, GPU-5ad3]
            trusted: yes
            worker: spawn
            env: {pass: [WANDB_API_KEY], set: {THREADS: 4, NAME: x y}}
          both: {type: distributed, sources: [my-gpu.box, local]}
          local: {type: local, priority: 3, gpus: 2}
        strategy: weighted
        fail_fast: 0.5
        timeout: 90
        """,
    )
    config = load(None, cwd=tmp_path)
    source = config.compute_sources["my-gpu.box"]
    assert (source.weight, source.priority, source.gpus, source.trusted) == (2.0, "high", [0, "GPU-5ad3"], True)
    assert source.setup == ["export A=${HOME}/b"]
    assert source.env == {"pass": ["WANDB_API_KEY"], "set": {"THREADS": "4", "NAME": "x y"}}
    assert config.compute_sources["both"].sources == ["my-gpu.box", "local"]
    assert (config.strategy, config.fail_fast, config.timeout) == ("weighted", 0.5, 90.0)


def test_yaml_anchors_merge_and_repeat(tmp_path: Path) -> None:
    write(
        tmp_path,
        """\
        compute_sources:
          one: &server {type: ssh, port: 2222, setup: &setup [a, b]}
          two: {<<: *server, port: 22}
          three: {<<: *server, setup: *setup}
          four: &four {<<: *server, port: 4}
          five: *four
        """,
    )
    sources = load(None, cwd=tmp_path).compute_sources
    assert [s.port for s in sources.values()] == [2222, 22, 2222, 4, 4]
    assert [s.host for s in sources.values()] == ["one", "two", "three", "four", "five"]
    assert all(s.setup == ["a", "b"] for s in sources.values())


def test_all_that_a_cluster_can_have(tmp_path: Path) -> None:
    write(
        tmp_path,
        """\
        compute_sources:
          cluster:
            type: hpc
            system: slurm
            host: me@login.example.com
            port: 2222
            user: me
            ssh_key: ~/.ssh/id_rsa
            project_dir: /work/me/train
            max_parallel_tasks: 32
            default_resources: {nodes: 1, cpus-per-task: 8, mem: 32GB, gpus: a100:2}
            default_walltime: 1-12:00:00
            queue: gpu
            account: p1
            qos: long
            extra: {mail-type: [END, FAIL], nice: 10, contiguous: true}
            requeue: true
            module_commands: [module load cuda]
            conda_env: train
            setup: [ulimit -c 0]
          other: {type: hpc, system: pbs, extra: {W: group_list=staff}}
          third: {type: hpc, mode: pilot, pilots: 2, gpus: auto}
        """,
    )
    sources = load({"compute_sources": {"cluster": {"extra": {"nice": 5}}}}, cwd=tmp_path).compute_sources
    assert sources["cluster"] == SourceConfig(
        type="hpc",
        system="slurm",
        host="me@login.example.com",
        port=2222,
        user="me",
        ssh_key="~/.ssh/id_rsa",
        project_dir="/work/me/train",
        max_parallel_tasks=32,
        default_resources={"nodes": 1, "cpus-per-task": 8, "mem": "32GB", "gpus": "a100:2"},
        default_walltime="1-12:00:00",
        queue="gpu",
        account="p1",
        qos="long",
        extra={"mail-type": ["END", "FAIL"], "nice": 5, "contiguous": True},
        requeue=True,
        module_commands=["module load cuda"],
        conda_env="train",
        setup=["ulimit -c 0"],
    )
    assert sources["other"] == SourceConfig(type="hpc", system="pbs", extra={"W": "group_list=staff"})
    assert (sources["other"].mode, sources["other"].requeue) == ("jobs", False)
    assert sources["third"] == SourceConfig(type="hpc", mode="pilot", pilots=2, gpus="auto")


def test_a_walltime_without_quotes_stays_text(tmp_path: Path) -> None:
    write(tmp_path, "compute_sources: {c: {type: hpc, default_walltime: 12:00:00}}\n")
    assert load(None, cwd=tmp_path).compute_sources["c"].default_walltime == "12:00:00"


def test_environment_variables_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPU_HOST", "gpu7")
    write(tmp_path, "compute_sources: {c: {type: ssh, host: '${oc.env:GPU_HOST}', user: '${oc.env:NO_SUCH,me}'}}\n")
    source = load(None, cwd=tmp_path).compute_sources["c"]
    assert (source.host, source.user) == ("gpu7", "me")


@pytest.mark.parametrize("host", ["me@there", "me.too@there.example.com", "there", "10.0.0.7", "fe80::1%eth0", "[::1]"])
def test_hosts_with_and_without_a_user(tmp_path: Path, host: str) -> None:
    write(tmp_path, f"compute_sources: {{c: {{type: ssh, host: '{host}', host_key_policy: accept_new}}}}\n")
    source = load(None, cwd=tmp_path).compute_sources["c"]
    assert (source.host, source.host_key_policy) == (host, "accept_new")


# --- which one holds -----------------------------------------------------------------------------


def test_the_node_wins_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    path = write(tmp_path, MULTIPLE_SOURCES)
    config = load(
        {
            "_target_": "hydra_plugins.hydra_hsm.launcher.HsmLauncher",
            "compute_sources": {
                "server1": {"max_parallel_tasks": 2, "host": None},
                "cluster": {"module_commands": ["module load python/3.12"]},
                "extra": {"type": "local"},
            },
            "compute": {"source_failure_threshold": 1, "retry_attempts": None},
            "logging": None,
            "strategy": "random",
            "timeout": None,
        },
        cwd=tmp_path,
    )
    assert list(config.compute_sources) == ["local", "server1", "server2", "cluster", "extra"]
    assert config.compute_sources["server1"].max_parallel_tasks == 2
    assert config.compute_sources["server1"].host == "compute-server-1.example.com"
    assert config.compute_sources["cluster"].module_commands == ["module load python/3.12"]
    assert config.compute_sources["cluster"].queue == "gpu"
    assert config.compute == ComputeConfig(source_failure_threshold=1.0)
    assert config.strategy == "random"
    assert config.timeout is None
    assert config.config_file == str(path)


def test_env_is_merged_by_variable(tmp_path: Path) -> None:
    write(tmp_path, "compute_sources: {local: {type: local, env: {pass: [A], set: {X: one, Y: two}}}}\n")
    config = load({"compute_sources": {"local": {"env": {"set": {"Y": "three"}}}}}, cwd=tmp_path)
    assert config.compute_sources["local"].env == {"pass": ["A"], "set": {"X": "one", "Y": "three"}}


def test_where_the_file_is_looked_for(tmp_path: Path) -> None:
    cwd, app, user = tmp_path / "cwd", tmp_path / "app", tmp_path / "xdg" / "hsm"
    cwd.mkdir()
    write(user, "strategy: weighted\n", "config.yaml")
    assert load(None, cwd=cwd, app_dir=app).strategy == "weighted"
    write(app, "strategy: random\n")
    assert load(None, cwd=cwd, app_dir=app).strategy == "random"
    assert load(None, cwd=cwd).strategy == "weighted"
    write(cwd, "strategy: priority\n")
    assert load(None, cwd=cwd, app_dir=app).strategy == "priority"


def test_the_home_directory_without_xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME")
    write(tmp_path / "home/.config/hsm", "strategy: weighted\n", "config.yaml")
    assert load(None, cwd=tmp_path).strategy == "weighted"


def test_a_named_file_is_the_only_one_read(tmp_path: Path) -> None:
    write(tmp_path, "strategy: weighted\ntimeout: 5\n")
    named = write(tmp_path / "conf", "strategy: random\n", "other.yaml")
    config = load({"config_file": "conf/other.yaml"}, cwd=tmp_path)
    assert (config.strategy, config.timeout, config.config_file) == ("random", None, str(named))


def test_retry_of_both_places(tmp_path: Path) -> None:
    (tmp_path / "hsm_config.yaml").write_text("retry: {lost: 5, timeout: 1, oom: 2}\n")
    unset = {"error": None, "timeout": None, "lost": None, "oom": {"times": None, "mem": None, "max": None}}
    assert load({"retry": unset}, cwd=tmp_path).retry == RetryConfig(lost=5, timeout=1, oom=2)
    own = {**unset, "timeout": 3, "oom": {"times": 1, "mem": "x2", "max": None}}
    assert load({"retry": own}, cwd=tmp_path).retry == RetryConfig(lost=5, timeout=3, oom=OomRetry(1, "x2"))


# --- what is wrong -------------------------------------------------------------------------------

BAD_FILES = [
    # unknown keys
    ("compute_sources:\n  s:\n    type: ssh\n    max_paralel_tasks: 8\n",
     "hsm_config.yaml:4: compute_sources.s.max_paralel_tasks: unknown key; did you mean max_parallel_tasks?"),
    ("compute:\n  retries: 3\n  Retry_Delay: 3\n",
     "hsm_config.yaml:3: compute.Retry_Delay: unknown key; did you mean retry_delay?"),
    ("\nzzz: 1\n", "hsm_config.yaml:2: zzz: unknown key"),
    ("max_parallel_tasks: 8\n",
     "hsm_config.yaml:1: max_parallel_tasks: unknown key here; it belongs to compute_sources.<name>"),
    ("logging: {retry_attempts: 8}\n",
     "hsm_config.yaml:1: logging.retry_attempts: unknown key here; it belongs to compute"),
    ("server1:\n  max_parallel_tasks: 8\n  resources: mem=16GB\n",
     "hsm_config.yaml:1: server1: unknown key here; a source belongs to compute_sources"),
    ("config_file: other.yaml\n", "hsm_config.yaml:1: config_file: can't be set in the file itself"),
    # types
    ('compute:\n  health_check_interval: "300"\n',
     "hsm_config.yaml:2: compute.health_check_interval: must be a number, not the text '300'; write 300"),
    ("compute: {retry_delay: 1e3}\n",
     "hsm_config.yaml:1: compute.retry_delay: must be a number, not the text '1e3'; write 1000"),
    ("compute: {retry_attempts: true}\n",
     "hsm_config.yaml:1: compute.retry_attempts: must be a whole number, not true"),
    ("compute: {retry_attempts: 3.0}\n",
     "hsm_config.yaml:1: compute.retry_attempts: must be a whole number, not the number 3.0; write 3"),
    ("compute: {retry_delay: .inf}\n",
     "hsm_config.yaml:1: compute.retry_delay: must be a number, not the number inf"),
    ("compute: {ssh_compression: 1}\n",
     "hsm_config.yaml:1: compute.ssh_compression: must be true or false, not the number 1"),
    ('stream: "True"\n', "hsm_config.yaml:1: stream: must be true or false, not the text 'True'; write true"),
    ("compute_sources: {c: {type: hpc, queue: no}}\n",
     "hsm_config.yaml:1: compute_sources.c.queue: must be text, not false; put it in quotes"),
    ("compute_sources: {c: {type: hpc, default_walltime: 30}}\n",
     "hsm_config.yaml:1: compute_sources.c.default_walltime: must be text, not the number 30; put it in quotes"),
    ("compute_sources: {c: {type: hpc, module_commands: module load a}}\n",
     'hsm_config.yaml:1: compute_sources.c.module_commands: must be a list, not the text \'module load a\'; '
     'write ["module load a"]'),
    ("compute_sources:\n  c:\n    type: hpc\n    setup:\n      - a\n      - 7\n",
     "hsm_config.yaml:6: compute_sources.c.setup[1]: must be text, not the number 7; put it in quotes"),
    ("sources: [local, spare]\n", 'hsm_config.yaml:1: sources: must be text, not a list; write "local,spare"'),
    ("compute: 5\n", "hsm_config.yaml:1: compute: must be a mapping of keys to values, not the number 5"),
    ("compute_sources: [local]\n", "hsm_config.yaml:1: compute_sources: must be a mapping of keys to values"),
    ("compute_sources:\n  local: 4\n",
     "hsm_config.yaml:2: compute_sources.local: must be a mapping of keys to values, not the number 4"),
    ("- local\n", "hsm_config.yaml:1: must be a mapping of keys to values, not a list"),
    # values
    ("worker: thread\n", "hsm_config.yaml:1: worker: must be one of fork, spawn, not the text 'thread'"),
    ("on_existing: resum\n",
     "hsm_config.yaml:1: on_existing: must be one of refuse, resume, overwrite, not the text 'resum'; "
     "did you mean resume?"),
    ("on_interrupt: kill\n",
     "hsm_config.yaml:1: on_interrupt: must be one of cancel, detach, not the text 'kill'"),
    ("logging: {level: info}\n",
     "hsm_config.yaml:1: logging.level: must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL, not the text 'info'; "
     "did you mean INFO?"),
    ("compute: {source_failure_threshold: 40}\n",
     "hsm_config.yaml:1: compute.source_failure_threshold: must be between 0 and 1, not 40"),
    ("dependency: 'afterok:1; rm -rf /'\n",
     "hsm_config.yaml:1: dependency: must be a dependency in the scheduler's words, as afterok:12345 or singleton, not "
     "the text 'afterok:1; rm -rf /'"),
    ("fail_fast: 0\n", "hsm_config.yaml:1: fail_fast: must be more than 0, not 0"),
    ("fail_fast: 2.5\n", "hsm_config.yaml:1: fail_fast: must be a whole number or a fraction below 1, not 2.5"),
    ("gpus_per_task: 1.5\n",
     "hsm_config.yaml:1: gpus_per_task: must be a whole number or a fraction below 1, not 1.5"),
    ("strategy: ''\n", "hsm_config.yaml:1: strategy: must not be empty"),
    ("compute_sources: {c: {type: hpc, system: slrum}}\n",
     "hsm_config.yaml:1: compute_sources.c.system: must be one of slurm, pbs, not the text 'slrum'; "
     "did you mean slurm?"),
    ("compute_sources: {c: {type: local, max_parallel_tasks: 0}}\n",
     "hsm_config.yaml:1: compute_sources.c.max_parallel_tasks: must be 1 or more, not 0"),
    ("compute_sources: {c: {type: ssh, port: 70000}}\n",
     "hsm_config.yaml:1: compute_sources.c.port: must be between 1 and 65535, not 70000"),
    ("compute_sources: {c: {type: ssh, host: -oProxyCommand=x}}\n",
     "hsm_config.yaml:1: compute_sources.c.host: the text '-oProxyCommand=x' is no host name, address or ssh alias"),
    ("compute_sources: {c: {type: ssh, host: me@-oProxyCommand=x}}\n",
     "hsm_config.yaml:1: compute_sources.c.host: the text 'me@-oProxyCommand=x' is no host name, address or ssh alias"),
    ("compute_sources: {c: {type: ssh, host: -me@there}}\n",
     "hsm_config.yaml:1: compute_sources.c.host: the text '-me' is no name of a user"),
    ("compute_sources: {c: {type: ssh, host: '@there'}}\n",
     "hsm_config.yaml:1: compute_sources.c.host: the text '' is no name of a user"),
    ("compute_sources: {c: {type: ssh, host: 'there:22'}}\n",
     "hsm_config.yaml:1: compute_sources.c.host: the text 'there:22' is no host name, address or ssh alias; "
     "write host and port as two keys"),
    ("compute_sources: {c: {type: ssh, host: me@there, user: you}}\n",
     "hsm_config.yaml:1: compute_sources.c.user: is 'you', but its host says 'me'; keep one of them"),
    ("compute_sources: {c: {type: ssh, host_key_policy: accept-new}}\n",
     "hsm_config.yaml:1: compute_sources.c.host_key_policy: must be one of verify, accept_new, not the text "
     "'accept-new'; did you mean accept_new?"),
    ("compute_sources: {c: {type: ssh, user: '-l'}}\n",
     "hsm_config.yaml:1: compute_sources.c.user: the text '-l' is no name of a user"),
    ("compute_sources: {c: {type: local, priority: hihg}}\n",
     "hsm_config.yaml:1: compute_sources.c.priority: must be high, medium, low or a whole number, "
     "not the text 'hihg'; did you mean high?"),
    ("compute_sources: {c: {type: local, priority: '5'}}\n",
     "hsm_config.yaml:1: compute_sources.c.priority: must be high, medium, low or a whole number, "
     "not the text '5'; write 5"),
    ("compute_sources:\n  c:\n    type: local\n    gpus:\n    - 0\n    - -1\n",
     "hsm_config.yaml:6: compute_sources.c.gpus[1]: the number -1 is no index or UUID of a GPU"),
    ("compute_sources: {c: {type: local, gpus: ['0']}}\n",
     "hsm_config.yaml:1: compute_sources.c.gpus[0]: the text '0' is no index or UUID of a GPU; write 0"),
    ("compute_sources: {c: {type: local, gpus: atuo}}\n",
     "hsm_config.yaml:1: compute_sources.c.gpus: must be auto, a number of GPUs, or a list of indices or UUIDs, "
     "not the text 'atuo'; did you mean auto?"),
    ("compute_sources: {c: {type: local, gpus: '2'}}\n",
     "hsm_config.yaml:1: compute_sources.c.gpus: must be auto, a number of GPUs, or a list of indices or UUIDs, "
     "not the text '2'; write 2"),
    ("compute_sources: {c: {type: local, gpus: GPU-5ad3}}\n",
     "hsm_config.yaml:1: compute_sources.c.gpus: must be auto, a number of GPUs, or a list of indices or UUIDs, "
     "not the text 'GPU-5ad3'; write [GPU-5ad3]"),
    ("compute_sources: {c: {type: local, gpus: -1}}\n",
     "hsm_config.yaml:1: compute_sources.c.gpus: must be auto, a number of GPUs, or a list of indices or UUIDs, "
     "not the number -1"),
    # clusters
    ("compute_sources: {c: {type: hpc, mode: pilots}}\n",
     "hsm_config.yaml:1: compute_sources.c.mode: must be one of jobs, pilot, not the text 'pilots'; "
     "did you mean pilot?"),
    ("compute_sources: {c: {type: hpc, requeue: 'yes'}}\n",
     "hsm_config.yaml:1: compute_sources.c.requeue: must be true or false, not the text 'yes'"),
    ("compute_sources: {c: {type: hpc, default_resources: 4}}\n",
     "hsm_config.yaml:1: compute_sources.c.default_resources: must be text or a mapping, not the number 4; "
     "put it in quotes"),
    ('compute_sources:\n  c:\n    type: hpc\n    default_resources: "nodes=1:mmem=4GB"\n',
     "hsm_config.yaml:4: compute_sources.c.default_resources: there is no resource 'mmem'; did you mean mem?"),
    ("compute_sources:\n  c:\n    type: hpc\n    default_resources:\n      nodes: 1\n      mem: lots\n",
     "hsm_config.yaml:6: compute_sources.c.default_resources.mem: the text 'lots' is no size; write for example"),
    ("compute_sources: {c: {type: ssh, resources: 'mem=lots'}}\n",
     "hsm_config.yaml:1: compute_sources.c.resources: mem: the text 'lots' is no size"),
    ("compute_sources: {c: {type: hpc, default_walltime: '90'}}\n",
     "hsm_config.yaml:1: compute_sources.c.default_walltime: the text '90' has no unit; write 90m for minutes"),
    ("compute_sources: {c: {type: hpc, queue: 'gpu --wrap'}}\n",
     "hsm_config.yaml:1: compute_sources.c.queue: must be a word without spaces, not the text 'gpu --wrap'"),
    ("compute_sources: {c: {type: hpc, extra: [--nice]}}\n",
     "hsm_config.yaml:1: compute_sources.c.extra: must be a mapping of keys to values"),
    ("compute_sources:\n  c:\n    type: hpc\n    extra:\n      nice: 1\n      mem: 4GB\n",
     "hsm_config.yaml:6: compute_sources.c.extra.mem: belongs to default_resources, as mem=..."),
    ("compute_sources:\n  c:\n    type: local\n    queue: gpu\n",
     "hsm_config.yaml:4: compute_sources.c.queue: only a source of type hpc has it, and this one is of type local"),
    ("compute_sources: {c: {type: ssh, extra: {nice: 1}}}\n",
     "hsm_config.yaml:1: compute_sources.c.extra: only a source of type hpc has it, and this one is of type ssh"),
    ("compute_sources:\n  c:\n    type: local\n    host: there\n",
     "hsm_config.yaml:4: compute_sources.c.host: a local source is this machine; "
     "one that is reached by SSH is of type ssh"),
    ("compute_sources:\n  c:\n    type: hpc\n    port: 2222\n",
     "hsm_config.yaml:4: compute_sources.c.port: means nothing without host, the login node that is reached by SSH"),
    ("compute_sources:\n  c:\n    type: hpc\n    mode: pilot\n    host: there\n",
     "hsm_config.yaml:5: compute_sources.c.host: pilots are reached by TCP from a node of the cluster: "
     "start the sweep there, or leave mode out"),
    ("compute_sources:\n  c:\n    type: hpc\n    gpus: 2\n",
     "hsm_config.yaml:4: compute_sources.c.gpus: in mode jobs the scheduler gives tasks their GPUs; "
     "write for example default_resources: gpus=1"),
    ("compute_sources:\n  c:\n    type: hpc\n    default_resources: mem=4GB\n    resources: mem=4GB\n",
     "hsm_config.yaml:5: compute_sources.c.resources: says the same as default_resources; keep one of them"),
    ("compute_sources:\n  c:\n    type: hpc\n    resources: walltime=1h\n    default_walltime: 2h\n",
     "hsm_config.yaml:5: compute_sources.c.default_walltime: resources says 'walltime' too; keep one of them"),
    ("compute_sources:\n  c:\n    type: hpc\n    system: pbs\n    default_resources: constraint=ib\n",
     "hsm_config.yaml:5: compute_sources.c.default_resources: PBS has no constraints; ask for a resource of your site"),
    ("compute_sources:\n  c:\n    type: hpc\n    system: pbs\n    default_resources: nodes=1\n    qos: long\n",
     "hsm_config.yaml:6: compute_sources.c.qos: PBS has no qos"),
    ("compute_sources:\n  c:\n    type: hpc\n    system: slurm\n    extra: {W: group_list=staff}\n",
     "hsm_config.yaml:5: compute_sources.c.extra: 'W' is an option of PBS; Slurm's go by their long names"),
    # env
    ("compute_sources: {c: {type: local, env: {pas: [A]}}}\n",
     "hsm_config.yaml:1: compute_sources.c.env.pas: unknown key; did you mean pass?; there are pass and set"),
    ("compute_sources: {c: {type: local, env: {pass: [A-B]}}}\n",
     "hsm_config.yaml:1: compute_sources.c.env.pass[0]: is no name of an environment variable"),
    ("compute_sources: {c: {type: local, env: {set: {A: true}}}}\n",
     "hsm_config.yaml:1: compute_sources.c.env.set.A: must be text or a whole number; put it in quotes"),
    # types of sources and their names
    ("compute_sources:\n  s:\n    type: shs\n",
     "hsm_config.yaml:3: compute_sources.s.type: the text 'shs' is no type of source; did you mean ssh? "
     "(there are local, ssh, hpc, distributed"),
    ("compute_sources:\n  local:\n  s: {type: local}\n",
     "hsm_config.yaml:2: compute_sources.local: has no type; add one of local, ssh, hpc, distributed"),
    ("compute_sources:\n  all: {type: local}\n",
     "hsm_config.yaml:2: compute_sources.all: 'all' has a meaning of its own in --sources; choose another name"),
    ("compute_sources:\n  ../../x: {type: local}\n",
     "hsm_config.yaml:2: compute_sources.../../x: is no name for a source"),
    ("compute_sources:\n  '8': {type: local}\n", "hsm_config.yaml:2: compute_sources.8: is no name for a source"),
    ("compute_sources:\n  g: {type: distributed}\n", "hsm_config.yaml:2: compute_sources.g: a group needs members"),
    ("compute_sources:\n  g:\n    type: distributed\n    sources: [sever]\n  server: {type: local}\n",
     "hsm_config.yaml:4: compute_sources.g.sources: there is no source 'sever'; did you mean server?"),
    ("compute_sources:\n  s: {type: local}\n  g:\n    type: distributed\n    sources: [s, s]\n",
     "hsm_config.yaml:5: compute_sources.g.sources: 's' is here twice"),
    ("compute_sources:\n  s: {type: local}\n  g:\n    type: distributed\n    sources: [s]\n    weight: 2\n",
     "hsm_config.yaml:6: compute_sources.g.weight: a group has no such thing; set it for its members"),
    ("compute_sources:\n  s: {type: local, sources: [t]}\n",
     "hsm_config.yaml:2: compute_sources.s.sources: only a source of type distributed has members"),
    # YAML itself
    ("compute_sources:\n  a: {type: local}\n  b: {type: local}\n  a: {type: local}\n",
     "hsm_config.yaml:4: compute_sources.a: stands here twice; the first is in line 2"),
    ("compute:\n\tretry_attempts: 1\n", "hsm_config.yaml:2: not valid YAML: "),
    ("compute: {retry_attempts: 1\nlogging: {}\n", "hsm_config.yaml:2: not valid YAML: "),
    ("seed: 1\nstrategy: !!python/name:os.system\n", "hsm_config.yaml:2: strategy: not valid YAML: "),
    ("seed: !!int none\n", "hsm_config.yaml:1: seed: 'none' does not fit its YAML tag tag:yaml.org,2002:int"),
    ("seed: 1\n---\nseed: 2\n", "hsm_config.yaml:2: not valid YAML: expected a single document"),
    ("compute: &a\n  logging: *a\n", "hsm_config.yaml:1: compute.logging: refers to itself"),
    ("compute_sources:\n  s: {type: ssh, host: {{ host }}}\n",
     "hsm_config.yaml:2: compute_sources.s.host: a key must be a plain word"),
    ("strategy: ${oc.env:HSM_NO_SUCH_VARIABLE}\n", "hsm_config.yaml:1: strategy: '${oc.env:HSM_NO_SUCH_VARIABLE}': "),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), BAD_FILES, ids=range(len(BAD_FILES)))
def test_bad_file(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "hsm_config.yaml").write_text(text)
    found = problems(None, tmp_path)
    assert any(problem.startswith(expected) for problem in found), found


BAD_NODES: list[tuple[dict[str, Any], str]] = [
    ({"stratgy": "random"}, "hydra.launcher.stratgy: unknown key; did you mean strategy?"),
    ({"timeout": "60"}, "hydra.launcher.timeout: must be a number, not the text '60'; write 60"),
    ({"timeout": 0}, "hydra.launcher.timeout: must be more than 0, not 0"),
    ({"seed": True}, "hydra.launcher.seed: must be a whole number, not true"),
    ({"compute_sources": {"s": {"type": "local", "hots": "x"}}},
     "hydra.launcher.compute_sources.s.hots: unknown key; did you mean host?"),
    ({"compute_sources": {"c": {"type": "hpc", "default_walltime": 43200}}},
     "hydra.launcher.compute_sources.c.default_walltime: must be text, not the number 43200; put it in quotes"),
    ({"compute_sources": {"s": {"max_parallel_tasks": 2}}},
     "hydra.launcher.compute_sources.s: has no type; add one of "),
    ({"compute_sources": {8: {"type": "local"}}},
     "hydra.launcher.compute_sources.8: the name of a source must be text, not the number 8; put it in quotes"),
    ({"compute": {"retry_attempts": -1}}, "hydra.launcher.compute.retry_attempts: must be 0 or more, not -1"),
    ({"retry": {"losst": 1}}, "hydra.launcher.retry.losst: unknown key; did you mean lost?"),
    ({"retry": 3}, "hydra.launcher.retry: must be a mapping of keys to values, not the number 3"),
    ({"retry": {"lost": 0}}, "hydra.launcher.retry.lost: must be 1 or more, not 0"),
    ({"retry": {"oom": -1}}, "hydra.launcher.retry.oom: must be 0 or more, not -1"),
    ({"retry": {"oom": "x2"}}, "hydra.launcher.retry.oom: must be a whole number or a mapping, not the text 'x2'"),
    ({"retry": {"oom": {"tines": 1}}}, "hydra.launcher.retry.oom.tines: unknown key; did you mean times?"),
    ({"retry": {"oom": {"mem": "2"}}},
     "hydra.launcher.retry.oom.mem: must be a factor above 1 such as x2, not the text '2'"),
    ({"retry": {"oom": {"max": "64 Gigs"}}}, "hydra.launcher.retry.oom.max: the text '64 Gigs' is no size"),
    ({"memory_per_task": 0}, "hydra.launcher.memory_per_task: the number 0 is no size that anything can have"),
    ({"logging": {"max_output": "0.5KB"}}, "hydra.launcher.logging.max_output: must be 1KB or more, or 0 for no limit"),
    ({"logging": {"max_output": "much"}}, "hydra.launcher.logging.max_output: the text 'much' is no size"),
    ({"config_file": "gone.yaml"}, "gone.yaml: can't be read as the configuration file: No such file or directory"),
    ({"config_file": 3}, "hydra.launcher.config_file: must be text, not the number 3; put it in quotes"),
]  # fmt: skip


@pytest.mark.parametrize(("node", "expected"), BAD_NODES, ids=range(len(BAD_NODES)))
def test_bad_node(tmp_path: Path, node: dict[str, Any], expected: str) -> None:
    (problem,) = problems(node, tmp_path)
    assert problem.startswith(expected)


def test_all_problems_at_once_each_where_it_stands(tmp_path: Path) -> None:
    write(
        tmp_path,
        """\
        compute_sources:
          server: {type: ssh, prot: 22}
          server: {type: ssh}
        compute: {retry_attempts: "3"}
        """,
    )
    assert problems({"worker": "frok", "compute_sources": {"server": {"port": 0}, "x": {}}}, tmp_path) == [
        "hydra.launcher.worker: must be one of fork, spawn, not the text 'frok'; did you mean fork?",
        "hydra.launcher.compute_sources.server.port: must be between 1 and 65535, not 0",
        "hsm_config.yaml:3: compute_sources.server: stands here twice; the first is in line 2",
        "hsm_config.yaml:4: compute.retry_attempts: must be a whole number, not the text '3'; write 3",
        "hydra.launcher.compute_sources.x: has no type; add one of local, ssh, hpc, distributed",
    ]


def test_all_problems_of_a_cluster_at_once(tmp_path: Path) -> None:
    write(
        tmp_path,
        """\
        compute_sources:
          c:
            type: hpc
            system: pbs
            default_resources: {mem: lots, nods: 1, queue: a, constraint: ib}
            default_walltime: soon
            queue: b
            qos: long
            user: me
            gpus: 2
            extra: {time: 5, hint: "a\\nb"}
        """,
    )
    found = [problem.split(": ")[1] for problem in problems(None, tmp_path)]
    assert found == [
        f"compute_sources.c.{key}"
        for key in (
            "default_resources.mem",
            "default_resources.nods",
            "default_walltime",
            "extra.time",
            "extra.hint",
            "user",
            "gpus",
            "queue",
            "default_resources",
            "qos",
        )
    ]


def test_a_broken_file_does_not_make_the_node_look_incomplete(tmp_path: Path) -> None:
    write(tmp_path, "compute_sources: {server: {type: ssh}\n")
    found = problems({"compute_sources": {"server": {"port": 0}}}, tmp_path)
    assert [problem.split(": ")[0] for problem in found] == [
        "hydra.launcher.compute_sources.server.port",
        "hsm_config.yaml:2",
    ]


def test_a_file_elsewhere_is_named_in_full(tmp_path: Path) -> None:
    path = write(tmp_path / "app", "zzz: 1\n")
    with pytest.raises(ConfigError) as caught:
        load(None, cwd=tmp_path / "cwd", app_dir=tmp_path / "app")
    assert caught.value.problems == [f"{path}:1: zzz: unknown key"]


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "hsm_config.yaml").write_bytes(b"seed: 1\nstrategy: \xff\xfe\n")
    (problem,) = problems(None, tmp_path)
    assert problem.startswith("hsm_config.yaml:2: not readable as text")


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    write(
        tmp_path,
        """\
        compute_sources:
          a: {type: local, env: hunter2}
          b: {type: local, env: {set: hunter2, pass: hunter2}}
          c: {type: local, env: {set: {A: [hunter2]}, pass: [hunter2!]}}
        """,
    )
    found = problems(None, tmp_path)
    assert len(found) == 5
    assert "hunter2" not in str(found)


def test_control_characters_never_reach_the_terminal(tmp_path: Path) -> None:
    assert problems({"a\x1b]0;evil\x07": 1}, tmp_path) == ["hydra.launcher.a\\x1b]0;evil\\x07: unknown key"]


def test_a_third_partys_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = tmp_path / "site" / "cloudy-1.0.dist-info"
    write(metadata, "Metadata-Version: 2.1\nName: cloudy\nVersion: 1.0\n", "METADATA")
    write(metadata, "[hsm.sources]\ncloud = cloudy:Source\n", "entry_points.txt")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    config = load({"compute_sources": {"c": {"type": "cloud"}}}, cwd=tmp_path)
    assert config.compute_sources["c"].type == "cloud"
    (problem,) = problems({"compute_sources": {"c": {"type": "clout"}}}, tmp_path)
    assert "did you mean cloud? (there are local, ssh, hpc, distributed, " in problem


class _NoLooking(DistributionFinder):
    """Found by `importlib.metadata` when it looks through the installed packages."""

    def find_spec(self, *args: Any) -> None:
        return None

    def find_distributions(self, context: DistributionFinder.Context | None = None) -> list[Distribution]:
        raise AssertionError("the installed packages were looked through")


def test_installed_packages_are_looked_through_only_for_an_unknown_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, _NoLooking()])
    write(tmp_path, MULTIPLE_SOURCES)
    load({"compute_sources": {"g": {"type": "distributed", "sources": ["local"]}}}, cwd=tmp_path)
    with pytest.raises(AssertionError, match="looked through"):
        load({"compute_sources": {"c": {"type": "cloud"}}}, cwd=tmp_path)


def test_rules_speak_of_fields_that_exist() -> None:
    for schema, name in RULES:
        assert name in get_type_hints(schema)
