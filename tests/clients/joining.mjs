// Joining before, during and after the run gives the same events. The server runs one execution at a time.

import assert from 'node:assert/strict';
import { arrival, connect, finished, printed, roundTrip, scenario, submit } from './scenario.mjs';

await scenario(async () => {
  const before = await connect();
  const occupant = await submit({ language: 'python', code: 'input()', interactive: true });
  const id = await submit({
    language: 'python',
    code: "print('first', flush=True)\nprint('second', input())",
    interactive: true,
  });

  before.emit('join_execution', id);
  const queued = await arrival(before, 'execution_status', ({ state, position }) => state === 'queued' && position);
  assert.equal(queued.position, 1);
  before.emit('execution_input', { executionId: occupant, eof: true });
  await finished(occupant);

  await printed(before, 'first\n');
  const during = await connect();
  during.emit('join_execution', { executionId: id });
  await printed(during, 'first\n');
  before.emit('execution_input', { executionId: id, data: 'line\n', eof: true });
  await arrival(before, 'execution_result');
  await arrival(during, 'execution_result');

  const after = await connect();
  after.emit('join_execution', id);
  await arrival(after, 'execution_result');

  // Joining again changes nothing: there is one result for each that joined.
  for (const socket of [before, during, after]) {
    socket.emit('join_execution', id);
    await roundTrip(socket);
    socket.seen = socket.seen.filter(([name]) => name !== 'execution_error');
  }
  assert.deepEqual(during.seen, before.seen);
  assert.deepEqual(after.seen, before.seen);
  assert.equal(before.seen.filter(([name]) => name === 'execution_result').length, 1);
  before.seen.forEach(([, data], index) => assert.equal(data.seq, index));
  const result = before.seen.at(-1)[1];
  assert.equal(result.output, 'first\nsecond line\n');
});
