"""Servers of the protocol on loopback that fail as they are told to, which a real server does not.

The network they serve is that of `tests/runtime/test_session.py`: a patch is its input times 1 + 0.5i.
"""

from __future__ import annotations

import gzip
import json
import socket
import ssl
import struct
import threading
import time
from collections import deque
from concurrent import futures
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

__all__ = ["FailingGrpcServer", "FailingHttpServer"]

GRPC_CODES = {
    "503": grpc.StatusCode.UNAVAILABLE,
    "429": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "500": grpc.StatusCode.INTERNAL,
    "400": grpc.StatusCode.INVALID_ARGUMENT,
    "401": grpc.StatusCode.UNAUTHENTICATED,
    "404": grpc.StatusCode.NOT_FOUND,
}

# Orders that hold for an answer of any kind.
ANYWHERE = {"garbage", "deep", "gzip", "long", "endless", "reset", "drip", "drip head"}


def identity(values: np.ndarray) -> np.ndarray:
    """[m, C, N, N] to [m, N, N, C, 2]."""
    last = np.moveaxis(values, 1, -1).astype(np.float32)
    return np.stack([last, 0.5 * last], axis=-1)


def answered(order: str, values: np.ndarray) -> np.ndarray:
    """The output of the network, or another one as told."""
    parts = identity(values)[:, :-1] if order == "shape" else identity(values)
    if order == "nan":
        parts[-1, 0, 0, 0, 0] = np.nan
    return parts


class Script:
    """What happens to the next inferences, and what was seen of them.

    Orders: a status; ``reset`` (the connection breaks), ``cut`` (in the middle of the answer), ``slow`` (2 s),
    ``shape`` and ``name`` (another output), ``garbage``, ``newer`` (version 2 answers), ``gzip`` (a compressed answer),
    ``long`` (a gigabyte is announced), ``endless`` (never ends), ``drip`` and ``drip head`` (a byte every 0.1 s),
    ``bytes`` (an output of strings), ``deep`` (a description of 100,000 levels), ``less`` (fewer values than its shape
    has), ``nan`` (one value is no number), ``nothing`` (no output).
    Without an order the answer is right.

    `descriptions` replaces what is answered over HTTP, by the last part of the path: ``ready``, ``config``, ``v2``, or
    the name of the model; by an order or a text.
    """

    def __init__(self, contract: str | None, side: int, batch: int) -> None:
        self.contract, self.side, self.batch = contract, side, batch
        self.orders: deque[str] = deque()
        self.descriptions: dict[str, str] = {}
        self.seen: list[int] = []
        self.tokens: set[str | None] = set()
        self.together = self.most_together = 0
        self.pause = 0.0
        self.poured = 0
        self._lock = threading.Lock()

    def next(self, patterns: int, token: str | None) -> str:
        with self._lock:
            self.tokens.add(token)
            self.seen.append(patterns)
            self.together += 1
            self.most_together = max(self.together, self.most_together)
            order = self.orders.popleft() if self.orders else ""
        time.sleep(2.0 if order == "slow" else self.pause)
        return order

    def done(self) -> None:
        with self._lock:
            self.together -= 1

    def metadata(self) -> dict:
        shape = [self.batch, 1, self.side, self.side]
        return {
            "name": "network",
            "versions": ["1"],
            "platform": "script",
            "inputs": [{"name": "diffraction", "datatype": "FP32", "shape": shape}],
            "outputs": [{"name": "object", "datatype": "FP32", "shape": [*shape[:1], *shape[2:], 1, 2]}],
        }

    def config(self) -> dict:
        return {"parameters": {"ptychonnx.contract": {"string_value": self.contract}}}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, *arguments) -> None:
        self.open: list[socket.socket] = []
        super().__init__(*arguments)

    def process_request(self, request, address) -> None:
        self.open.append(request)
        super().process_request(request, address)


