// A message that is sent with a callback is answered; execute is answered as POST is, and has joined.

import assert from 'node:assert/strict';
import { arrival, connect, scenario } from './scenario.mjs';

await scenario(async () => {
  const socket = await connect();
  const ask = (event, data) => socket.timeout(60_000).emitWithAck(event, data);
  const started = await ask('execute', { language: 'python', code: 'print(6*7)', colour: 'red' });
  assert.equal(started.message, 'Code execution started');
  assert.match(started.warnings[0], /colour/);
  const result = await arrival(socket, 'execution_result');
  assert.equal(result.executionId, started.executionId);
  assert.equal(result.stdout, '42\n');

  assert.deepEqual(await ask('join_execution', started.executionId), { executionId: started.executionId });
  const refused = await ask('execute', { language: 'cobol', code: '1' });
  assert.match(refused.message, /cobol.*python/);
  assert.match((await ask('join_execution', 'unknown')).message, /no execution/);
  assert.match((await ask('no_such_event', {})).message, /no_such_event/);

  // JSON so deep that a careless reader would run out of stack is one more mistake.
  const seen = arrival(socket, 'execution_error', ({ message }) => /missing/.test(message));
  socket.io.engine.write(`2["join_execution",${'['.repeat(100_000)}${']'.repeat(100_000)}]`);
  await seen;
  assert.ok(socket.connected);
});
