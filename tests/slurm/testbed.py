"""A real two-node Slurm on this one machine, private to whoever starts it.

Nothing outside a fresh temporary folder is read or written: munge, MariaDB, slurmdbd, slurmctld and one slurmd per
node run with their own configuration, sockets and ports, so several testbeds (and a system Slurm) can live
side by side. It needs root and the Debian packages named in `INSTALL`.

By hand: `python tests/slurm/testbed.py` starts one, prints the variable to export, and stops it on Ctrl-C.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import random
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import typing as tp
from pathlib import Path

INSTALL = "apt-get install -y slurm-wlm slurmdbd munge mariadb-server"
NODES = ("n1", "n2")
ACCOUNT = "lab"
_PORTS = ("slurmctld", "slurmdbd", "mariadbd", *NODES)
_UP = ("idle", "mixed", "allocated", "completing")
MAX_ARRAY_VARIABLE = "EXCA_LIKE_SLURM_MAX_ARRAY"

_COMMANDS = (
    *("munged", "mariadbd", "mariadb", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd", "setpriv"),
    *("sbatch", "srun", "squeue", "sinfo", "scancel", "scontrol", "sacct", "sacctmgr"),
)
# The daemons live in sbin, which not every PATH holds.
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
# What a surrounding Slurm job or a user's settings would otherwise slip into every command.
FOREIGN = ("SLURM", "SBATCH_", "SRUN_", "SALLOC_", "SQUEUE_", "SINFO_", "SACCT", "SCANCEL_", "SCONTROL_")

_SLURM_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={slurmctld_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# cred_expire is also how long a requeued job waits before it may start again (120 s by default).
AuthInfo=socket={root}/munge.sock,cred_expire={requeue_wait}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={root}/state
SlurmctldPidFile={root}/slurmctld.pid
SlurmdSpoolDir={root}/spool-%n
SlurmdPidFile={root}/slurmd-%n.pid
# No cgroups here: pgid is what ends a preempted job's whole process group, memory is only polled.
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherParams=OverMemoryKill
JobAcctGatherFrequency=task=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
# Otherwise a job that names no memory takes the node's whole memory, and jobs run one by one.
DefMemPerCPU=1000
ReturnToService=2
PlugStackConfig={root}/plugstack.conf
SlurmdParameters=config_overrides
MaxArraySize={max_array_size}
# Quick tests: start jobs at once, look for work every second, give up soon on jobs and nodes that don't answer.
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
KillWait={kill_wait}
MinJobAge=60
SlurmdTimeout={node_timeout}
MessageTimeout=5
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={slurmdbd_port}
# The munge socket for talking to slurmdbd, where AuthInfo doesn't count.
AccountingStoragePass={root}/munge.sock
AccountingStorageEnforce=associations,limits
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{n1_port}-{n2_port}] CPUs=4 CoresPerSocket=4 \
Sockets=1 ThreadsPerCore=1 RealMemory=8000 Gres=gpu:v100:2 Feature=volta32gb State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=10
PartitionName=scavenge Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE
"""

_SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={root}/munge.sock
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={slurmdbd_port}
SlurmUser=root
PidFile={root}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={mariadbd_port}
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm_acct
"""

_GRES_CONF = """\
NodeName=n1 Name=gpu Type=v100 File={root}/gpu[0-1]
NodeName=n2 Name=gpu Type=v100 File={root}/gpu[2-3]
"""

_SQL = """\
create database slurm_acct;
create user slurm@'127.0.0.1' identified by '{password}';
create user slurm@localhost identified by '{password}';
grant all on slurm_acct.* to slurm@'127.0.0.1';
grant all on slurm_acct.* to slurm@localhost;
"""


# Runs a daemon and adopts the orphans of its jobs. A container's first process may reap them late or never, and
# Slurm takes a job for running while a process of its group is left, even a dead one.
_REAPER = """\
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
parent = os.getppid()
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
for number in signal.SIGTERM, signal.SIGHUP:
    signal.signal(number, lambda number, frame: os.kill(pid, number))
while (ended := os.wait())[0] != pid:
    pass
if os.getppid() != parent:  # killed: nobody else is left to end the jobs
    while children := open(f"/proc/self/task/{os.getpid()}/children").read().split():
        for child in children:
            os.kill(int(child), signal.SIGKILL)
        os.wait()
