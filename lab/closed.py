"""The closed world: user, network, mount and PID namespaces of its own, and the way in from outside.

Three processes: the *outer* one, which the user started and which waits; the *init*, process 1 of the new PID
namespace, which reaps; and the command. SIGKILL of the outer one kills the init (PR_SET_PDEATHSIG), and the kernel then
kills everything in the namespace and frees its mounts and networks. There is no way out: the network namespace
has no uplink. It is not a sandbox for hostile programs: files are those of the machine (but /run and TMPDIR).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import NoReturn

from lab.errors import AlreadyRunning, ClosedWorldError, NotRunning

ENV_CLOSED = "HOLDFAST_CLOSED"
RUN = Path("/run/holdfast")
"""On the world's own tmpfs: gone with it."""

_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWPID, _CLONE_NEWNET = 0x00020000, 0x10000000, 0x20000000, 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 2, 4, 8, 0x4000, 0x40000
_PR_SET_PDEATHSIG = 1
_SI_KERNEL = 0x80
_FORWARDED = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT}
_HELP = (
    "the lab needs root or unprivileged user namespaces. Run it as root, or allow them: "
    "`sysctl -w user.max_user_namespaces=15000`, on Debian `sysctl -w kernel.unprivileged_userns_clone=1`, on Ubuntu "
    "`sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`; in a container: `docker run --privileged`"
)
_libc = ctypes.CDLL(None, use_errno=True)


def is_closed() -> bool:
    """Whether this process is inside a closed world."""
    return os.environ.get(ENV_CLOSED) == "1"


def require() -> None:
    """Refuse to go on outside.

    Raises:
        ClosedWorldError: this is the machine's own network.
    """
    if not is_closed():
        raise ClosedWorldError(
            "this needs the closed world: run it as `holdfast lab run -- COMMAND`, as `make test` does"
        )


def enter(argv: list[str], name: str | None = None) -> NoReturn:
    """Run a command in a fresh closed world and exit with its exit code; does not return.

    Args:
        argv: the command.
        name: a name under which others find this world (`find`); without one they cannot.

    Raises:
        AlreadyRunning: a lab of that name runs.
        ClosedWorldError: this machine does not allow it; says what would.
    """
    door = _door(name) if name else None
    _die_with_parent()
    waited = _FORWARDED | {signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    _unshare()
    child = os.fork()
    if child == 0:
        if door is not None:
            door.close()
        _init(argv)
    sys.exit(_attend(child))


def _door(name: str) -> socket.socket:
    """An abstract socket, taken before the network namespace changes: it says that this world runs, and who it is."""
    door = socket.socket(socket.AF_UNIX)
    try:
        door.bind(_door_name(name))
    except OSError as error:
        raise AlreadyRunning(
            f"a lab named {name!r} is already running: work in it with `holdfast lab shell --name {name}`, end it with "
            "Ctrl-C where it was started, or start another with `--name`"
        ) from error
    door.listen()
    return door


def _door_name(name: str) -> str:
    return f"\0holdfast-lab-{os.getuid()}-{name}"


def find(name: str) -> int:
    """Process id of the init of the lab with this name.

    Raises:
        NotRunning: there is none.
    """
    with socket.socket(socket.AF_UNIX) as knock:
        try:
            knock.connect(_door_name(name))
        except OSError as error:
            raise NotRunning(f"lab {name!r} is not running: start it with `holdfast lab up --name {name}`") from error
        credentials = knock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    outer = struct.unpack("3i", credentials)[0]
    children = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
    if not children:
        raise NotRunning(f"the lab named {name!r} is starting or stopping: try again")
    return int(children[0])


def join(name: str, argv: list[str], env: dict[str, str]) -> NoReturn:
    """Replace this process by a command inside the lab with this name.

    Raises:
        NotRunning: there is none.
    """
    init = find(name)
    users = [] if _user_namespace(init) == _user_namespace(os.getpid()) else ["--user", "--preserve-credentials"]
    spaces = ["--target", str(init), *users, "--mount", "--net", "--pid"]
    command = ["nsenter", *spaces, "--", "env", f"--chdir={Path.cwd()}", *argv]
    os.execvpe(command[0], command, {**os.environ, **env, ENV_CLOSED: "1"})  # noqa: S606 - a fixed program


def _user_namespace(pid: int) -> str:
    return str(Path(f"/proc/{pid}/ns/user").readlink())


# the outer process ---------------------------------------------------------------------------------------------


def _die_with_parent() -> None:
    parent = os.getppid()
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("holdfast lab: whoever started it has gone")


def _unshare() -> None:
    spaces = _CLONE_NEWNS | _CLONE_NEWPID | _CLONE_NEWNET
    if _libc.unshare(spaces) == 0:
        return
    uid, gid = os.getuid(), os.getgid()
    if _libc.unshare(spaces | _CLONE_NEWUSER) != 0:
        raise ClosedWorldError(f"this user cannot create namespaces ({os.strerror(ctypes.get_errno())}): {_HELP}")
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    except OSError as error:
        raise ClosedWorldError(f"this user has no rights in its own user namespace ({error}): {_HELP}") from error


def _attend(child: int) -> int:
    """Forward signals and wait; what the terminal sent goes to the whole foreground group by itself."""
    while True:
        got = signal.sigwaitinfo(_FORWARDED | {signal.SIGCHLD})
        if got.si_signo != signal.SIGCHLD:
            if got.si_code != _SI_KERNEL:
                os.kill(child, got.si_signo)
            continue
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return 1
            if pid == 0:
                break
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                return 128 - code if code < 0 else code


# the init ------------------------------------------------------------------------------------------------------


def _init(argv: list[str]) -> NoReturn:
    """Process 1: private mounts, then the command; leaves when the command ends, and the kernel kills the rest."""
    code = 1
    try:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != 0:  # 0: the parent is alive and outside this PID namespace
            os._exit(1)
        _mounts()
        _loopback_up()
        child = os.fork()
        if child == 0:
            _command(argv)
        code = _attend(child)
    except ClosedWorldError as error:
        sys.stderr.write(f"holdfast lab: {error}\n")
    finally:
        os._exit(code)


def _command(argv: list[str]) -> NoReturn:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED | {signal.SIGCHLD})
    temporary = RUN / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    try:
        os.execvpe(argv[0], argv, {**os.environ, ENV_CLOSED: "1", "TMPDIR": str(temporary)})  # noqa: S606 - asked for
    except OSError as error:
        sys.stderr.write(f"holdfast lab: cannot run {argv[0]}: {error.strerror}\n")
    os._exit(127)


def _mounts() -> None:
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    _mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    _mount("tmpfs", "/run", "tmpfs", _MS_NOSUID | _MS_NODEV)
    Path("/run/netns").mkdir()
    # named namespaces are mounts: what is mounted here is to be seen by whoever enters this world
    RUN.mkdir()


def _mount(source: str, target: str, kind: str | None, flags: int) -> None:
    as_kind = kind.encode() if kind else None
    if _libc.mount(source.encode(), target.encode(), as_kind, ctypes.c_ulong(flags), None) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise ClosedWorldError(f"cannot mount {kind or 'private'} on {target} ({reason}): {_HELP}")


def _loopback_up() -> None:
    """SIOCSIFFLAGS on lo: the one link that exists before the lab's own."""
    request = struct.pack("16sH14x", b"lo", 0x1 | 0x40)  # IFF_UP | IFF_RUNNING
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, 0x8914, request)
