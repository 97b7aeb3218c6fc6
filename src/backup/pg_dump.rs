//! Dumps of Postgres: plain ones end with a sentence, custom ones with the last of their blocks.
//!
//! Format: <https://github.com/postgres/postgres/blob/master/src/bin/pg_dump/pg_backup_archiver.c> and
//! `pg_backup_custom.c`.

use std::io::{self, BufRead, Read};

use crate::backup::Problem;

/// What `pg_dump` and `pg_dumpall` write at last. Newer ones add a line or two.
const MARKERS: [&str; 2] = ["-- PostgreSQL database dump complete", "-- PostgreSQL database cluster dump complete"];
/// So many bytes at the end are looked at.
const TAIL: usize = 1024;
/// Nothing in a table of contents is longer.
const MAX_TEXT: usize = 64 << 20;

const DATA: u8 = 1;
const BLOBS: u8 = 3;
/// There is no block for this entry.
const NO_DATA: u8 = 3;

/// Reads a plain dump to its end, which must be the sentence.
pub(super) fn check_plain(mut content: impl Read) -> io::Result<Result<(), (Problem, String)>> {
    let (mut tail, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        let read = content.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        tail.extend_from_slice(&buffer[..read]);
        tail.drain(..tail.len().saturating_sub(TAIL));
    }
    let tail = String::from_utf8_lossy(&tail);
    if MARKERS.iter().any(|marker| tail.contains(marker)) {
        return Ok(Ok(()));
    }
    Ok(Err((Problem::Incomplete, format!("it does not end with `{}`: pg_dump did not get to its end", MARKERS[0]))))
}

/// Reads a dump in the custom format: the table of contents, and as many blocks as it names.
pub(super) fn check_custom(content: impl BufRead) -> io::Result<Result<(), (Problem, String)>> {
    let mut custom = Custom { content, int_size: 4, offset_size: 8, version: 0 };
    match custom.read() {
        Ok(()) => Ok(Ok(())),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Ok(Err((Problem::Incomplete, "it ends within its table of contents or its data: pg_dump did not get to its end".to_owned())))
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Err((Problem::Corrupt, error.to_string()))),
        Err(error) => Err(error),
    }
}

struct Custom<R> {
    content: R,
    int_size: usize,
    offset_size: usize,
    /// Major and minor, such as 0x010e for 1.14.
    version: u16,
}

// === impl Custom ===

impl<R: BufRead> Custom<R> {
    fn read(&mut self) -> io::Result<()> {
        let mut head = [0; 11];
        self.content.read_exact(&mut head)?;
        let [.., major, minor, _, int_size, offset_size, format] = head;
        if !head.starts_with(b"PGDMP") || format != 1 || !(1..=8).contains(&int_size) || !(1..=8).contains(&offset_size) {
            return Err(invalid("it does not begin as a custom dump of Postgres does"));
        }
        (self.version, self.int_size, self.offset_size) = (u16::from_be_bytes([major, minor]), int_size.into(), offset_size.into());
        if !(0x010c..=0x01ff).contains(&self.version) {
            return Err(invalid("its format is of a version that is not known: 1.12 and later are, as pg_dump writes since 2010"));
        }
        if self.version >= 0x010f {
            self.byte()?;
        } else {
            self.int()?;
        }
        // When it was made.
        for _ in 0..7 {
            self.int()?;
        }
        // The database, the server and the program.
        for _ in 0..3 {
            self.text()?;
        }
        let entries = self.int()?;
        let mut blocks = 0;
        for _ in 0..entries {
            blocks += u64::from(self.entry()?);
        }
        for _ in 0..blocks {
            self.block()?;
        }
        if self.content.fill_buf()?.is_empty() { Ok(()) } else { Err(invalid("there is more in it than its table of contents says")) }
    }

    /// One entry of the table of contents: whether it has a block.
    fn entry(&mut self) -> io::Result<bool> {
        self.int()?;
        self.int()?;
        // Table and row that it is of, its name and its kind.
        for _ in 0..4 {
            self.text()?;
        }
        self.int()?;
        // What makes it, what drops it, what copies it, its schema and its tablespace.
        for _ in 0..5 {
            self.text()?;
        }
        if self.version >= 0x010e {
            self.text()?;
        }
        if self.version >= 0x0110 {
            self.int()?;
        }
        // Its owner, and a remnant.
        for _ in 0..2 {
            self.text()?;
        }
        // What it depends on, ended by none.
        while self.text()? {}
        let state = self.byte()?;
        self.skip(self.offset_size as u64)?;
        Ok(state != NO_DATA)
    }

    fn block(&mut self) -> io::Result<()> {
        let kind = self.byte()?;
        self.int()?;
        match kind {
            DATA => self.chunks(),
            BLOBS => {
                while self.int()? != 0 {
                    self.chunks()?;
                }
                Ok(())
            }
            _ => Err(invalid("one of its blocks is neither data nor large objects")),
        }
    }

    fn chunks(&mut self) -> io::Result<()> {
        loop {
            match u64::try_from(self.int()?) {
                Ok(0) => return Ok(()),
                Ok(length) => self.skip(length)?,
                Err(_) => return Err(invalid("a chunk of its data has a length below nothing")),
            }
        }
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.content.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    /// A sign, and bytes from the lowest on.
    fn int(&mut self) -> io::Result<i64> {
        let sign = self.byte()?;
        let mut value = 0_i64;
        for at in 0..self.int_size {
            value |= i64::from(self.byte()?) << (8 * at);
        }
        Ok(if sign == 0 { value } else { value.wrapping_neg() })
    }

    /// Skips a text, and says whether there is one.
    fn text(&mut self) -> io::Result<bool> {
        let Ok(length) = usize::try_from(self.int()?) else { return Ok(false) };
        if length > MAX_TEXT {
            return Err(invalid("a text in its table of contents is longer than 64 MiB"));
        }
        self.skip(length as u64)?;
        Ok(true)
    }

    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let skipped = io::copy(&mut (&mut self.content).take(bytes), &mut io::sink())?;
        if skipped == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.to_owned())
}
