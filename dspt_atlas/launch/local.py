"""Runs on this machine: one per GPU, or one per core without a GPU."""

from __future__ import annotations

import os
import queue
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from dspt_atlas.environment import host_kind
from dspt_atlas.launch import FutureLauncher, Options
from dspt_atlas.launch.job import Job
from dspt_atlas.launch.pool import default_workers
from dspt_atlas.launch.process import run_process


class Local(FutureLauncher):
    """A pool of threads; each thread waits for one process. With GPUs, each run sees one of them."""

    name = "local"

    def __init__(self, options: Options):
        super().__init__()
        gpus = visible_gpus()
        self.limit = options.workers or len(gpus) or default_workers()
        self._program, self._processes, self._is_closed = options.program, set(), False
        self._slots: queue.SimpleQueue = queue.SimpleQueue()
        for number in range(self.limit):
            self._slots.put(gpus[number % len(gpus)] if gpus else "")
        self._threads = str(max(1, host_kind()["cores"] // self.limit))
        self._pool = ThreadPoolExecutor(self.limit)

    def start(self, job: Job) -> Future:
        """Start one run when a slot is free."""
        return self._pool.submit(self._run, job)

    def _run(self, job):
        gpu = self._slots.get()
        environment = {"OMP_NUM_THREADS": self._threads, **os.environ}
        if gpu:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        started = []

        def on_start(process):
            started.append(process)
            self._processes.add(process)
            if self._is_closed:
                process.terminate()

        try:
            return run_process([*self._program, *job.arguments], job.folder, environment, on_start)
        finally:
            self._processes.difference_update(started)
            self._slots.put(gpu)

    def close(self) -> None:
        """End the current runs (they can be resumed) and wait for them."""
        self._is_closed = True
        for process in list(self._processes):
            process.terminate()
        self._pool.shutdown(cancel_futures=True)


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, in the words of CUDA_VISIBLE_DEVICES."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return (named or [str(number) for number in range(count)])[:count]
