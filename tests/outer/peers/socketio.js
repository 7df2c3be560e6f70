// A Socket.IO server. Usage: node socketio.js PING_INTERVAL_MS PING_TIMEOUT_MS
// `/` takes anybody and emits `tick` each second; `/admin` wants the auth {token: "sesame"}. SIGTERM closes
// it in order, SIGUSR2 disconnects the clients and stays.
// Says {"event":"listening","port"} on stdout; see foreign.rs.
'use strict';
const http = require('http').createServer();
const { Server } = require('socket.io');

const [pingInterval, pingTimeout] = process.argv.slice(2).map(Number);
const io = new Server(http, { pingInterval, pingTimeout, serveClient: false });
const say = (event, more) => process.stdout.write(JSON.stringify({ event, ...more }) + '\n');

io.on('connection', (socket) => {
  say('open', { id: socket.id });
  socket.on('disconnect', (reason) => say('close', { id: socket.id, reason }));
});
io.of('/admin').use((socket, next) => {
  next(socket.handshake.auth.token === 'sesame' ? undefined : new Error('not with this token'));
});
setInterval(() => io.emit('tick', { at: Date.now() }), 1000).unref();

http.listen(0, '127.0.0.1', () => say('listening', { port: http.address().port }));
process.on('SIGTERM', () => io.close(() => process.exit(0)));
process.on('SIGUSR2', () => io.disconnectSockets());
