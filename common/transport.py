"""Requests and notices between processes, over ZeroMQ and the frames of common.wire.

A server (ROUTER) has many clients (DEALER). The protocol:

* A client first says HELLO; the server checks schema, run, configuration and incarnation and answers WELCOME
  with the credits of the client, or REFUSED with the reason. A newer HELLO of the same (role, index) takes
  the place over, and the older connection is refused from then on.
* A request carries an id unique within its client and gets one reply with that id. Ids make repetition
  harmless: the client sends the unanswered again, the server runs an id once and keeps its reply.
* Id 0 belongs to no request: pings, pongs and notices, and Failed, by which a server that does not know a
  connection (it was restarted, or gave the client up) asks for a new HELLO. The client says it and repeats
  what is pending.
* Credits bound the requests a client has unanswered. Long polls and pings neither take one nor wait for one.
* Clients ping once per heartbeat. Three silent heartbeats end a peer; `patience` seconds of silence end a
  server.
* Malformed messages are counted, logged once per peer and dropped.

Endpoints are ipc:// in a private folder, or tcp:// with CURVE and an allow-list (common.keys).
"""

from common.client import LONG_POLLS, Client
from common.keys import Security, ipc_address, private_folder
from common.server import Expected, Handler, Peer, Server

__all__ = [
    "LONG_POLLS",
    "Client",
    "Expected",
    "Handler",
    "Peer",
    "Security",
    "Server",
    "ipc_address",
    "private_folder",
]
