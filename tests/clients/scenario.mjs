// What all scenarios share. A scenario gets the server's URL as its argument, ends with 0, or prints what differed
// and ends with 1. Every wait ends: with what was waited for, or with the deadline of the whole scenario.

import { io } from 'socket.io-client';

export const url = process.argv[2];

const PATIENCE = 90_000;
const waiting = new Set();
const sockets = new Set();

export async function scenario(act) {
  const deadline = setTimeout(() => {
    console.error('still waiting for:', [...waiting].join(', ') || 'nothing that was named');
    process.exit(1);
  }, PATIENCE);
  try {
    await act();
  } catch (error) {
    console.error(error);
    process.exit(1);
  }
  clearTimeout(deadline);
  for (const socket of sockets) socket.disconnect();
}

/** Waits with a name, which is told when the wait does not end. */
export async function named(what, promise) {
  waiting.add(what);
  const value = await promise;
  waiting.delete(what);
  return value;
}

export async function post(body) {
  const response = await fetch(`${url}/api/execute`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(body),
  });
  return { status: response.status, body: await response.json() };
}

/** Starts an execution and gives its id. */
export async function submit(body) {
  const answer = await post(body);
  if (answer.status !== 202) throw new Error(`${answer.status}: ${JSON.stringify(answer.body)}`);
  return answer.body.executionId;
}

export async function finished(id) {
  const response = await fetch(`${url}/api/executions/${id}?wait=60`);
  const body = await response.json();
  if (body.state !== 'finished') throw new Error(`not finished: ${JSON.stringify(body)}`);
  return body.result;
}

/** Connects with a connection of its own, and keeps all events of executions that arrive in `socket.seen`. */
export async function connect(options = {}) {
  const socket = io(url, { forceNew: true, ...options });
  sockets.add(socket);
  socket.seen = [];
  socket.onAny((name, data) => {
    if (name.startsWith('execution_')) socket.seen.push([name, data]);
  });
  await named(
    'connect',
    new Promise((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('connect_error', reject);
    }),
  );
  return socket;
}

/** The first event of this name, past or to come, that is as wanted. */
export function arrival(socket, name, wanted = () => true) {
  const past = socket.seen.find(([seen, data]) => seen === name && wanted(data));
  if (past) return Promise.resolve(past[1]);
  return named(
    name,
    new Promise((resolve) => {
      const listener = (data) => {
        if (!wanted(data)) return;
        socket.off(name, listener);
        resolve(data);
      };
      socket.on(name, listener);
    }),
  );
}

/** Whatever the server said before it answered this has arrived when it resolves. */
export function roundTrip(socket) {
  return named('an answer', new Promise((resolve) => socket.emit('join_execution', 'no-such-id', resolve)));
}

/** Resolves when so much of the program's output has arrived. */
export function printed(socket, text) {
  const all = () =>
    socket.seen
      .filter(([name, data]) => name === 'execution_output' && data.stage === 'run')
      .map(([, data]) => data.data)
      .join('');
  // The event that brings it is in `seen` before this listener is called: onAny listeners come first.
  return arrival(socket, 'execution_output', () => all().includes(text));
}
