"""A Phoenix Channels server on PyPI's `websockets`, written from the published protocol: the guide "Writing a
Channels Client", Phoenix.Socket.V2.JSONSerializer and Phoenix.Socket, phoenix 1.7. Usage: python phoenix.py [TIMEOUT]

`/socket/websocket?vsn=2.0.0`, with `token=wrong` or without that vsn: 403. `room:private` is not to be joined, any
other `room:` topic is, `room:clock` also pushes `tick` each second; other topics match nothing. A client silent for
TIMEOUT seconds (default 60) is closed with 1000, as Cowboy does. SIGTERM drains: Close 1012; SIGUSR1 crashes every
channel, SIGUSR2 stops it.
"""

import asyncio
import json
import signal
import sys
from urllib.parse import parse_qs, urlsplit

from lines import say
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

TIMEOUT = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
sockets = {}


def judge(connection, request):
    url = urlsplit(request.path)
    query = parse_qs(url.query)
    if url.path != "/socket/websocket":
        return connection.respond(404, "")
    if query.get("vsn") != ["2.0.0"] or query.get("token") == ["wrong"]:
        return connection.respond(403, "")


class Socket:
    def __init__(self, connection):
        self.connection = connection
        self.channels = {}  # topic -> (join_ref, the task that pushes, if any)

    async def push(self, *message):
        await self.connection.send(json.dumps(message, separators=(",", ":")))

    async def reply(self, join_ref, ref, topic, status, response):
        await self.push(join_ref, ref, topic, "phx_reply", {"status": status, "response": response})

    async def leave(self, topic, event):
        join_ref, clock = self.channels.pop(topic)
        if clock:
            clock.cancel()
        await self.push(join_ref, join_ref, topic, event, {})

    async def leave_all(self, event):
        for topic in list(self.channels):
            await self.leave(topic, event)

    async def tick(self, join_ref, topic):
        at = 0
        while True:
            await asyncio.sleep(1)
            at += 1
            await self.push(join_ref, None, topic, "tick", {"at": at})

    async def join(self, join_ref, ref, topic):
        if not topic.startswith("room:"):
            return await self.reply(None, ref, topic, "error", {"reason": "unmatched topic"})
        if topic == "room:private":
            return await self.reply(join_ref, ref, topic, "error", {"reason": "unauthorized"})
        if topic in self.channels:
            await self.leave(topic, "phx_close")
        await self.reply(join_ref, ref, topic, "ok", {})
        clock = topic == "room:clock" and asyncio.create_task(self.tick(join_ref, topic))
        self.channels[topic] = (join_ref, clock)

    async def obey(self, message):
        join_ref, ref, topic, event, payload = json.loads(message)
        match (topic, event):
            case ("phoenix", "heartbeat"):
                await self.reply(None, ref, topic, "ok", {})
            case (_, "phx_join"):
                await self.join(join_ref, ref, topic)
            case (_, "phx_leave"):
                await self.reply(join_ref, ref, topic, "ok", {})
                if topic in self.channels:
                    await self.leave(topic, "phx_close")
            case _ if topic in self.channels:
                await self.reply(join_ref, ref, topic, "ok", payload)
            case _:
                await self.reply(None, ref, topic, "error", {"reason": "unmatched topic"})


async def handle(connection):
    socket = sockets[connection] = Socket(connection)
    say("open", path=connection.request.path)
    try:
        while True:
            async with asyncio.timeout(TIMEOUT):
                message = await connection.recv()
            say("message", text=message)
            await socket.obey(message)
    except TimeoutError:
        say("silent")
        await connection.close(1000)
    except ConnectionClosed as closed:
        say("close", code=closed.rcvd.code if closed.rcvd else None)
    finally:
        del sockets[connection]
        for _, clock in socket.channels.values():
            if clock:
                clock.cancel()


async def main():
    async with serve(handle, "127.0.0.1", 0, process_request=judge, ping_interval=None) as server:
        loop, over = asyncio.get_running_loop(), asyncio.Event()

        def each(event):
            for socket in list(sockets.values()):
                tasks.append(asyncio.create_task(socket.leave_all(event)))

        tasks = []
        loop.add_signal_handler(signal.SIGTERM, over.set)
        loop.add_signal_handler(signal.SIGUSR1, each, "phx_error")
        loop.add_signal_handler(signal.SIGUSR2, each, "phx_close")
        say("listening", port=server.sockets[0].getsockname()[1])
        await over.wait()
        server.close(code=1012, reason="")
        await server.wait_closed()


asyncio.run(main())
