// A server on npm `ws`. Usage: node server.js
// Speaks JSON lines: events on stdout, commands on stdin; see foreign.rs for both.
'use strict';
const { WebSocketServer } = require('ws');

const say = (event, more) => process.stdout.write(JSON.stringify({ event, ...more }) + '\n');
const server = new WebSocketServer({ host: '127.0.0.1', port: 0, backlog: 4096 });
let last = 0;

server.on('listening', () => say('listening', { port: server.address().port }));
server.on('connection', (socket, request) => {
  const id = ++last;
  socket.on('ping', (data) => say('ping', { id, data: data.toString('hex') }));
  socket.on('pong', (data) => say('pong', { id, data: data.toString('hex') }));
  socket.on('message', (data, isBinary) => {
    say('message', { id, text: data.toString() });
    if (request.url === '/echo') socket.send(data, { binary: isBinary });
  });
  socket.on('close', (code, reason) => say('close', { id, code, reason: reason.toString() }));
  socket.on('error', (error) => say('error', { id, message: error.message }));
  say('open', { id, path: request.url, port: request.socket.remotePort });
});

require('readline').createInterface({ input: process.stdin }).on('line', (line) => {
  const { command, data, code, reason } = JSON.parse(line);
  for (const socket of server.clients) {
    if (command === 'ping') socket.ping(Buffer.from(data));
    else if (command === 'send') socket.send(data);
    else if (command === 'close') socket.close(code, reason);
    else if (command === 'vanish') socket.terminate();
  }
}).on('close', () => process.exit(0));
