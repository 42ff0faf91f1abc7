// The most that may be printed arrives whole and in order, also where the client does not read for a while.

import assert from 'node:assert/strict';
import { arrival, connect, finished, scenario, submit } from './scenario.mjs';

// 1 MiB of numbered lines in many writes, so that a piece that is lost, doubled or misplaced is noticed.
const code = `
import sys
for number in range(0, 131072, 64):
    sys.stdout.write(''.join(f'{line:07}\\n' for line in range(number, number + 64)))
    sys.stdout.flush()
`;
const expected = Array.from({ length: 131072 }, (_, line) => `${String(line).padStart(7, '0')}\n`).join('');

async function check(socket, id) {
  const result = await arrival(socket, 'execution_result');
  assert.equal(result.status, 'success');
  assert.equal(result.truncated, false);
  const said = socket.seen.filter(([name]) => name === 'execution_output').map(([, { data }]) => data).join('');
  assert.ok(said === expected, `the events hold ${said.length} characters that differ from what was printed`);
  assert.ok(result.stdout === expected, `the result holds ${result.stdout.length} characters that differ`);
  socket.seen.forEach(([, { seq }], index) => assert.equal(seq, index));
  assert.equal(result.executionId, id);
}

await scenario(async () => {
  const polling = await connect({ transports: ['polling'] });
  const slow = await connect({ transports: ['websocket'] });
  const quick = await connect({ transports: ['websocket'] });
  const id = await submit({ language: 'python', code });
  for (const socket of [polling, slow, quick]) socket.emit('join_execution', id);
  // Reads nothing until the execution has ended: the server has to hold back, and must not hold up the others.
  const tcp = slow.io.engine.transport.ws._socket;
  await arrival(slow, 'execution_status');
  tcp.pause();
  await check(quick, id);
  await check(polling, id);
  await finished(id);
  tcp.resume();
  await check(slow, id);
});
