"""Opens sockets and becomes a program that is handed them, as a service manager does it.

pass_sockets.py NAME=KIND:WHERE[,NAME=KIND:WHERE..] PROGRAM [ARGUMENT..]
KIND is tcp or udp (WHERE is a port of 127.0.0.1) or unix (WHERE is a path).
"""

import fcntl
import os
import socket
import sys

names = []
opened = []
for spec in sys.argv[1].split(","):
    name, what = spec.split("=", 1)
    kind, where = what.split(":", 1)
    if kind == "unix":
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.bind(where)
    else:
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("127.0.0.1", int(where)))
    if kind != "udp":
        made.listen(16)
    # Out of the way of the numbers they will have.
    opened.append(fcntl.fcntl(made.fileno(), fcntl.F_DUPFD, 100))
    names.append(name)
for number, descriptor in enumerate(opened, start=3):
    os.dup2(descriptor, number, inheritable=True)
    os.close(descriptor)
os.environ["LISTEN_PID"] = str(os.getpid())
os.environ["LISTEN_FDS"] = str(len(opened))
os.environ["LISTEN_FDNAMES"] = ":".join(names)
os.execvp(sys.argv[2], sys.argv[2:])
