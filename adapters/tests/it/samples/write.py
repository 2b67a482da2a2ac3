"""Writes the samples of Parquet beside it, with pyarrow 26: `python write.py`. They are checked in; no test runs this."""

import datetime as dt
import pathlib
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq

folder, rows, utc = pathlib.Path(__file__).parent, range(20), dt.timezone.utc
inner = pa.struct([("lat", pa.float64()), ("lon", pa.float64())])
table = pa.table({
    "id": pa.array(rows, pa.int64()),
    "mw": pa.array([Decimal(i * 1001).scaleb(-3) if i % 7 else None for i in rows], pa.decimal128(18, 3)),
    "wide": pa.array([Decimal("-1234567890123456789012345678.0123456789")] * 20, pa.decimal128(38, 10)),
    "at": pa.array([dt.datetime(2026, 3, 1, 10, 0, i, 123000, utc) for i in rows], pa.timestamp("us", "Europe/Berlin")),
    "clock": pa.array([dt.datetime(2026, 3, 1, 10, i) for i in rows], pa.timestamp("ms")),
    "nanos": pa.array([1772359200000000001 + i for i in rows], pa.timestamp("ns", "UTC")),
    "day": pa.array([dt.date(2026, 3, 1 + i) for i in rows], pa.date32()),
    "tod": pa.array([dt.time(10, 0, 0, 5)] * 20, pa.time64("us")),
    "note": pa.array([f"café {i}" if i % 5 else None for i in rows]),
    "word": pa.array([["a", "b"][i % 2] for i in rows]).dictionary_encode(),
    "ok": pa.array([i % 3 == 0 for i in rows]),
    "raw": pa.array([bytes([i, 255]) for i in rows]),
    "big": pa.array([2**64 - 1 - i for i in rows], pa.uint64()),
    "real": pa.array([0.1 if i != 13 else float("nan") for i in rows], pa.float64()),
    "place": pa.array(
        [None if i % 11 == 0 else {"name": f"p{i}", "gps": {"lat": 52.5, "lon": 13.25}} for i in rows],
        pa.struct([("name", pa.string()), ("gps", inner)]),
    ),
    "tags": pa.array([[1, 2, i] for i in rows], pa.list_(pa.int32())),
    "extra": pa.array([[("k", 1)]] * 20, pa.map_(pa.string(), pa.int32())),
})
plain = {"write_statistics": False, "store_schema": False, "row_group_size": 9, "write_page_checksum": True}
pq.write_table(table, folder / "pyarrow.parquet", compression="zstd", data_page_version="2.0", **plain)
times = table.select(["id", "clock"])
pq.write_table(times, folder / "int96.parquet", compression="snappy", use_deprecated_int96_timestamps=True, **plain)
pq.write_table(table.select(["id"]), folder / "brotli.parquet", compression="brotli", **plain)
