"""The keeper of one llama-server: starts it, holds its stdin, writes down what it says and how it ends.

Run as a script of its own, `python -S -E -s llama_shim.py`, with the standard library alone, so that it starts in
milliseconds and stays small. Whom it is to keep comes on its stdin (`Order`), so one can stand ready before it is known for
which model; when the order never comes whole, because whoever was to write it is gone, it ends.

An order may say that the server is to wait: it comes as far as it can before it looks at its model. It goes on when one more word
comes on stdin, and is killed when that closes without one. Until then nothing is written, and it counts for nothing.

It exists because llama-server tells the progress of a load only to a parent that looks like its own router (environment
LLAMA_SERVER_ROUTER_PORT and a pipe on stdin), and ends when that pipe closes: a worker that held it would take its models along when
it restarts. The keeper lives on in a session of its own; when it is killed the pipe closes and the model ends: nothing is left over.

Reads from the folder: api_key. Writes there: process.json (who runs, once), events.jsonl (the states that
llama-server tells), server.log, exit.json (how it ended, once, at the end). SIGTERM makes it end both.
"""
# pathlib would make the start slower by a third, and these files stay open for life.
# ruff: noqa: PTH105, PTH118, PTH123, SIM115, E402

from __future__ import annotations

import os


class Order:
    """Whom to keep: the instance's folder, and the command and environment of its server.

    Texts, each with a NUL behind it, which none of them holds; before them how many bytes they are, in DIGITS digits.
    """

    DIGITS = 8

    def __init__(self, folder: str, argv: list[str], env: dict[str, str], *, waits: bool = False) -> None:
        """`waits`: for one more word before it looks at the model."""
        self.folder = folder
        self.argv = argv
        self.env = env
        self.waits = waits

    def encode(self) -> bytes:
        """As it is sent."""
        pairs = (text for pair in self.env.items() for text in pair)
        texts = [self.folder, "waits" if self.waits else "", str(len(self.argv)), *self.argv, *pairs]
        data = os.fsencode("".join(text + "\0" for text in texts))
        return b"%0*d" % (self.DIGITS, len(data)) + data

    @classmethod
    def read(cls, fd: int) -> Order | None:
        """As it was sent, and not a byte of what follows it; None when whoever sends it is gone before it is whole."""
        digits = read_exactly(fd, cls.DIGITS)
        data = read_exactly(fd, int(digits)) if digits else b""
        if not data:
            return None
        folder, waits, length, *rest = os.fsdecode(data).split("\0")[:-1]
        argv, pairs = rest[: int(length)], rest[int(length) :]
        return cls(folder, argv, dict(zip(pairs[::2], pairs[1::2], strict=True)), waits=bool(waits))


class Start:
    """The server, just started in a process group of its own, and our ends of its pipes. Needs `os` alone."""

    def __init__(self, order: Order) -> None:
        """Start it; `failure` says why that did not work."""
        self.argv = order.argv
        self.key = read_key(order.folder)
        self.pid = 0
        self.failure: OSError | None = None
        child_stdin, self.stdin = os.pipe()
        self.stdout, child_stdout = os.pipe()
        self.stderr, child_stderr = os.pipe()
        ends = [child_stdin, child_stdout, child_stderr]
        self.gate = -1  # the server waits until this is closed
        if order.waits:
            # It reads a file with further keys when it comes to the last of its flags, to its end: an empty one that ends when we let it.
            child_gate, self.gate = os.pipe()
            ends.append(child_gate)
            self.argv = [*order.argv, "--api-key-file", f"/dev/fd/{len(ends) - 1}"]
        try:
            # LLAMA_API_KEY and not --api-key: every local user can read the arguments of a process.
            self.pid = os.posix_spawn(
                self.argv[0],
                self.argv,
                {**order.env, "LLAMA_API_KEY": self.key},
                file_actions=[(os.POSIX_SPAWN_DUP2, end, number) for number, end in enumerate(ends)],
                setpgroup=0,
                setsigmask=(),  # the worker's mask is undone, and its ignored signals too
                setsigdef=range(1, 32),
            )
        except OSError as exc:
            self.failure = exc
        for end in ends:
            os.close(end)


def read_key(folder: str) -> str:
    """The key that the server is to ask for."""
    with open(os.path.join(folder, "api_key"), encoding="ascii") as file:
        return file.read().strip()


def read_exactly(fd: int, count: int) -> bytes:
    """So many bytes; none when there are not so many."""
    data = b""
    while len(data) < count:
        piece = os.read(fd, count - len(data))
        if not piece:
            return b""
        data += piece
    return data


