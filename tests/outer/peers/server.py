"""A server on PyPI's `websockets`, its own keepalive off. Usage: python server.py"""

import asyncio

from lines import commands, obey, said, say
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

sockets = {}


async def handle(socket):
    id = len(sockets) + 1
    sockets[id] = socket
    path = socket.request.path
    say("open", id=id, path=path, port=socket.remote_address[1])
    try:
        async for message in socket:
            text = message if isinstance(message, str) else message.decode(errors="replace")
            say("message", id=id, text=text)
            if path == "/echo":
                await socket.send(message)
    except ConnectionClosed:
        pass  # reported below, with its code
    say("close", id=id, **said(socket))


async def main():
    async with serve(handle, "127.0.0.1", 0, ping_interval=None) as server:
        say("listening", port=server.sockets[0].getsockname()[1])
        async for command in commands():
            for id, socket in sockets.items():
                if socket.close_code is None:
                    await obey(command, socket, id)


asyncio.run(main())
