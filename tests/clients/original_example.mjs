// The original's own example, letter for letter.

import assert from 'node:assert/strict';
import { arrival, connect, scenario, url } from './scenario.mjs';

await scenario(async () => {
  const response = await fetch(`${url}/api/execute`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: `{"code": "console.log('Hello, World!');", "language": "javascript", "input": ""}`,
  });
  assert.ok(response.ok, `status ${response.status}`);
  const answer = await response.json();
  assert.match(answer.executionId, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
  assert.deepEqual(answer, { executionId: answer.executionId, message: 'Code execution started' });

  const socket = await connect();
  socket.emit('join_execution', answer.executionId);
  const result = await arrival(socket, 'execution_result');
  assert.equal(result.executionId, answer.executionId);
  assert.equal(result.status, 'success');
  assert.equal(result.output, 'Hello, World!\n');
  assert.equal(result.exitCode, 0);

  const health = await (await fetch(`${url}/api/health`)).json();
  assert.equal(health.status, 'ok');
  assert.equal(health.message, 'Server is running');
});
