// Whatever a client sends, it is told what was wrong and its connection lives on.

import assert from 'node:assert/strict';
import { arrival, connect, scenario, submit } from './scenario.mjs';

await scenario(async () => {
  const socket = await connect();
  const unknown = '00000000-0000-4000-8000-000000000000';
  const messages = [
    ['join_execution', [unknown]],
    ['join_execution', ['no id at all']],
    ['join_execution', [42]],
    ['join_execution', [null]],
    ['join_execution', [{}]],
    ['join_execution', [{ executionId: 5 }]],
    ['join_execution', [[]]],
    ['join_execution', []],
    ['execution_input', [{ executionId: unknown, data: 'x' }]],
    ['execution_input', [{ data: 'x' }]],
    ['execution_cancel', [{ executionId: unknown }]],
    ['execution_cancel', []],
    ['no_such_event', [{ some: 'thing' }]],
    ['join_execution', [Buffer.from('binary')]],
  ];
  for (const [event, payload] of messages) {
    socket.seen = [];
    socket.emit(event, ...payload);
    const error = await arrival(socket, 'execution_error');
    const told = `${event} ${JSON.stringify(payload)}: ${JSON.stringify(error)}`;
    assert.equal(typeof error.message, 'string', told);
    assert.ok(error.message.length > 0, told);
    assert.equal(error.error, error.message, told);
    if (payload[0] === unknown) assert.equal(error.executionId, unknown, told);
  }
  // Input for an execution that takes none.
  const id = await submit({ language: 'python', code: 'print(1)' });
  socket.seen = [];
  socket.emit('execution_input', { executionId: id, data: 'x' });
  assert.equal((await arrival(socket, 'execution_error')).executionId, id);

  socket.emit('join_execution', id);
  assert.equal((await arrival(socket, 'execution_result')).output, '1\n');
  assert.ok(socket.connected);
});
