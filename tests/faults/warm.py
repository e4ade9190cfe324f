"""A parent that has imported torch, and forks a trial for every order that it reads: a trial then costs no import.

Each line of stdin is an order (JSON), each line of stdout what came of it. It runs as a process of its own, with one
thread, so that forking is safe; `farm.py` talks to it.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

from faults import trial

POLL_SECONDS = 0.002
HUNG = -1000


def carry_out(order: dict) -> dict:
    """Fork the processes of one run, send the signals that are due, and wait for all."""
    port, begun = _free_port(), time.monotonic()
    running = {rank: _fork(order, rank, port) for rank in range(order["ranks"])}
    tracer = _trace(running[0], order["strace"]) if "strace" in order else None
    due = sorted(order.get("signals", []))  # [seconds, signal, rank]
    latest = order.get("timeout", 60)
    codes, seconds = {}, {}
    while running:
        now = time.monotonic() - begun
        while due and due[0][0] <= now:
            _, number, rank = due.pop(0)
            if rank in running:
                os.kill(running[rank], number)
        if now > latest:
            for pid in running.values():
                os.kill(pid, signal.SIGKILL)
        for rank, pid in list(running.items()):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                del running[rank]
                seconds[rank] = now
                codes[rank] = HUNG if now > latest else os.waitstatus_to_exitcode(status)
                if codes[rank] and order.get("agent", True):
                    # As torchrun does: when one has failed, the others are asked to end, and have 30 seconds.
                    latest = min(latest, now + 30)
                    for other in running.values():
                        os.kill(other, signal.SIGTERM)
        time.sleep(POLL_SECONDS)
    if tracer is not None:
        tracer.wait()
    ranks = range(order["ranks"])
    return {"codes": [codes[rank] for rank in ranks], "seconds": [seconds[rank] for rank in ranks]}


def _fork(order: dict, rank: int, port: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        out = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        if order["ranks"] > 1:
            os.environ.update(
                RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(order["ranks"]),
                MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
            )  # fmt: skip
        if "strace" in order:
            os.kill(os.getpid(), signal.SIGSTOP)  # until the tracer has come
        code = trial.carry_out(Path(order["path"]), order)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _trace(pid: int, arguments: list[str]) -> subprocess.Popen:
    """Attach strace to a process that has stopped itself, and let it go on."""
    os.waitpid(pid, os.WUNTRACED)
    tracer = subprocess.Popen(["strace", "-f", "-qq", "-p", str(pid), *arguments])
    status = Path(f"/proc/{pid}/status")
    while "TracerPid:\t0" in status.read_text() and tracer.poll() is None:
        time.sleep(POLL_SECONDS)
    os.kill(pid, signal.SIGCONT)
    return tracer


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    trial.prepare()
    print("warm", flush=True)
    for line in sys.stdin:
        print(json.dumps(carry_out(json.loads(line))), flush=True)
