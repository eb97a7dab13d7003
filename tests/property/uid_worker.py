"""Reads pickled configs from stdin and writes their uids, for ever."""

import pickle
import struct
import sys

from exca_like import ConfDict

while header := sys.stdin.buffer.read(4):
    batch = pickle.loads(sys.stdin.buffer.read(*struct.unpack("<I", header)))
    answer = pickle.dumps([ConfDict(config).to_uid() for config in batch])
    sys.stdout.buffer.write(struct.pack("<I", len(answer)) + answer)
    sys.stdout.buffer.flush()
