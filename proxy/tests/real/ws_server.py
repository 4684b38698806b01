"""A WebSocket server: echoes, and closes with the code it is told. Prints its port."""

from websockets.sync.server import serve


def handler(connection):
    for message in connection:
        if isinstance(message, str) and message.startswith("close "):
            connection.close(int(message.split()[1]), "as asked")
            return
        connection.send(message)


with serve(handler, "127.0.0.1", 0, subprotocols=["chat"], max_size=None) as server:
    print("port", server.socket.getsockname()[1], flush=True)
    server.serve_forever()
