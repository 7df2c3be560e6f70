// A client on npm `ws`. Usage: node client.js URL
// Speaks JSON lines: events on stdout, commands on stdin; see foreign.rs for both.
'use strict';
const { WebSocket } = require('ws');

const say = (event, more) => process.stdout.write(JSON.stringify({ event, id: 1, ...more }) + '\n');
const socket = new WebSocket(process.argv[2]);

socket.on('open', () => say('open', { path: new URL(process.argv[2]).pathname, port: socket._socket.localPort }));
socket.on('ping', (data) => say('ping', { data: data.toString('hex') }));
socket.on('pong', (data) => say('pong', { data: data.toString('hex') }));
socket.on('message', (data) => say('message', { text: data.toString() }));
socket.on('error', (error) => say('error', { message: error.message }));
socket.on('close', (code, reason) => say('close', { code, reason: reason.toString() }));

require('readline').createInterface({ input: process.stdin }).on('line', (line) => {
  const { command, data, code, reason } = JSON.parse(line);
  if (command === 'ping') socket.ping(Buffer.from(data));
  else if (command === 'send') socket.send(data);
  else if (command === 'close') socket.close(code, reason);
  else if (command === 'vanish') socket.terminate();
}).on('close', () => process.exit(0));
