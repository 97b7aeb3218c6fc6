//! What nothing can beat, and what others would have to: counting newlines, cutting into lines, `serde_json`.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::thread;

use serde::Deserialize;

use crate::corpus::Truth;

const BUFFER: usize = 256 * 1024;

/// Counts newlines. Says what is wrong with the count.
pub fn newlines(files: &[PathBuf], truth: &Truth) -> Result<(), String> {
    let mut count = 0;
    pieces(files, |piece| {
        count += memchr::memchr_iter(b'\n', piece).count() as u64;
        piece.len()
    });
    same("lines", count, truth.total())
}

/// Counts newlines with a thread for each file: what two threads of this machine can bring at best.
pub fn newlines_together(files: &[PathBuf], truth: &Truth) -> Result<(), String> {
    let count = |file: &PathBuf| {
        let mut count = 0;
        pieces(std::slice::from_ref(file), |piece| {
            count += memchr::memchr_iter(b'\n', piece).count() as u64;
            piece.len()
        });
        count
    };
    let counts = thread::scope(|scope| {
        let counting: Vec<_> = files.iter().map(|file| scope.spawn(move || count(file))).collect();
        counting.into_iter().map(|thread| thread.join().expect("a thread that counts")).sum()
    });
    same("lines", counts, truth.total())
}

/// Decodes as [`typed`] does, with a thread for each file.
pub fn typed_together(files: &[PathBuf], truths: &[Truth]) -> Result<(), String> {
    thread::scope(|scope| {
        let decoding: Vec<_> =
            files.iter().zip(truths).map(|(file, truth)| scope.spawn(move || typed(std::slice::from_ref(file), truth))).collect();
        decoding.into_iter().try_for_each(|thread| thread.join().expect("a thread that decodes"))
    })
}

/// Cuts into lines.
pub fn lines(files: &[PathBuf], truth: &Truth) -> Result<(), String> {
    let (mut count, mut bytes) = (0, 0);
    each_line(files, |line| {
        count += 1;
        bytes += line.len() as u64 + 1;
    });
    same("lines", count, truth.total())?;
    same("bytes", bytes, truth.bytes)
}

/// Decodes each line into a type of which four fields are wanted, and counts by level.
pub fn typed(files: &[PathBuf], truth: &Truth) -> Result<(), String> {
    let (mut levels, mut malformed, mut texts) = ([0_u64; 5], 0, 0);
    each_line(files, |line| {
        if line.first() != Some(&b'{') {
            texts += 1;
            return;
        }
        match serde_json::from_slice::<Typed<'_>>(line) {
            Ok(line) => {
                let known = line.msg.len() + line.service.len() + line.duration_ms.unwrap_or_default().to_bits().count_ones() as usize;
                let level = ["debug", "info", "warn", "error"].iter().position(|level| *level == line.level);
                levels[level.filter(|_| known > 0).unwrap_or(4)] += 1;
            }
            Err(_) => malformed += 1,
        }
    });
    same("malformed lines", malformed, truth.malformed)?;
    same("other lines", texts, truth.panics)?;
    for (level, found) in ["debug", "info", "warn", "error"].iter().zip(levels) {
        let expected = truth.lines.iter().filter(|((name, _), _)| name == level).map(|(_, count)| count).sum();
        same(level, found, expected)?;
    }
    Ok(())
}

#[derive(Deserialize)]
struct Typed<'a> {
    #[serde(borrow)]
    level: Cow<'a, str>,
    #[serde(borrow)]
    msg: Cow<'a, str>,
    #[serde(borrow)]
    service: Cow<'a, str>,
    duration_ms: Option<f64>,
}

fn same(what: &str, found: u64, expected: u64) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{found} {what} instead of {expected}")) }
}

fn each_line(files: &[PathBuf], mut line: impl FnMut(&[u8])) {
    pieces(files, |piece| {
        let mut begin = 0;
        for end in memchr::memchr_iter(b'\n', piece) {
            line(&piece[begin..end]);
            begin = end + 1;
        }
        begin
    });
}

/// Reads files in pieces of a reused buffer. `take` says how much of a piece it took; the rest comes again.
fn pieces(files: &[PathBuf], mut take: impl FnMut(&[u8]) -> usize) {
    let mut buffer = vec![0; BUFFER];
    for path in files {
        let mut file = File::open(path).expect("the corpus");
        let mut kept = 0;
        loop {
            let read = file.read(&mut buffer[kept..]).expect("the corpus");
            if read == 0 {
                break;
            }
            let end = kept + read;
            let taken = take(&buffer[..end]);
            buffer.copy_within(taken..end, 0);
            kept = end - taken;
        }
    }
}