def settle_in(folder: str) -> None:
    """Live in the folder, with no stdin; what goes wrong from here on is told in the server's log."""
    os.chdir(folder)
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open("server.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for end, number in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(end, number)
    os.close(nothing)
    os.close(log)


order: Order | None = None
started: Start | None = None
orders = -1
if __name__ == "__main__":
    os.umask(0o077)
    order = Order.read(0)
    if order is None:
        os._exit(0)
    orders = os.dup(0)
    settle_in(order.folder)
    started = Start(order)

# After the start: importing these takes longer than the interpreter to come up, and the server needs none of them.
import contextlib
import json
import select
import selectors
import signal
import time

STATE_PREFIX = b"cmd_child_to_router:state:"  # llama.cpp tools/server/server-models.cpp, builds 10068 to 11434
EXIT_LINE = b"cmd_router_to_child:exit\n"
POLITE_SECONDS = 1.0  # for the exit line, which a ready server obeys in about 10 ms unless it answers a request
INSIST_SECONDS = 0.5  # between SIGTERM and a second one
KILL_SECONDS = 5.0  # between SIGTERM and SIGKILL
DRAIN_SECONDS = 0.5  # for what is still in the pipes after the end
LOG_BYTES = 5_000_000  # at this size a log is moved to server.log.1
LINE_BYTES = 65_536  # a longer line is cut
TICK_SECONDS = 0.05  # while something is to end


def read_start(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot: with the pid, its identity. None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None


def has_ended(pid: int) -> bool:
    """Whether a child of ours has. Looked at without collecting it, so that its number stays its own until somebody waits for it."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def read_boot_id() -> str:
    """Changes with every boot of the machine; "" where there is none."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def write_json(path: str, data: dict[str, object]) -> None:
    """Write so that a reader sees all of it or nothing."""
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(data, file)
    os.replace(path + ".new", path)


class Log:
    """A log file that starts anew at LOG_BYTES and keeps the one before. No part of the API key gets into it."""

    def __init__(self, path: str, secret: str) -> None:
        self.path = path
        self.secret = secret.encode()
        self.file = open(path, "ab", buffering=0)

    def write(self, line: bytes) -> None:
        """Append a line. A full disk loses the line, not the model."""
        if b"api_keys:" in line:  # llama-server prints the end of the key
            return
        with contextlib.suppress(OSError):
            if self.file.tell() + len(line) > LOG_BYTES:
                os.replace(self.path, self.path + ".1")
                self.file.close()
                self.file = open(self.path, "ab", buffering=0)
            self.file.write(line.replace(self.secret, b"****"))


class Lines:
    """Cuts what comes out of a pipe into lines."""

    def __init__(self, fd: int, log: Log, events: str = "") -> None:
        os.set_blocking(fd, False)
        self.fd = fd
        self.log = log
        self.events = open(events, "ab", buffering=0) if events else None
        self.is_ready = False
        self.rest = b""

    def read(self) -> bool:
        """Take what is there; False at the end."""
        try:
            data = os.read(self.fd, LINE_BYTES)
        except BlockingIOError:
            return True
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            self.take(line + b"\n")
        if self.rest and (not data or len(self.rest) > LINE_BYTES):
            self.take(self.rest + b"\n")
            self.rest = b""
        return bool(data)

    def take(self, line: bytes) -> None:
        """A state goes to the events, everything else to the log."""
        if self.events is None or not line.startswith(STATE_PREFIX):
            self.log.write(line)
            return
        self.is_ready = self.is_ready or b'"ready"' in line
        with contextlib.suppress(OSError):
            self.events.write(line[len(STATE_PREFIX) :])


class Keeper:
    """One llama-server from start to end."""

    def __init__(self, folder: str, child: Start) -> None:
        self.folder = folder
        self.child = child
        self.log = Log(self.at("server.log"), child.key)
        self.stdin: int | None = child.stdin
        self.states = Lines(child.stdout, self.log, self.at("events.jsonl"))
        self.errors = Lines(child.stderr, self.log)
        self.is_asked = False  # to end the server
        self.pressed_at = 0.0  # when the last step to end it was taken, on the monotonic clock
        # What is still to come: (seconds after the step before, signal).
        self.steps = [
            (POLITE_SECONDS, signal.SIGTERM),
            (INSIST_SECONDS, signal.SIGTERM),
            (KILL_SECONDS - INSIST_SECONDS, signal.SIGKILL),
        ]

    def at(self, name: str) -> str:
        """Path of a file of this instance."""
        return os.path.join(self.folder, name)

    def run(self) -> None:
        """Follow it, write down the end."""
        failure = self.child.failure
        if failure is not None:
            self.log.write(f"gantry: cannot start {self.child.argv[0]}: {failure.strerror}\n".encode())
            self.write_exit(errno=failure.errno)
            return
        wakeup = self.catch_signals()
        try:
            self.write_process()
        except OSError:  # whoever wanted it has taken its folder away meanwhile: nobody would ever find it
            self.end_leftovers()
            os.waitpid(self.child.pid, 0)
            return
        self.follow(wakeup)
        self.end_leftovers()
        self.write_exit(os.waitstatus_to_exitcode(os.waitpid(self.child.pid, 0)[1]))

    def catch_signals(self) -> int:
        """Let signals wake the loop through a pipe; gives its reading end. The worker's mask is undone."""
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        return reader

    def write_process(self) -> None:
        """Who runs, so that any later worker can find and prove them."""
        child, keeper = self.child.pid, os.getpid()
        write_json(
            self.at("process.json"),
            {
                "boot_id": read_boot_id(),
                "child": {"pid": child, "start": read_start(child)},
                "keeper": {"pid": keeper, "start": read_start(keeper)},
                "started_at": time.time(),
            },
        )

    def write_exit(self, status: int | None = None, errno: int | None = None) -> None:
        """How it ended. `errno` is set when it could not even be started."""
        write_json(
            self.at("exit.json"),
            {
                "code": status if status is not None and status >= 0 else None,
                "signal": -status if status is not None and status < 0 else None,
                "errno": errno,
                "ended_at": time.time(),
            },
        )

    def follow(self, wakeup: int) -> None:
        """Until the child has ended and its pipes are empty."""
        selector = selectors.DefaultSelector()
        selector.register(wakeup, selectors.EVENT_READ)
        for lines in (self.states, self.errors):
            selector.register(lines.fd, selectors.EVENT_READ, lines)
        ended_at = None
        # Something else may hold the pipes open after the end: they are waited for only so long.
        while ended_at is None or (len(selector.get_map()) > 1 and time.monotonic() - ended_at < DRAIN_SECONDS):
            is_quiet = ended_at is None and not self.is_asked
            for key, _ in selector.select(None if is_quiet else TICK_SECONDS):
                if key.data is None:
                    self.on_signals(os.read(wakeup, 1024))
                elif not key.data.read():
                    selector.unregister(key.fd)
            if ended_at is None and has_ended(self.child.pid):
                ended_at = time.monotonic()
            elif ended_at is None:
                self.press()

    def on_signals(self, numbers: bytes) -> None:
        """SIGTERM, once: the server is to end, cleanly if it can."""
        if signal.SIGTERM not in numbers or self.is_asked:
            return
        self.is_asked = True
        self.pressed_at = time.monotonic()
        if not self.states.is_ready:  # one that still loads would read the line late, and then never end
            self.steps[0] = (0.0, signal.SIGTERM)
        elif self.stdin is not None:
            with contextlib.suppress(OSError):
                os.write(self.stdin, EXIT_LINE)

    def press(self) -> None:
        """After a request to end: one step more each time that the one before had its time.

        SIGTERM alone is not enough. Once ready, llama-server also waits for the end of its stdin, and for a second SIGTERM while it answers.
        """
        if not self.is_asked or not self.steps:
            return
        now = time.monotonic()
        if now - self.pressed_at >= self.steps[0][0]:
            _, number = self.steps.pop(0)
            self.pressed_at = now
            signal_group(self.child.pid, number)
            if self.stdin is not None:  # once: the number may be another file's afterwards
                os.close(self.stdin)
                self.stdin = None

    def end_leftovers(self) -> None:
        """A wrapper script may have ended before the server that it started."""
        signal_group(self.child.pid, signal.SIGKILL)


def signal_group(pid: int, number: int) -> None:
    """To a child and what it started. The child is not collected yet, so the number is surely its own."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def wait_until_wanted(child: Start, orders: int) -> None:
    """Until the word comes that a server waits for. When it never comes, or the server did not wait, both end and nobody is told."""
    is_readable: list[int] = []
    while child.pid and not is_readable and not has_ended(child.pid):
        is_readable, _, _ = select.select([orders], [], [], TICK_SECONDS)
    if is_readable and not has_ended(child.pid) and os.read(orders, 1):
        os.close(child.gate)
        return
    if child.pid:
        signal_group(child.pid, signal.SIGKILL)
        os.waitpid(child.pid, 0)
    os._exit(0)


if order is not None and started is not None:
    if order.waits:
        wait_until_wanted(started, orders)
    os.close(orders)
    try:
        keeper = Keeper(order.folder, started)
    except OSError:  # its folder is gone already: nobody would ever find the server
        if started.pid:
            signal_group(started.pid, signal.SIGKILL)
        raise
    keeper.run()
    os._exit(0)  # all is written; somebody waits for the end, and taking an interpreter down takes longer than that
