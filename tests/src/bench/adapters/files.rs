//! CSV files made of the demo's own data: its rows over and over, each at a time of its own.

use super::{Amount, PROVIDER, adapter, both, document};
use crate::city::City;
use crate::failed::BenchError;
use crate::report::Results;
use jiff::{SignedDuration, Timestamp};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::time::Instant;

/// One shape of file.
struct Shape {
    name: &'static str,
    /// Agency and file whose rows are repeated; their first column is the time.
    like: (&'static str, &'static str),
    mapping: &'static str,
    /// Bytes that its last column, a text, has besides.
    remark: usize,
}

const TRAFFIC: &str = "map:
  time: {from: datetime, type: timestamp, zone: offset}
  clouds: {from: clouds_all, type: integer}
  rain_mm: {from: rain_1h, type: decimal}
  snow_mm: {from: snow_1h, type: decimal}
  temp_k: {from: temp, type: decimal}
  volume: {from: traffic_volume, type: integer}
  weather: {from: weather_main, type: string}
";

const NARROW: Shape =
    Shape { name: "csv_rows", like: ("transport", "traffic_volume_hourly.csv.gz"), mapping: TRAFFIC, remark: 0 };

/// With [`Amount::large`] rows, a file of 2 GB.
const LARGE: Shape = Shape { name: "csv_2gb_rows", remark: 1_000, ..NARROW };

const WIDE: Shape = Shape {
    name: "csv_wide_rows",
    like: (PROVIDER, "grid_load_profiles_q1.csv.gz"),
    mapping: "map: {time: {type: timestamp, zone: offset}}
rest: {type: decimal, required: true}
",
    remark: 0,
};

pub(super) async fn rows(city: &City, amount: Amount, results: &mut Results) -> Result<(), BenchError> {
    let shapes =
        [(NARROW, "bench-csv", amount.rows), (WIDE, "bench-wide", amount.wide), (LARGE, "bench-2gb", amount.large)];
    for (shape, dataset, rows) in shapes {
        let path = city.dir(PROVIDER).join("data").join(format!("{dataset}.csv"));
        let columns = write(city, &shape, &path, rows)?;
        let text = format!(
            "adapter: {dataset}\nkind: file\npath: data/{dataset}.csv\nformat: {{csv: {{nulls: [\"\"], columns: [{columns}]}}}}\n\
             into: ds:{PROVIDER}/{dataset}@1\n{}key: [time]\ntime: time\npace: max\n",
            shape.mapping
        );
        document(city, dataset, &text)?;
        let plain = plain(&path, rows)?;
        let took = adapter(city, dataset, rows, &["--once"]).await?;
        both(results, shape.name, "rows/s", rows, plain, took);
        std::fs::remove_file(&path).map_err(|e| BenchError::io("removing a file", e))?;
    }
    Ok(())
}

/// Writes the file and returns its columns as YAML.
fn write(city: &City, shape: &Shape, path: &Path, rows: u64) -> Result<String, BenchError> {
    let failed = |e: std::io::Error| BenchError::io(format!("writing {}", path.display()), e);
    let like = city.dir(shape.like.0).join("data").join(shape.like.1);
    let packed = File::open(&like).map_err(|e| BenchError::io(format!("reading {}", like.display()), e))?;
    let lines = BufReader::new(flate2::read::GzDecoder::new(packed)).lines();
    let mut lines = lines.collect::<Result<Vec<String>, _>>().map_err(failed)?.into_iter();
    let header = lines.next().unwrap_or_default();
    let tails: Vec<String> = lines.filter_map(|l| Some(l.split_once(',')?.1.to_owned())).collect();
    let remark = "x".repeat(shape.remark);
    let (mut out, mut time) = (BufWriter::new(File::create(path).map_err(failed)?), Timestamp::UNIX_EPOCH);
    writeln!(out, "{header}").map_err(failed)?;
    for tail in tails.iter().cycle().take(rows as usize) {
        writeln!(out, "{time},{tail}{remark}").map_err(failed)?;
        time += SignedDuration::from_mins(15);
    }
    out.flush().map_err(failed)?;
    Ok(header)
}

/// Seconds in which a CSV reader alone has every field of the file.
fn plain(path: &Path, rows: u64) -> Result<f64, BenchError> {
    let begun = Instant::now();
    let reader = csv::Reader::from_path(path);
    let mut reader = reader.map_err(|e| BenchError::refused("reading the file", e))?;
    let (mut record, mut seen, mut bytes) = (csv::StringRecord::new(), 0u64, 0usize);
    while reader.read_record(&mut record).map_err(|e| BenchError::refused("reading the file", e))? {
        seen += 1;
        bytes += record.iter().map(str::len).sum::<usize>();
    }
    if seen != rows || bytes == 0 {
        return Err(BenchError::refused("reading the file", format!("{seen} rows instead of {rows}")));
    }
    Ok(begun.elapsed().as_secs_f64())
}
