// Every way to connect: polling only, WebSocket only, polling that is upgraded.

import assert from 'node:assert/strict';
import { arrival, connect, named, scenario, submit } from './scenario.mjs';

await scenario(async () => {
  const ways = [
    [['polling'], 'polling'],
    [['websocket'], 'websocket'],
    [['polling', 'websocket'], 'websocket'],
  ];
  for (const [transports, last] of ways) {
    const socket = await connect({ transports });
    const { engine } = socket.io;
    if (engine.transport.name !== last) {
      await named('upgrade', new Promise((resolve) => engine.once('upgrade', resolve)));
    }
    const id = await submit({ language: 'python', code: "print('grüße 😀')" });
    socket.emit('join_execution', id);
    const result = await arrival(socket, 'execution_result');
    assert.equal(result.stdout, 'grüße 😀\n', transports.join());
    assert.equal(engine.transport.name, last, transports.join());
    socket.disconnect();
  }
});
