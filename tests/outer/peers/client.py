"""A client on PyPI's `websockets`, its own keepalive off. Usage: python client.py URL"""

import asyncio
import sys

from lines import commands, obey, said, say
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed


async def read(socket):
    try:
        async for message in socket:
            say("message", id=1, text=message if isinstance(message, str) else message.decode())
    except ConnectionClosed:
        pass  # reported below, with its code
    say("close", id=1, **said(socket))


async def main():
    async with connect(sys.argv[1], ping_interval=None, proxy=None) as socket:
        say("open", id=1, path=socket.request.path, port=socket.local_address[1])
        reading = asyncio.create_task(read(socket))
        async for command in commands():
            await obey(command, socket, 1)
        reading.cancel()


asyncio.run(main())
