"""The files that Slurm's daemons read, as text (slurm.conf(5), slurmdbd.conf(5), gres.conf(5) of 22.05)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Node:
    """What one slurmd has to offer; `memory` in MiB."""

    name: str
    cpus: int
    memory: int
    gpus: int = 0


def slurm_conf(
    folder: Path,
    host: str,
    port: int,
    nodes: Mapping[int, Node],
    *,
    dbd_port: int | None,
    memory_cgroups: bool,
    settings: Mapping[str, str],
) -> str:
    """`nodes` by their ports; a `dbd_port` means that there is accounting; `settings` win over ours."""
    ours = {
        "ClusterName": folder.name,
        "SlurmctldHost": f"{host}(127.0.0.1)",
        "SlurmctldPort": str(port),
        "SlurmUser": "root",
        "AuthType": "auth/munge",
        # A requeued job starts again once credentials of its first run have expired (2 minutes by default).
        "AuthInfo": f"socket={folder}/gate/socket,cred_expire=5",
        "CredType": "cred/munge",
        "StateSaveLocation": f"{folder}/state",
        "SlurmdSpoolDir": f"{folder}/spool.%n",
        "SlurmctldPidFile": f"{folder}/slurmctld.pid",
        "SlurmdPidFile": f"{folder}/slurmd.%n.pid",
        "SlurmdParameters": "config_overrides",
        # None of these needs cgroups.
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "JobAcctGatherType": "jobacct_gather/linux",
        "JobAcctGatherParams": "OverMemoryKill",
        "JobAcctGatherFrequency": "task=1",
        "MpiDefault": "none",
        "GresTypes": "gpu",
        "SwitchType": "switch/none",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_CPU_Memory",
        "DefMemPerCPU": "100",
        "PreemptType": "preempt/partition_prio",
        "PreemptMode": "REQUEUE",
        "PriorityType": "priority/basic",
        # Whatever can start starts soon, and is soon forgotten.
        "SchedulerType": "sched/backfill",
        "SchedulerParameters": "sched_interval=1,sched_min_interval=0,batch_sched_delay=0,bf_interval=1",
        "MinJobAge": "5",
        "KillWait": "2",
        "SlurmdTimeout": "10",
        "SlurmctldTimeout": "10",
        "MessageTimeout": "10",
        "ReturnToService": "1",
        "OverTimeLimit": "0",
        "InactiveLimit": "0",
        "JobRequeue": "1",
        "MaxArraySize": "1001",
        "MailProg": "/bin/true",
    }
    if dbd_port is None:
        ours["AccountingStorageType"] = "accounting_storage/none"
    else:
        ours["AccountingStorageType"] = "accounting_storage/slurmdbd"
        ours["AccountingStorageHost"] = "127.0.0.1"
        ours["AccountingStoragePort"] = str(dbd_port)
        ours["AccountingStoragePass"] = f"{folder}/gate/socket"
        ours["AccountingStoreFlags"] = "job_comment"
        ours["AccountingStorageTRES"] = "gres/gpu"
    if memory_cgroups:
        ours["TaskPlugin"] = "task/cgroup"
        ours["JobAcctGatherParams"] = "NoShared"
    lines = [f"{key}={value}" for key, value in {**ours, **settings}.items()]
    for at, node in nodes.items():
        offers = f"CPUs={node.cpus} RealMemory={node.memory}" + (f" Gres=gpu:{node.gpus}" if node.gpus else "")
        lines.append(f"NodeName={node.name} NodeHostname={host} NodeAddr=127.0.0.1 Port={at} {offers}")
    every = f"Nodes={','.join(node.name for node in nodes.values())} MaxTime=1-00:00:00 DefaultTime=60"
    lines += [
        f"PartitionName=main {every} Default=YES PriorityTier=1 PreemptMode=OFF",
        f"PartitionName=low {every} PriorityTier=1 PreemptMode=REQUEUE",
        f"PartitionName=high {every} PriorityTier=100 PreemptMode=OFF",
    ]
    return "".join(f"{line}\n" for line in lines)


def gres_conf(folder: Path, nodes: Sequence[Node]) -> str:
    """Its GPUs are files `nvidia0`, ... in the folder: of their names Slurm makes CUDA_VISIBLE_DEVICES."""
    return "".join(
        f"NodeName={node.name} Name=gpu File={folder}/nvidia[0-{node.gpus - 1}]\n" for node in nodes if node.gpus
    )


def slurmdbd_conf(folder: Path, host: str, port: int) -> str:
    ours = {
        "DbdHost": host,
        "DbdAddr": "127.0.0.1",
        "DbdPort": str(port),
        "SlurmUser": "root",
        "AuthType": "auth/munge",
        "AuthInfo": f"socket={folder}/gate/socket",
        "PidFile": f"{folder}/slurmdbd.pid",
        "StorageType": "accounting_storage/mysql",
        "StorageHost": "localhost",
        "StorageUser": "root",
        "StorageLoc": "slurm",
    }
    return "".join(f"{key}={value}\n" for key, value in ours.items())


def cgroup_conf() -> str:
    """Without one slurmd looks for the cgroups of this machine, and for a systemd where those are v2."""
    return "CgroupPlugin=cgroup/v1\nConstrainRAMSpace=yes\nConstrainSwapSpace=yes\n"