class FailingHttpServer:
    """Over HTTP; with the folder of `tests.certificates` over TLS, certificates on both sides.

    With `binary` False it takes and gives tensors as JSON, and says so.
    """

    scheme = "http"

    def __init__(
        self, contract: str | None, side: int, batch: int = -1, tls: Path | None = None, binary: bool = True
    ) -> None:
        self.script = script = Script(contract, side, batch)
        extensions = ["binary_tensor_data"] if binary else []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Head and body in one segment: in two, the second waits for the acknowledgement of the first.
            wbufsize = -1

            def do_GET(self) -> None:
                place = self.path.rpartition("/")[2]
                if place in script.descriptions:
                    order = script.descriptions[place]
                    if order.isdigit() or order in ANYWHERE:
                        self.infer(order, np.zeros((1, 1, 1, 1), np.float32))
                    else:
                        self.answer(200, order.encode())
                elif self.path.endswith("/ready"):
                    self.answer(200, b"")
                elif self.path.endswith("/config"):
                    known = script.contract is not None
                    self.answer(200 if known else 404, json.dumps(script.config() if known else {}).encode())
                elif self.path == "/v2":
                    self.answer(200, json.dumps({"name": "script", "extensions": extensions}).encode())
                else:
                    self.answer(200, json.dumps(script.metadata()).encode())

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                length = int(self.headers.get("Inference-Header-Content-Length", len(body)))
                if length < len(body) and not binary:
                    self.answer(422, b'{"error": "only JSON"}')
                    return
                head = json.loads(body[:length])["inputs"][0]
                data = np.frombuffer(body[length:], np.float32) if binary else np.float32(head["data"])
                values = data.reshape(head["shape"])
                try:
                    self.infer(script.next(len(values), self.headers["Authorization"]), values)
                finally:
                    script.done()

            def infer(self, order: str, values: np.ndarray) -> None:
                if order.isdigit():
                    self.answer(int(order), json.dumps({"error": f"as told: {order}"}).encode())
                    return
                if order == "garbage":
                    self.answer(200, b"<html>a proxy</html>")
                    return
                if order == "deep":
                    self.answer(200, b"[" * 100_000)
                    return
                if order == "gzip":
                    self.answer(200, gzip.compress(bytes(10**7)), {"Content-Encoding": "gzip"})
                    return
                if order in {"long", "endless", "drip", "drip head"}:
                    self.pour(order)
                    return
                if order == "reset":
                    self.drop()
                    return
                parts = answered(order, values)
                name = "other" if order == "name" else "object"
                datatype = "BYTES" if order == "bytes" else "FP32"
                shape = (10**6, *parts.shape[1:]) if order == "less" else parts.shape
                output = {"name": name, "datatype": datatype, "shape": shape}
                if binary:
                    output["parameters"] = {"binary_data_size": parts.nbytes}
                else:
                    output["data"] = parts.ravel().tolist()
                version = "2" if order == "newer" else "1"
                outputs = [] if order == "nothing" else [output]
                head = json.dumps(
                    {"model_name": "network", "model_version": version, "outputs": outputs}
                ).encode()
                if binary:
                    extra = {"Inference-Header-Content-Length": str(len(head))}
                    self.answer(200, head + parts.tobytes(), extra, cut=order == "cut")
                else:
                    self.answer(200, head)

            def answer(self, status: int, body: bytes, extra: dict | None = None, cut: bool = False) -> None:
                self.send_response(status)
                for key, value in ({"Content-Length": str(len(body))} | (extra or {})).items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(body[: len(body) // 2] if cut else body)
                self.wfile.flush()
                if cut:
                    self.drop()

            def pour(self, order: str) -> None:
                """Send more than anybody wants, as long as somebody reads."""
                line = b"HTTP/1.1 200 OK\r\n"
                length = {"long": b"Content-Length: 1000000000\r\n", "drip": b"Content-Length: 1000\r\n"}
                head = line + length.get(order, b"") + b"\r\n"
                piece = bytes(2**16)
                if order.startswith("drip"):
                    piece, pause = b"x", 0.1
                    head = line if order == "drip head" else head
                else:
                    pause = 0.0
                self.wfile.write(head)
                for _ in range(10**5):
                    self.wfile.write(piece)
                    self.wfile.flush()
                    script.poured += len(piece)
                    time.sleep(pause)

            def drop(self) -> None:
                """A reset instead of an orderly end."""
                self.wfile.flush()
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True

            def handle(self) -> None:
                try:
                    super().handle()
                except (OSError, ValueError):
                    self.close_connection = True

            def finish(self) -> None:
                try:
                    super().finish()
                except (OSError, ValueError):
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tls / "authority.pem"))
            context.load_cert_chain(tls / "server.pem", tls / "server.key")
            context.verify_mode = ssl.CERT_REQUIRED
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.port = self._server.server_address[1]

    def close_idle(self) -> None:
        """Close all connections."""
        for connection in self._server.open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._server.open.clear()

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()


class FailingGrpcServer:
    """Over gRPC; it cannot break connections nor answer garbage."""

    scheme = "grpc"

    def __init__(self, contract: str | None, side: int, batch: int = -1) -> None:
        self.script = script = Script(contract, side, batch)

        class Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):
            def ModelReady(self, request, context):
                return service_pb2.ModelReadyResponse(ready=True)

            def ModelMetadata(self, request, context):
                answer = script.metadata()
                return service_pb2.ModelMetadataResponse(**answer)

            def ModelConfig(self, request, context):
                if script.contract is None:
                    context.abort(grpc.StatusCode.UNIMPLEMENTED, "not Triton")
                answer = service_pb2.ModelConfigResponse()
                answer.config.parameters["ptychonnx.contract"].string_value = script.contract
                return answer

            def ModelInfer(self, request, context):
                shape = tuple(request.inputs[0].shape)
                values = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(shape)
                token = dict(context.invocation_metadata()).get("authorization")
                try:
                    order = script.next(len(values), token)
                finally:
                    script.done()
                if order in GRPC_CODES:
                    context.abort(GRPC_CODES[order], f"as told: {order}")
                parts = answered(order, values)
                datatype = "BYTES" if order == "bytes" else "FP32"
                answer = service_pb2.ModelInferResponse(
                    model_name="network", model_version="2" if order == "newer" else "1"
                )
                if order == "nothing":
                    return answer
                if order == "gzip":
                    context.set_compression(grpc.Compression.Gzip)
                answer.outputs.add(
                    name="other" if order == "name" else "object", datatype=datatype, shape=parts.shape
                )
                content = np.ascontiguousarray(parts).tobytes()
                answer.raw_output_contents.append(
                    content + bytes(2 * 10**7 if order in {"long", "gzip"} else 0)
                )
                return answer

        self._server = grpc.server(futures.ThreadPoolExecutor(16))
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Servicer(), self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def close(self) -> None:
        """Stop."""
        self._server.stop(0).wait()
