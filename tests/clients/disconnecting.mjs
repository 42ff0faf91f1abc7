// An execution belongs to nobody's connection: when the one who joined has gone, it runs on for the next.

import assert from 'node:assert/strict';
import { arrival, connect, printed, scenario, submit } from './scenario.mjs';

await scenario(async () => {
  const first = await connect();
  const id = await submit({
    language: 'python',
    code: "print('ready', flush=True)\nprint('got', input())",
    interactive: true,
  });
  first.emit('join_execution', id);
  await printed(first, 'ready\n');
  first.disconnect();
  const second = await connect();
  second.emit('join_execution', id);
  await printed(second, 'ready\n');
  second.emit('execution_input', { executionId: id, data: 'it\n' });
  const result = await arrival(second, 'execution_result');
  assert.equal(result.output, 'ready\ngot it\n');
  assert.equal(result.status, 'success');
});
