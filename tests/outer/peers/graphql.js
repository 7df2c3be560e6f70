// A graphql-ws server over npm `ws`. Usage: node graphql.js [KEEP_ALIVE_MS]
// The connection_init's payload must be {token: "sesame"}. `tick` counts each 100 ms, `broken` ends in an error
// after one value, `missing` is not in the schema. The server pings with WebSocket frames each KEEP_ALIVE_MS
// (default 12 s, as the library does). SIGTERM closes it in order.
// Says {"event":"listening","port"} on stdout; see foreign.rs.
'use strict';
const { buildSchema } = require('graphql');
const { useServer } = require('graphql-ws/use/ws');
const { WebSocketServer } = require('ws');

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const schema = buildSchema('type Query { hello: String } type Subscription { tick: Int, broken: Int }');
const roots = {
  query: { hello: () => 'world' },
  subscription: {
    async *tick() {
      for (let tick = 0; ; tick++) {
        yield { tick };
        await sleep(100);
      }
    },
    async *broken() {
      yield { broken: 0 };
      throw new Error('out of order');
    },
  },
};

const say = (event, more) => process.stdout.write(JSON.stringify({ event, ...more }) + '\n');
const server = new WebSocketServer({ host: '127.0.0.1', port: 0, path: '/graphql' });
const graphql = useServer(
  {
    schema,
    roots,
    connectionInitWaitTimeout: 3000,
    onConnect: (context) => context.connectionParams?.token === 'sesame',
  },
  server,
  Number(process.argv[2] ?? 12000),
);

server.on('connection', (socket, request) => {
  say('open', { path: request.url });
  socket.on('close', (code, reason) => say('close', { code, reason: reason.toString() }));
});
server.on('listening', () => say('listening', { port: server.address().port }));
process.on('SIGTERM', async () => {
  await graphql.dispose();
  process.exit(0);
});
