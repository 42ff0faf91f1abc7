"""The original's example with python-socketio, on each of its transports."""

from scenario import Listener, post, same

for transports in [None, ["polling"], ["websocket"]]:
    listener = Listener(transports=transports)
    answer = post(
        "/api/execute", {"code": "console.log('Hello, World!');", "language": "javascript", "input": ""}
    )
    same(answer["message"], "Code execution started")
    listener.emit("join_execution", answer["executionId"])
    heard = listener.until(lambda name, _: name == "execution_result")
    result = heard[-1][1]
    same((result["status"], result["output"], result["exitCode"]), ("success", "Hello, World!\n", 0))
    same([data["seq"] for _, data in heard], list(range(len(heard))))
    listener.emit("join_execution", "no-such-id")
    (name, error), = listener.until(lambda *_: True)
    same((name, error["executionId"]), ("execution_error", "no-such-id"))
    listener.close()