sys.exit(os.waitstatus_to_exitcode(ended[1]) & 255)
"""


class ClusterError(RuntimeError):
    """Slurm doesn't come up, refuses a command, or doesn't reach a state in the time given."""


def missing() -> list[str]:
    """The commands a testbed needs and this machine lacks."""
    return [name for name in _COMMANDS if shutil.which(name, path=_PATH) is None]


def wait_for(condition: tp.Callable[[], object], what: str, timeout: float) -> None:
    """Poll until the condition holds; ClusterError naming `what` when it doesn't in time."""
    end = time.monotonic() + timeout
    while True:
        said = ""
        try:
            if condition():
                return
        except ClusterError as error:  # on a busy machine, a daemon may not answer once
            said = f": {error}"
        if time.monotonic() > end:
            raise ClusterError(f"not reached within {timeout:g} s: {what}{said}")
        time.sleep(0.05)


def _free_ports(count: int) -> list[int]:
    """`count` consecutive free ports of 127.0.0.1."""
    for _ in range(100):
        # Below the range outgoing connections take theirs from: a daemon that is started again could find its
        # port taken. At random: two testbeds that start together don't meet.
        first = random.randrange(12000, 32000 - count)
        sockets = [socket.socket() for _ in range(count)]
        try:
            for port, sock in enumerate(sockets, first):
                sock.bind(("127.0.0.1", port))
            return list(range(first, first + count))
        except OSError:
            continue
        finally:
            for sock in sockets:
                sock.close()
    raise ClusterError("no free ports")


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def _make_device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:  # a container may forbid it; Slurm only wants a file there
        path.touch()


class _Daemon:
    """One daemon as a child process in the foreground, its log in a file."""

    def __init__(self, argv: list[str], log: Path, env: dict[str, str]) -> None:
        # The kernel ends the daemon when the thread that started it ends, even when we are killed.
        self.argv, self.log, self.env = ["setpriv", "--pdeathsig", "TERM", *argv], log, env
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self, ready: tp.Callable[[], object], timeout: float = 60) -> None:
        """Start it unless it runs, and wait until `ready()` is true; until then ClusterError is no failure."""
        if self.alive:
            return
        with self.log.open("ab") as log:
            # Its own session: Ctrl-C in the terminal is for us, who stop the daemons in order.
            self.process = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env, start_new_session=True
            )
        last: list[str] = []

        def settled() -> object:
            try:
                return not self.alive or ready()
            except (ClusterError, subprocess.TimeoutExpired) as error:
                last[:] = [str(error)]
                return False

        try:
            wait_for(settled, f"{self.log.name} ready", timeout)
        except ClusterError as error:
            raise ClusterError("\n".join([str(error), *last, "the end of its log:", self._tail()])) from None
        if not self.alive:
            raise ClusterError(f"{self.log.name} ended with code {self.process.returncode}:\n{self._tail()}")

    def _tail(self, lines: int = 20) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)

    def stop(self, timeout: float = 10) -> None:
        if self.process is None:
            return
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout)
        with contextlib.suppress(ProcessLookupError):  # it didn't end, or a helper process outlived it
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None


