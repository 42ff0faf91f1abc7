// The known client of the original: default options, one listener for the result, no acknowledgements.

import assert from 'node:assert/strict';
import { io } from 'socket.io-client';
import { named, scenario, url } from './scenario.mjs';

async function execute(socket, code, language, input) {
  const response = await fetch(`${url}/api/execute`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ code, language, input }),
  });
  const data = await response.json();
  if (data.result) return data.result;
  const result = new Promise((resolve) => socket.once('execution_result', resolve));
  socket.emit('join_execution', data.executionId);
  return named('execution_result', result);
}

await scenario(async () => {
  const socket = io(url);
  await named('connect', new Promise((resolve) => socket.on('connect', resolve)));
  const programs = [
    ["console.log('Hello, World!');", 'javascript', '', 'success', 'Hello, World!\n', 0],
    ['print(input()[::-1])', 'python', 'abc', 'success', 'cba\n', 0],
    ['raise SystemExit(3)', 'python', '', 'runtime_error', '', 3],
    ['#include <stdio.h>\nint main(void) { puts("c"); }', 'c', '', 'success', 'c\n', 0],
  ];
  // One after the other on one connection: no result may be taken for another's.
  for (const [code, language, input, status, output, exitCode] of programs) {
    const result = await execute(socket, code, language, input);
    assert.deepEqual([result.status, result.output, result.exitCode], [status, output, exitCode], code);
  }
  socket.disconnect();
});
