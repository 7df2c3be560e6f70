"""What both Python peers say and hear: JSON lines; see foreign.rs."""

import asyncio
import json
import sys


def say(event, **more):
    print(json.dumps({"event": event, **more}), flush=True)


async def commands():
    """Yields the commands that arrive on stdin, until it ends."""
    reader = asyncio.StreamReader(limit=1 << 24)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield json.loads(line)


async def obey(command, socket, id):
    """Does to `socket` what `command` asks for."""
    match command["command"]:
        case "ping":
            data = command["data"].encode()
            pong = await socket.ping(data)

            async def report():
                await pong  # resolved only by a pong with this very payload
                say("pong", id=id, data=data.hex())

            task = asyncio.create_task(report())
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        case "send":
            await socket.send(command["data"])
        case "close":
            await socket.close(command["code"], command["reason"])
        case "vanish":
            socket.transport.abort()


def said(socket):
    """The Close frame the peer sent, as the arguments of `say`."""
    code, reason = socket.close_code, socket.close_reason
    return {"code": code, "reason": reason}
