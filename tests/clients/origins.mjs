// Pages of other origins cannot speak to the server; pages on localhost and programs can.

import assert from 'node:assert/strict';
import { io } from 'socket.io-client';
import { connect, named, scenario, url } from './scenario.mjs';

const foreign = { origin: 'https://evil.example' };
const local = { origin: 'http://localhost:5173' };

await scenario(async () => {
  for (const transports of [['polling'], ['websocket']]) {
    const socket = io(url, { forceNew: true, reconnection: false, transports, extraHeaders: foreign });
    const refused = new Promise((resolve, reject) => {
      socket.once('connect_error', resolve);
      socket.once('connect', () => reject(new Error(`${transports}: a foreign page connected`)));
    });
    await named(`refusal of ${transports}`, refused);
    socket.disconnect();
    const own = await connect({ transports, extraHeaders: local });
    assert.ok(own.connected);
  }

  const handshake = (headers) => fetch(`${url}/socket.io/?EIO=4&transport=polling`, { headers });
  assert.equal((await handshake(foreign)).status, 403);
  const welcome = await handshake(local);
  assert.equal(welcome.status, 200);
  assert.equal(welcome.headers.get('access-control-allow-origin'), local.origin);
  assert.equal((await handshake({})).status, 200);
});
