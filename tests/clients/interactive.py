"""A conversation with a running program, and a cancelled one, with python-socketio."""

from scenario import Listener, post, same

CODE = "import sys\nprint('name?', flush=True)\nprint('hello', input(), flush=True)\nprint(len(sys.stdin.read()))"


def started(code):
    return post("/api/execute", {"code": code, "language": "python", "interactive": True})["executionId"]


def output(heard):
    return "".join(data["data"] for name, data in heard if name == "execution_output")


listener = Listener()
execution = started(CODE)
listener.emit("join_execution", {"executionId": execution})
heard = []
listener.until(lambda *_: output(heard) == "name?\n", heard)
listener.emit("execution_input", {"executionId": execution, "data": "Grace\n"})
listener.until(lambda *_: output(heard) == "name?\nhello Grace\n", heard)
listener.emit("execution_input", {"executionId": execution, "data": "äö", "eof": True})
result = listener.until(lambda name, _: name == "execution_result", heard)[-1][1]
same((result["status"], result["output"]), ("success", "name?\nhello Grace\n2\n"))

execution = started("input()")
listener.emit("join_execution", execution)
listener.until(lambda name, data: name == "execution_status" and data["state"] == "running")
listener.emit("execution_cancel", {"executionId": execution})
result = listener.until(lambda name, _: name == "execution_result")[-1][1]
same(result["status"], "cancelled")
listener.close()
