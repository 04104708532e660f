"""The work loop waits on a socket that never answers; a side thread keeps a port open and chats on."""

import socket
import threading
import time

INTERVAL_S = 1


def answer(listener: socket.socket) -> None:
    """The side thread: proof of nothing."""
    while True:
        connection, _ = listener.accept()
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        connection.close()


def chatter() -> None:
    while True:
        print("health check: ok", flush=True)
        time.sleep(0.2)


def main() -> None:
    import midwatch as mw
    from midwatch.drills.programs import stage

    mw.init()
    stage.wait_until_watched()
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=answer, args=(listener,), daemon=True).start()
    threading.Thread(target=chatter, daemon=True).start()
    for _ in range(5):
        with mw.cycle():
            time.sleep(0.1)
    if not stage.seen("evidence"):
        stage.note("evidence", time.time() + INTERVAL_S)
        silent = socket.create_server(("127.0.0.1", 0))
        with socket.create_connection(silent.getsockname()) as connection:
            connection.recv(1)  # for ever
    while True:
        with mw.cycle():
            time.sleep(0.2)


if __name__ == "__main__":
    main()
