"""Runs on a Ray cluster: on this machine, or an existing one. Ray places runs, and places them again if a node dies."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from dspt_atlas.errors import UserError
from dspt_atlas.launch import FutureLauncher, Options, process
from dspt_atlas.launch.job import Job


class Ray(FutureLauncher):
    """Every run is a task with one GPU if the cluster has GPUs, otherwise with one core."""

    name = "ray"

    def __init__(self, options: Options):
        import ray
        import ray.cloudpickle

        super().__init__()
        self._ray, self._program, self.limit = ray, options.program, options.workers
        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        if not options.address:
            quiet |= {"include_dashboard": False}
        try:
            ray.init(address=options.address or "local", **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(f"Expected a Ray cluster at {options.address or 'this machine'}: {error}") from error
        ray.cloudpickle.register_pickle_by_value(process)
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        resources: dict[str, Any] = {"num_gpus": gpus, "num_cpus": 0 if gpus else 1}
        self._task = ray.remote(**resources, max_retries=-1)(process.run_process)

    def start(self, job: Job) -> Future:
        """Start one run when there is room in the cluster."""
        return self._task.remote([*self._program, *job.arguments], str(job.folder)).future()

    def close(self) -> None:
        """Leave the cluster, which ends the runs of this sweep; stop a cluster that was started on this machine."""
        self._ray.shutdown()