class Testbed:
    """The cluster: `start()` and `stop()` it, or use it as a context.

    `env` is what a command needs in its environment to talk to it (`run` sets it itself). Its daemons end
    with the thread that started them, so start it from a thread that stays.
    """

    __test__ = False  # not a test class, whatever its name

    def __init__(
        self, *, max_array_size: int | None = None, kill_wait: int = 3, node_timeout: int = 10, requeue_wait: int = 5
    ) -> None:
        self.max_array_size = max_array_size or int(os.environ.get(MAX_ARRAY_VARIABLE, "51"))
        self._settings = {"kill_wait": kill_wait, "node_timeout": node_timeout, "requeue_wait": requeue_wait}
        self._daemons: dict[str, _Daemon] = {}
        self._ports: dict[str, int] = {}
        self._password = secrets.token_hex(16)
        self._owner = 0  # the process that started it; a fork of it must not stop it
        self.root = self.conf = Path()
        self.env: dict[str, str] = {}

    def __enter__(self) -> tp.Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        if lacking := missing():
            raise ClusterError(f"{', '.join(lacking)} not found: run `{INSTALL}`")
        self._owner = os.getpid()
        self.root = Path(tempfile.mkdtemp(prefix="slurm-")).resolve()
        atexit.register(self.stop)
        try:
            self._configure()
            self._make_daemons()
            self._start_all()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all jobs, daemons and what is left of them, and remove the folder; harmless when not started."""
        if self._owner != os.getpid():
            return
        try:
            if self._daemons and all(daemon.alive for daemon in self._daemons.values()):
                with contextlib.suppress(ClusterError, subprocess.TimeoutExpired):  # killed below then
                    self.cancel_all(self._settings["kill_wait"] + 5)
        finally:
            for daemon in reversed(self._daemons.values()):
                daemon.stop()
            self._kill(*NODES)
            shutil.rmtree(self.root, ignore_errors=True)
            atexit.unregister(self.stop)
            self._owner, self._daemons, self.root, self.conf, self.env = 0, {}, Path(), Path(), {}

    # -- parts of the cluster --

    def stop_node(self, node: str) -> None:
        """End the node's slurmd. Its jobs run on, and the cluster only notices some `2 * node_timeout` s later."""
        self._daemons[node].stop()

    def fail_node(self, node: str) -> None:
        """What a crash of the node does, noticed at once: its jobs end by NODE_FAIL, or are requeued."""
        self.stop_node(node)
        self._kill(node)
        self.run("scontrol", "update", f"nodename={node}", "state=down", "reason=failed")

    def start_node(self, node: str) -> None:
        self._daemons[node].start(functools.partial(_listens, self._ports[node]))
        wait_for(lambda: self.node_state(node) in _UP, f"{node} up", 30)

    def restart_controller(self) -> None:
        self._daemons["slurmctld"].stop()
        self._start_controller()
        running = [node for node in NODES if self._daemons[node].alive]
        for node in running:  # has them register now instead of when slurmctld asks
            self._daemons[node].signal(signal.SIGHUP)
        wait_for(lambda: all(self.node_state(x) in _UP for x in running), "nodes back", 60)

    def stop_accounting(self) -> None:
        self._daemons["slurmdbd"].stop()

    def start_accounting(self) -> None:
        """Start slurmdbd; slurmctld, when it runs, tells it what it missed by itself, up to 10 s later."""
        port, show = self._ports["slurmdbd"], ("sacctmgr", "show", "cluster")
        self._daemons["slurmdbd"].start(lambda: _listens(port) and self.run(*show))

    def node_state(self, node: str) -> str:
        """As sinfo says it: idle, mixed, allocated, completing, down, down* (not responding)…"""
        # All nodes at once: asked about one node only, slurmctld answers with a state that may be stale.
        lines = self.run("sinfo", "-h", "-N", "-p", "debug", "-o", "%N %T").splitlines()
        return dict(line.split() for line in lines)[node]

    def wait_idle(self, timeout: float = 30) -> None:
        wait_for(lambda: all(self.node_state(node) == "idle" for node in NODES), "all nodes idle", timeout)

    def cancel_all(self, timeout: float = 30) -> None:
        """Cancel every job, also those that jobs still submit, and wait until none is left."""
        wait_for(self._cancelled, "empty queue", timeout)

    def settle(self) -> None:
        """Whatever was done to the cluster: everything runs, no job is left, all nodes are idle."""
        self.start_accounting()
        self._start_controller()
        for node in NODES:
            self._daemons[node].start(functools.partial(_listens, self._ports[node]))
        self.cancel_all()
        for node in NODES:
            if self.node_state(node).startswith(("down", "drain")):
                self._succeeds("scontrol", "update", f"nodename={node}", "state=resume")
        self.wait_idle()

    # -- commands --

    def run(self, *command: str, timeout: float = 60) -> str:
        """What the command prints; ClusterError with all it said when it fails."""
        env = self._environ()
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout, check=False)
        if done.returncode:
            raise ClusterError(f"{' '.join(command)}: code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def _succeeds(self, *command: str) -> bool:
        try:
            self.run(*command)
        except (ClusterError, subprocess.TimeoutExpired):
            return False
        return True

    def _environ(self) -> dict[str, str]:
        own = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}
        return own | {"PATH": _PATH} | self.env

    def _cancelled(self) -> bool:
        jobs = set(self.run("squeue", "-h", "-o", "%F").split())
        if jobs:
            self._succeeds("scancel", *jobs)  # fails for one that just ended
            time.sleep(0.2)
        return not jobs

    # -- start and stop --

    def _configure(self) -> None:
        root = self.root
        if len(str(root)) > 60:
            raise ClusterError(f"{root} is too long for the unix sockets in it: set TMPDIR to a shorter folder")
        root.chmod(0o755)  # munge wants its socket to be reachable
        for name in ("state", "log"):
            (root / name).mkdir()
        for i in range(4):
            _make_device(root / f"gpu{i}")
        (root / "munge.key").touch(0o600)
        (root / "munge.key").write_bytes(secrets.token_bytes(128))
        self._ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
        values: dict[str, object] = {
            "root": root,
            "host": socket.gethostname().split(".")[0],
            "password": self._password,
        }
        values |= (
            {"max_array_size": self.max_array_size}
            | self._settings
            | {f"{name}_port": port for name, port in self._ports.items()}
        )
        # Slurm looks for the next two beside slurm.conf.
        for name, text in {"slurm": _SLURM_CONF, "slurmdbd": _SLURMDBD_CONF, "gres": _GRES_CONF, "plugstack": ""}.items():
            (root / f"{name}.conf").touch(0o600 if name == "slurmdbd" else 0o644)
            (root / f"{name}.conf").write_text(text.format(**values))
        self.conf = root / "slurm.conf"
        self.env = {"SLURM_CONF": str(self.conf)}

    def _make_daemons(self) -> None:
        root = self.root
        munge = [f"--{name}-file={root}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        sql = [f"--datadir={root}/mysql", f"--socket={root}/mysql/s", f"--pid-file={root}/mysql/pid"]
        sql += ["--bind-address=127.0.0.1", f"--port={self._ports['mariadbd']}", "--innodb-buffer-pool-size=64M"]
        commands = {
            # --force: munge finds some temporary folders insecure (group-writable ones above it).
            "munged": ["munged", "--foreground", "--force", f"--socket={root}/munge.sock", *munge],
            "mariadbd": ["mariadbd", "--no-defaults", "--user=root", "--innodb-flush-log-at-trx-commit=0", *sql],
            "slurmdbd": ["slurmdbd", "-D"],
            "slurmctld": ["slurmctld", "-D"],
        }
        commands |= {node: [sys.executable, "-c", _REAPER, "slurmd", "-D", "-N", node] for node in NODES}
        for name, argv in commands.items():
            self._daemons[name] = _Daemon(argv, root / "log" / name, self._environ())

    def _start_all(self) -> None:
        self._daemons["munged"].start(lambda: self.run("munge", "-n", f"--socket={self.root}/munge.sock"))
        self._start_database()
        self.start_accounting()
        for words in (
            ["cluster", "test"],
            ["account", ACCOUNT],
            ["user", "root", f"account={ACCOUNT}", f"defaultaccount={ACCOUNT}"],
        ):
            self.run("sacctmgr", "-i", "add", *words)
        self._start_controller()
        for node in NODES:
            self.start_node(node)
        self.wait_idle(60)

    def _start_database(self) -> None:
        folder = self.root / "mysql"
        flags = ("--no-defaults", "--user=root", "--skip-test-db", "--auth-root-authentication-method=normal")
        self.run("mariadb-install-db", *flags, f"--datadir={folder}")
        client = ("mariadb", "--no-defaults", "-u", "root", "-S", f"{folder}/s", "-e")
        self._daemons["mariadbd"].start(lambda: self.run(*client, "select 1"))
        self.run(*client, _SQL.format(password=self._password))

    def _start_controller(self) -> None:
        port = self._ports["slurmctld"]
        self._daemons["slurmctld"].start(lambda: _listens(port) and "UP" in self.run("scontrol", "ping"))

    def _kill(self, *nodes: str) -> None:
        def none_left() -> bool:  # again and again: some may be about to start others
            found = self.processes(*nodes)
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not found

        with contextlib.suppress(ClusterError):  # stuck in the kernel: nothing more can be done
            wait_for(none_left, "no process left", 5)

    def processes(self, *nodes: str) -> list[int]:
        """The processes of the jobs on these nodes, whoever their parent is, also those that left their job's group.

        A step's daemon listens on a socket of ours (its command line and environment don't tell whose it is); what
        it starts has the configuration and the node in its environment.
        """
        spools = tuple(f"{self.root}/spool-{node}/" for node in nodes)
        lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
        sockets = {f"socket:[{words[6]}]" for words in lines if words[-1].startswith(spools)}
        names = {f"SLURMD_NODENAME={node}".encode() for node in nodes}
        return [int(x.name) for x in Path("/proc").glob("[0-9]*") if self._is_of_job(x, sockets, names)]

    def _is_of_job(self, process: Path, sockets: set[str], names: set[bytes]) -> bool:
        try:
            environ = set((process / "environ").read_bytes().split(b"\0"))
            if f"SLURM_CONF={self.conf}".encode() in environ and environ & names:
                return True
            return any(os.readlink(x) in sockets for x in (process / "fd").iterdir())
        except OSError:  # gone meanwhile
            return False


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a shell has what it starts by `&` ignore it
        signal.signal(number, lambda *_: sys.exit(0))
    with Testbed() as testbed:
        print(f"export SLURM_CONF={testbed.conf}", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
