// A client that sends thousands of messages in one go, as a paste does, is served in their order.

import assert from 'node:assert/strict';
import { arrival, connect, scenario, submit } from './scenario.mjs';

const COUNT = 5000;

await scenario(async () => {
  for (const transports of [['polling'], ['websocket']]) {
    const socket = await connect({ transports });
    const id = await submit({ language: 'python', code: 'import sys; print(sys.stdin.read())', interactive: true });
    socket.emit('join_execution', id);
    for (let number = 0; number < COUNT; number++) {
      socket.emit('execution_input', { executionId: id, data: `${number} ` });
    }
    socket.emit('execution_input', { executionId: id, eof: true });
    const result = await arrival(socket, 'execution_result');
    const numbers = result.stdout.trim().split(' ').map(Number);
    assert.deepEqual(numbers, Array.from({ length: COUNT }, (_, number) => number), transports.join());
  }
});
