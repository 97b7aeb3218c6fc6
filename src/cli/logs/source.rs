//! The files that are given on the command line: opened, unpacked where they are compressed, with a progress bar where
//! somebody watches.

use std::fs::File;
use std::io::{BufRead as _, BufReader, IsTerminal as _, Read};
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::{Failure, IO};

/// The first bytes of gzip (RFC 1952) and Zstandard (RFC 8878).
const GZIP: &[u8] = &[0x1F, 0x8B];
const ZSTANDARD: &[u8] = &[0x28, 0xB5, 0x2F, 0xFD];

/// The label `input` for a file.
pub(super) fn name(path: &Path) -> String {
    path.file_name().map_or_else(|| "-".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// The content of a file; `-` is the standard input. How far it has been read is shown while it is.
pub(super) fn open(path: &Path) -> Result<(Box<dyn Read>, ProgressBar), Failure> {
    let failed = |error: std::io::Error| Failure::new(IO, format!("cannot read {}: {error}", path.display()));
    if path == Path::new("-") {
        return Ok((unpack(std::io::stdin()).map_err(failed)?, ProgressBar::hidden()));
    }
    let file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(length) } else { ProgressBar::hidden() };
    let style = ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}");
    let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    Ok((unpack(bar.wrap_read(file)).map_err(failed)?, bar))
}

fn unpack(reader: impl Read + 'static) -> std::io::Result<Box<dyn Read>> {
    let mut reader = BufReader::with_capacity(256 * 1024, reader);
    let begin = reader.fill_buf()?;
    if begin.starts_with(GZIP) {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(reader)));
    }
    if begin.starts_with(ZSTANDARD) {
        return Ok(Box::new(zstd::Decoder::with_buffer(reader)?));
    }
    Ok(Box::new(reader))
}
