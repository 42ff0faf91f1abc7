// Output arrives while the program waits for input; input and its end are sent over the socket.

import assert from 'node:assert/strict';
import { arrival, connect, printed, roundTrip, scenario, submit } from './scenario.mjs';

const code = `
import sys
print('name?', end=' ', flush=True)
print('hello', input(), flush=True)
print('rest:', repr(sys.stdin.read()))
`;

await scenario(async () => {
  const socket = await connect();
  const id = await submit({ language: 'python', code, interactive: true });
  socket.emit('join_execution', id);
  await printed(socket, 'name? ');
  socket.emit('execution_input', { executionId: id, data: 'Ada\n' });
  await printed(socket, 'hello Ada\n');
  await roundTrip(socket);
  assert.ok(!socket.seen.some(([name]) => name === 'execution_result'), 'it waits for the end of its input');
  socket.emit('execution_input', { executionId: id, data: 'a\nb', eof: true });
  const result = await arrival(socket, 'execution_result');
  assert.equal(result.status, 'success');
  assert.equal(result.output, "name? hello Ada\nrest: 'a\\nb'\n");
  const said = socket.seen.filter(([name]) => name === 'execution_output').map(([, data]) => data.data);
  assert.equal(said.join(''), result.output);
});
