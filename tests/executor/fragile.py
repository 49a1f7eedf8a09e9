"""Stands for a sandboxed process that goes wrong, in the way its argument says."""

import sys

from executor import frames

HELLO = frames.HELLO.pack(1, False)
EXITED = frames.REPORT.pack(0, frames.ENDED_ITSELF, 0)

match sys.argv[1]:
    case "silent":
        pass
    case "unavailable":
        frames.send(0, frames.UNAVAILABLE + b"no seccomp here")
    case "dies":
        frames.send(0, HELLO)
        frames.receive(0)
    case "dies of two inputs":
        frames.send(0, HELLO)
        while len(frames.unpack(frames.receive(0)[frames.REQUEST.size :])) < 4:  # the empty item, a program, its input
            frames.send(0, EXITED)
    case "babbles":
        frames.send(0, HELLO)
        frames.receive(0)
        frames.write(0, b"\xff" * 8)
        frames.receive(0)
