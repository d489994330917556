"""TFRecord files of bert, read by TensorFlow as the trainer does; TensorFlow checks the CRCs."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mpi import PEERS
from scimill.bench import generate
from scimill.bench.params import BenchGenerateConfig
from scimill.config import Layer, build, read_preset
from scimill.parallel.world import World
from scimill.store.output import Output

READER = """
import json, sys
import tensorflow as tf

lengths = dict(input_ids=512, input_mask=512, segment_ids=512, masked_lm_positions=76, masked_lm_ids=76,
               masked_lm_weights=76, next_sentence_labels=1)
kinds = {name: tf.float32 if name == "masked_lm_weights" else tf.int64 for name in lengths}
features = {name: tf.io.FixedLenFeature([length], kinds[name]) for name, length in lengths.items()}
found = {}
for path in sys.argv[1:]:
    try:
        rows = [tf.io.parse_single_example(raw, features) for raw in tf.data.TFRecordDataset(path)]
        found[path] = [len(rows), [int(value) for value in rows[0]["input_ids"]]]
    except tf.errors.DataLossError:
        found[path] = "damaged"
print(json.dumps(found))
"""


@pytest.mark.needs("TensorFlow")
@pytest.mark.parametrize("preset", ["original", "realistic"])
def test_tensorflow_reads_every_instance_and_finds_a_flipped_bit(tmp_path: Path, preset: str) -> None:
    values = {"workload": "bert", "size": "600kB", "instances_range": "100:100"}
    config = build(BenchGenerateConfig, [read_preset("scimill.bench/presets", preset), Layer("test", values)])
    folder = tmp_path / "set"
    generate.generate(config, Output(folder), World(None))
    whole, flipped = sorted(folder.glob("part-*"))[:2]
    content = bytearray(flipped.read_bytes())
    content[5000] ^= 4
    flipped.write_bytes(content)
    environment = {"PYTHONPATH": str(PEERS / "tensorflow"), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", READER, str(whole), str(flipped), str(folder / "eval_10k")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    count, first = found[str(whole)]
    assert count == 100
    assert np.count_nonzero(first) > 0 and max(first) < 30522
    assert found[str(flipped)] == "damaged"
    assert found[str(folder / "eval_10k")][0] >= 4
