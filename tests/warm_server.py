"""The process behind warm.py: imports, then forks for each command it is sent. Run as a script, with a socket's name."""

from __future__ import annotations

import atexit
import ctypes
import gc
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import threading
import traceback
from contextlib import suppress
from typing import Any


def serve(name: str, ready: int) -> dict[str, Any] | None:
    """Fork for each order, tell its pid and how it ended. In a fork this gives the order; when standard input ends, None."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(f"\0{name}")
    listening.listen(64)
    wake, woken = socket.socketpair()
    woken.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken.fileno())
    os.write(ready, b"1")
    os.close(ready)
    alive: dict[int, socket.socket] = {}
    with selectors.DefaultSelector() as selector:
        for heard in (listening, wake, sys.stdin):
            selector.register(heard, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is sys.stdin:
                    return None
                if key.fileobj is wake:
                    wake.recv(4096)
                    _reap(alive)
                    continue
                connection, _ = listening.accept()
                length, files, _, _ = socket.recv_fds(connection, 8, 2)
                order = json.loads(_exactly(connection, int.from_bytes(length)))
                pid = os.fork()
                if not pid:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    for held in (listening, wake, woken, connection, *alive.values()):
                        held.close()
                    selector.close()
                    order["files"] = files
                    return order  # type: ignore[no-any-return]
                for file in files:
                    os.close(file)
                alive[pid] = connection
                connection.sendall(f"{pid}\n".encode())


def _reap(alive: dict[int, socket.socket]) -> None:
    while alive:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        connection = alive.pop(pid)
        with suppress(OSError):  # who asked may be gone
            connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
        connection.close()


def _exactly(connection: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count:
        got += connection.recv(count - len(got))
    return got


def become(order: dict[str, Any]) -> None:
    """Be what `python -m MODULE WORD…` would be in that folder and environment."""
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, file in enumerate((nothing, *order["files"])):
        os.dup2(file, number)
        os.close(file)
    module, *words = order["words"]
    sys.path[0] = order["cwd"]
    sys.argv = [module, *words]
    if order["die_at"] is not None:
        shim = ctypes.CDLL(None)
        if order["die_at"]:
            shim.kill_at_arm(order["die_at"])
        else:
            shim.kill_at_arm(-1)
            atexit.register(lambda: sys.stderr.write(f"changes of the disk: {shim.kill_at_counted()}\n"))
    code = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as asked:
        code = asked.code if isinstance(asked.code, int) else int(asked.code is not None)
        if isinstance(asked.code, str):
            print(asked.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    end(code)


def end(code: int) -> None:
    """What an interpreter does as it ends, but for taking apart all that it has imported, which would copy all of it first."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    if os.fork():
        os._exit(0)  # who started this waits for a process that has ended, and the server is nobody's child
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    from tests.warm import libraries

    libraries()
    del sys.modules["tests.warm"], sys.modules["tests"]
    with open("/proc/self/status") as status:
        threads = next(line for line in status if line.startswith("Threads:")).split()[1]
    if threads != "1":
        sys.exit(f"a process with {threads} threads cannot be forked safely")
    gc.freeze()  # else the first collection in a fork copies every page that it looks at
    order = serve(sys.argv[1], int(sys.argv[2]))
    if order is not None:
        become(order)
