// The clients the makers of Phoenix and of SignalR publish, against the servers of this directory that were written
// from their protocols. Usage: node official.js phoenix|signalr URL
// Says each thing that happens as a JSON line {"event",..}; end of input ends it.
'use strict';

const say = (event, more) => process.stdout.write(JSON.stringify({ event, ...more }) + '\n');
const [kind, url] = process.argv.slice(2);

async function phoenix() {
  const { Socket } = require('phoenix');
  const socket = new Socket(url, { transport: require('ws').WebSocket, heartbeatIntervalMs: 300, vsn: '2.0.0' });
  // The client is made for browsers; it only logs what it hears of its own heartbeat.
  socket.onMessage(({ topic, event, payload }) => say('message', { topic, name: event, payload }));
  socket.onClose(({ code }) => say('close', { code }));
  socket.connect();
  for (const topic of ['room:clock', 'room:private', 'nope']) {
    const channel = socket.channel(topic);
    channel.onClose(() => say('channel close', { topic }));
    channel.onError(() => say('channel error', { topic }));
    channel.join()
      .receive('ok', () => say('joined', { topic }))
      .receive('error', ({ reason }) => { channel.leave(); say('refused', { topic, reason }); });
  }
}

async function signalr() {
  const { HubConnectionBuilder, HttpTransportType, LogLevel } = require('@microsoft/signalr');
  const hub = new HubConnectionBuilder()
    .withUrl(url, { skipNegotiation: true, transport: HttpTransportType.WebSockets })
    .configureLogging(LogLevel.Critical)
    .build();
  hub.serverTimeoutInMilliseconds = 1500;
  hub.keepAliveIntervalInMilliseconds = 300;
  hub.on('tick', (at) => say('tick', { at }));
  hub.onclose((error) => say('close', { message: error?.message }));
  await hub.start();
  say('open');
}

({ phoenix, signalr })[kind]().catch((error) => say('error', { message: error.message }));
process.stdin.resume().on('end', () => process.exit(0));
