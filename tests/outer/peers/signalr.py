"""A SignalR hub on PyPI's `websockets`, written from the published "SignalR Hub Protocol" (JSON encoding) and
"Transport Protocols". Usage: python signalr.py [KEEP_ALIVE [CLIENT_TIMEOUT]], seconds, default 15 and 30.

`/hub` takes anybody and pings whenever it sent nothing for KEEP_ALIVE; `/clock` invokes `tick` each second besides;
`/binary` speaks MessagePack only and refuses the handshake; `/refusing` shakes hands, then closes with an error. A
client silent for CLIENT_TIMEOUT is closed with an error. SIGTERM closes every connection, a reconnect allowed; SIGUSR1
closes them with an error.
"""

import asyncio
import json
import signal
import sys

from lines import say
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

KEEP_ALIVE = float(sys.argv[1]) if len(sys.argv) > 1 else 15.0
CLIENT_TIMEOUT = float(sys.argv[2]) if len(sys.argv) > 2 else 30.0
HANDSHAKE_TIMEOUT = 15.0
SEPARATOR = "\x1e"
PING, CLOSE, INVOCATION = 6, 7, 1
FAILED = {"type": CLOSE, "error": "Connection closed with an error."}
hubs = {}


class Hub:
    def __init__(self, connection):
        self.connection = connection
        self.path = connection.request.path.split("?")[0]
        self.sent = asyncio.get_running_loop().time()
        self.buffer = ""
        self.waiting = []

    async def send(self, *messages):
        """Several messages may share a frame."""
        self.sent = asyncio.get_running_loop().time()
        await self.connection.send("".join(json.dumps(one, separators=(",", ":")) + SEPARATOR for one in messages))

    async def receive(self):
        """The next message; a frame may hold part of one, or several."""
        while not self.waiting:
            frame = await self.connection.recv()
            self.buffer += frame if isinstance(frame, str) else frame.decode()
            *self.waiting, self.buffer = self.buffer.split(SEPARATOR)
        return json.loads(self.waiting.pop(0))

    async def shake_hands(self):
        async with asyncio.timeout(HANDSHAKE_TIMEOUT):
            request = await self.receive()
        say("message", text=json.dumps(request))
        if self.path == "/binary" or request.get("protocol") != "json":
            await self.send({"error": f"The protocol '{request.get('protocol')}' is not supported."})
            return False
        if request.get("version") != 1:
            await self.send({"error": f"The server does not support version {request.get('version')}."})
            return False
        await self.send({})
        return True

    async def keep_alive(self):
        loop = asyncio.get_running_loop()
        while True:
            due = self.sent + KEEP_ALIVE - loop.time()
            if due > 0:
                await asyncio.sleep(due)
            else:
                await self.send({"type": PING})

    async def clock(self):
        at = 0
        while True:
            await asyncio.sleep(1)
            at += 1
            await self.send({"type": INVOCATION, "target": "tick", "arguments": [at]})

    async def leave(self, message):
        await self.send(message)
        await self.connection.close(1000)


async def handle(connection):
    hub = hubs[connection] = Hub(connection)
    say("open", path=connection.request.path)
    tasks = []
    try:
        if not await hub.shake_hands():
            return
        if hub.path == "/refusing":
            return await hub.leave(FAILED)
        tasks.append(asyncio.create_task(hub.keep_alive()))
        if hub.path == "/clock":
            tasks.append(asyncio.create_task(hub.clock()))
        while True:
            async with asyncio.timeout(CLIENT_TIMEOUT):
                message = await hub.receive()
            say("message", text=json.dumps(message))
            if message.get("type") == CLOSE:
                return
    except TimeoutError:
        say("silent")
        await hub.leave(FAILED)
    except ConnectionClosed as closed:
        say("close", code=closed.rcvd.code if closed.rcvd else None)
    finally:
        del hubs[connection]
        for task in tasks:
            task.cancel()


async def main():
    async with serve(handle, "127.0.0.1", 0, ping_interval=None) as server:
        loop, over = asyncio.get_running_loop(), asyncio.Event()

        def each(message):
            return [asyncio.create_task(hub.leave(message)) for hub in list(hubs.values())]

        failing = []
        loop.add_signal_handler(signal.SIGTERM, over.set)
        loop.add_signal_handler(signal.SIGUSR1, lambda: failing.extend(each(FAILED)))
        say("listening", port=server.sockets[0].getsockname()[1])
        await over.wait()
        await asyncio.gather(*each({"type": CLOSE, "allowReconnect": True}), return_exceptions=True)


asyncio.run(main())
