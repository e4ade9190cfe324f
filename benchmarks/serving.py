"""Images per second of `POST /api/predict` beside the engine's own batched rate: results/serving.json.

Usage: python benchmarks/serving.py [MODEL]      ViT-B/16, some minutes on two cores.
"""

import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from http.client import HTTPConnection
from io import BytesIO
from pathlib import Path

import numpy as np
import skimage.data
import torch
from PIL import Image

import vitlab
from vitlab.data.resize import prepare
from vitlab.runtime import choose, environment
from vitlab.serving.engine import torch_engine

RESULTS = Path(__file__).parent / "results" / "serving.json"
BATCH, CLIENTS, ROUNDS = 8, 16, 4
BOUND = 0.9


def main() -> None:
    """Take turns: batches through the engine, then as many images through the server, so that both see one machine."""
    name = sys.argv[1] if len(sys.argv) > 1 else "ViT-B/16"
    torch.manual_seed(0)
    model = vitlab.create_model(name).eval()
    engine, picture = torch_engine(model, choose("cpu")), skimage.data.astronaut()
    file = BytesIO()
    Image.fromarray(picture).save(file, format="JPEG", quality=90)
    batch_BHWC = np.stack([prepare(picture, model.preprocessing)] * BATCH)
    with tempfile.TemporaryDirectory() as folder:
        vitlab.save_model(model, Path(folder) / "model")
        command = [sys.executable, "-m", "vitlab", "serve", folder + "/model", "--port", "0", "--device", "cpu"]
        with subprocess.Popen([*command, "--batch", str(BATCH)], stderr=subprocess.PIPE, text=True) as server:
            assert server.stderr is not None
            port = next(int(found[1]) for line in server.stderr if (found := re.search(r"127\.0\.0\.1:(\d+)", line)))
            engine(batch_BHWC)
            rounds = [one_round(engine, batch_BHWC, port, file.getvalue()) for _ in range(ROUNDS)]
            server.terminate()
    ratio = statistics.median(each["server"] / each["engine"] for each in rounds)
    stored = {
        "measured": date.today().isoformat(),
        "environment": environment(choose("cpu")),
        "model": name,
        "image": "a JPEG of 512 x 512 pixels, decoded and resized by the server",
        "batch": BATCH,
        "clients": CLIENTS,
        "images_per_second": rounds,
        "median_ratio": round(ratio, 3),
        "bound": BOUND,
    }
    RESULTS.write_text(json.dumps(stored, indent=2) + "\n")
    print(f"{ratio:.2f} of the engine's own rate; bound {BOUND}")
    sys.exit(ratio < BOUND)


def one_round(engine: object, batch_BHWC: np.ndarray, port: int, data: bytes) -> dict[str, float]:
    """Images per second of the engine alone and of the server, each over as many images."""
    begun = time.perf_counter()
    for _ in range(CLIENTS // BATCH):
        engine(batch_BHWC)  # type: ignore[operator]
    between = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(lambda _: post(port, data), range(CLIENTS)))
    end = time.perf_counter()
    rates = {"engine": CLIENTS / (between - begun), "server": CLIENTS / (end - between)}
    print(rates, file=sys.stderr)
    return {way: round(rate, 3) for way, rate in rates.items()}


def post(port: int, data: bytes) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=300)
    connection.request("POST", "/api/predict", data, {"Content-Type": "image/jpeg"})
    response = connection.getresponse()
    assert response.status == 200, response.read()
    response.read()
    connection.close()


if __name__ == "__main__":
    main()
