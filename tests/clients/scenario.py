"""What the Python scenarios share: a client that keeps what it hears, and waits that end."""

import json
import queue
import sys
import threading
import urllib.request

import socketio

URL = sys.argv[1]
PATIENCE = 60


def post(path, body):
    request = urllib.request.Request(
        URL + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as response:
        return json.load(response)


class Listener:
    """A connection, and its events one by one."""

    def __init__(self, **options):
        self.client = socketio.Client(reconnection=False)
        self.events = queue.Queue()
        self.early = {}
        self.next = {}
        self.lock = threading.Lock()
        for name in ["execution_status", "execution_output", "execution_result", "execution_error"]:
            self.client.on(name, lambda data, name=name: self.hear(name, data))
        self.client.connect(URL, **options)

    def hear(self, name, data):
        """The client gives each event to a thread of its own, in which their order is lost; `seq` has it."""
        if "seq" not in data:
            self.events.put((name, data))
            return
        with self.lock:
            execution = data["executionId"]
            self.early[execution, data["seq"]] = (name, data)
            self.next.setdefault(execution, 0)
            while event := self.early.pop((execution, self.next[execution]), None):
                self.events.put(event)
                self.next[execution] += 1

    def emit(self, event, data):
        self.client.emit(event, data)

    def until(self, wanted, heard=None):
        """Events up to the first that is as wanted."""
        heard = [] if heard is None else heard
        while True:
            heard.append(self.events.get(timeout=PATIENCE))
            if wanted(*heard[-1]):
                return heard

    def close(self):
        self.client.disconnect()


def same(actual, expected):
    if actual != expected:
        sys.exit(f"expected {expected!r}, got {actual!r}")
