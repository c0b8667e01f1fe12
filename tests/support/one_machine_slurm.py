"""A Slurm of this machine alone, from Debian's packages: munged, slurmctld, slurmd with own ports and files.

python tests/support/one_machine_slurm.py [--cpus 2] COMMAND ...
runs a command with SLURM_CONF set, in a Slurm that ends with it.
"""

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

START_SECONDS, END_SECONDS = 60, 30
DAEMONS = ("munged", "slurmctld", "slurmd")
CONF = """ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
KillWait=2
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


class NoSlurm(Exception):
    """Says why there can be no Slurm here."""


@contextlib.contextmanager
def one_machine_slurm(cpus=2):
    """Start a Slurm of so many processors; yield the environment that its commands need; raises NoSlurm."""
    paths = {name: shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") for name in DAEMONS}
    if missing := [name for name, path in paths.items() if path is None]:
        raise NoSlurm(f"{', '.join(missing)} not installed (apt-get install slurmctld slurmd slurm-client munge)")
    if os.geteuid() != 0:
        raise NoSlurm("slurmd needs root")
    # munged refuses a socket in a folder that others cannot enter, such as pytest's, and long paths.
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o755)
    processes = []
    try:
        conf = _write_configuration(folder, cpus)
        environment = {**os.environ, "SLURM_CONF": str(conf)}
        own = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        commands = (
            [paths["munged"], "--foreground", "--force", f"--socket={folder}/munge.socket", *own],
            [paths["slurmctld"], "-D", "-f", conf],
            [paths["slurmd"], "-D", "-f", conf],
        )
        for command in commands:
            with open(folder / "daemons.log", "a") as log:
                processes.append(_start(list(map(str, command)), environment, log))
            time.sleep(1)
        _wait_for_node(environment, folder / "daemons.log")
        try:
            yield environment
        finally:
            _end_jobs(environment)
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _write_configuration(folder, cpus):
    (folder / "munge.key").touch(0o600)
    (folder / "munge.key").write_bytes(os.urandom(1024))
    for name in ("state", "spool"):
        (folder / name).mkdir()
    conf = folder / "slurm.conf"
    host = socket.gethostname().split(".")[0]
    conf.write_text(CONF.format(host=host, ports=_free_ports(2), folder=folder, cpus=cpus))
    return conf


def _start(command, environment, log):
    # A session of its own: a signal to the group of what is run in this Slurm must not end it before its jobs.
    return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)


def _end_jobs(environment):
    """Cancel all jobs and wait till they have ended: their processes would outlive slurmd."""
    subprocess.run(["scancel", "--user=root"], env=environment, check=False)
    command = ["squeue", "--noheader"]
    deadline = time.monotonic() + END_SECONDS
    while time.monotonic() < deadline:
        if not subprocess.run(command, env=environment, capture_output=True, check=False).stdout.strip():
            break
        time.sleep(0.2)


def _free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _wait_for_node(environment, log):
    command = ["sinfo", "--noheader", "--format=%T"]
    deadline = time.monotonic() + START_SECONDS
    while "idle" not in subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout:
        if time.monotonic() > deadline:
            raise NoSlurm(f"Slurm does not start here: {log.read_text()[-500:]}")
        time.sleep(0.2)


def main():
    """Run a command in a Slurm; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpus", type=int, default=2, help="processors that Slurm is told of: runs at once")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if not options.command:
        parser.error("expected a command to run")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with one_machine_slurm(options.cpus) as environment:
            return subprocess.run(options.command, env=environment, check=False).returncode
    except (NoSlurm, FileNotFoundError) as error:
        print(f"one_machine_slurm.py: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
