// execution_cancel ends a run; what it had printed is kept.

import assert from 'node:assert/strict';
import { arrival, connect, printed, scenario, submit } from './scenario.mjs';

await scenario(async () => {
  const socket = await connect();
  const id = await submit({ language: 'javascript', code: "console.log('here'); setInterval(() => {}, 1000)" });
  socket.emit('join_execution', id);
  await printed(socket, 'here\n');
  socket.emit('execution_cancel', { executionId: id });
  const result = await arrival(socket, 'execution_result');
  assert.equal(result.status, 'cancelled');
  assert.equal(result.output, 'here\n');
  assert.equal(result.exitCode, null);
  assert.ok(result.message);
  // A second time is a mistake that is told.
  socket.emit('execution_cancel', { executionId: id });
  const error = await arrival(socket, 'execution_error');
  assert.equal(error.executionId, id);
  assert.match(error.message, /ended/);
});
