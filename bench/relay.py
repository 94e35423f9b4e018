"""A relay that makes a local server as far away as one on a network: what it passes on arrives half a round trip later, and the
connection itself costs one, as TCP's handshake does."""
import asyncio
import threading
import time


class Relay:
    def __init__(self, target_port, round_trip=0.020):
        self.target_port, self.round_trip = target_port, round_trip
        self.durations = []  # seconds from accepting a connection until its client closed it
        self.loop = asyncio.new_event_loop()
        ready = threading.Event()
        threading.Thread(target=self._run, args=(ready,), daemon=True).start()
        ready.wait(30)

    def _run(self, ready):
        asyncio.set_event_loop(self.loop)
        server = self.loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        self.loop.run_forever()

    async def _serve(self, client_reader, client_writer):
        begin = time.monotonic()
        # A client on a network could not have sent anything before the handshake was through.
        connected = begin + self.round_trip
        reader, writer = await asyncio.open_connection("127.0.0.1", self.target_port)
        there = asyncio.ensure_future(self._pass(client_reader, writer, connected, lambda: self.durations.append(time.monotonic() - begin)))
        back = asyncio.ensure_future(self._pass(reader, client_writer, 0, None))
        await asyncio.gather(there, back)

    async def _pass(self, reader, writer, not_before, at_end):
        queue = asyncio.Queue()

        async def deliver():
            while True:
                due, data = await queue.get()
                await asyncio.sleep(max(0, due - time.monotonic()))
                if data is None:
                    break
                writer.write(data)
            try:
                writer.close()
            except OSError:
                pass  # the other side went first

        delivering = asyncio.ensure_future(deliver())
        while True:
            try:
                data = await reader.read(1 << 16)
            except OSError:
                data = b""  # reset
            due = max(time.monotonic(), not_before) + self.round_trip / 2
            if not data:
                if at_end:
                    at_end()
                queue.put_nowait((due, None))
                break
            queue.put_nowait((due, data))
        await delivering

    def stop(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
