"""A plugin of submitit for OpenPBS and PBS Professional, of use without the rest of hsm.

executor = submitit.AutoExecutor("log_folder", cluster="pbs")
executor.update_parameters(timeout_min=60, mem_gb=4, cpus_per_task=2, pbs_queue="workq")
jobs = executor.map_array(train, learning_rates)
"""

from hsm_core.pbs.environment import PbsJobEnvironment
from hsm_core.pbs.executor import PbsExecutor, PbsJob, PbsSubmissionError
from hsm_core.pbs.watcher import PbsInfoWatcher

__all__ = ["PbsExecutor", "PbsInfoWatcher", "PbsJob", "PbsJobEnvironment", "PbsSubmissionError"]
