"""Stands for a sandboxed process that goes wrong, in the way its argument says."""

import sys

from executor import frames

match sys.argv[1]:
    case "silent":
        pass
    case "unavailable":
        frames.send(0, b"\xffno seccomp here")
    case "dies":
        frames.send(0, b"\x01")
        frames.receive(0)
    case "babbles":
        frames.send(0, b"\x01")
        frames.receive(0)
        frames.write(0, b"\xff" * 8)
        frames.receive(0)
