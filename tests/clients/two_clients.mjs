// Two that joined the same execution get the same, whatever way they are connected.

import assert from 'node:assert/strict';
import { arrival, connect, printed, scenario, submit } from './scenario.mjs';

await scenario(async () => {
  const one = await connect({ transports: ['websocket'] });
  const two = await connect({ transports: ['polling'] });
  const id = await submit({
    language: 'python',
    code: "import sys\nprint('out', flush=True)\nprint('err', file=sys.stderr, flush=True)\ninput()",
    interactive: true,
  });
  for (const socket of [one, two]) socket.emit('join_execution', id);
  for (const socket of [one, two]) await printed(socket, 'err\n');
  // Either of them may speak to the program.
  two.emit('execution_input', { executionId: id, data: '\n' });
  for (const socket of [one, two]) await arrival(socket, 'execution_result');
  assert.deepEqual(two.seen, one.seen);
  const streams = one.seen.filter(([name]) => name === 'execution_output').map(([, { stream, data }]) => [stream, data]);
  assert.deepEqual(streams, [['stdout', 'out\n'], ['stderr', 'err\n']]);
});
