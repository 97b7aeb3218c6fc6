//! Snapshots of Redis: `REDIS`, a version, whatever is in it, the end, and the CRC-64 of all of it.
//!
//! Format: <https://github.com/redis/redis/blob/unstable/src/rdb.c>; the CRC is that of Jones, of `crc64.c`.

use std::io::{self, Read};

use crate::backup::Problem;

/// The polynomial with its bits in reverse.
const POLYNOMIAL: u64 = 0x95ac_9329_ac4b_c9b5;
const TABLE: [u64; 256] = table();
/// The end, and the CRC behind it.
const TAIL: usize = 9;
const END: u8 = 0xff;
/// Newer versions of Redis only add to the format; what is older than 5 has no CRC.
const VERSIONS: std::ops::RangeInclusive<u32> = 5..=99;

/// Reads a snapshot to its end.
pub(super) fn check(mut content: impl Read) -> io::Result<Result<(), (Problem, String)>> {
    let mut head = [0; 9];
    if let Err(error) = content.read_exact(&mut head) {
        return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(Err(incomplete())) } else { Err(error) };
    }
    let version = std::str::from_utf8(&head[5..]).ok().and_then(|digits| digits.parse::<u32>().ok());
    if !head.starts_with(b"REDIS") || !version.is_some_and(|version| VERSIONS.contains(&version)) {
        return Ok(Err((Problem::Corrupt, "it does not begin as a snapshot of Redis does".to_owned())));
    }
    let mut crc = update(0, &head);
    let mut buffer = vec![0; 64 << 10];
    let mut held = 0;
    loop {
        let read = content.read(&mut buffer[held..])?;
        held += read;
        if read == 0 {
            break;
        }
        // The last bytes are kept back: they may be the end.
        if held > TAIL {
            crc = update(crc, &buffer[..held - TAIL]);
            buffer.copy_within(held - TAIL..held, 0);
            held = TAIL;
        }
    }
    if held < TAIL || buffer[0] != END {
        return Ok(Err(incomplete()));
    }
    let mut stored = [0; 8];
    stored.copy_from_slice(&buffer[1..TAIL]);
    let stored = u64::from_le_bytes(stored);
    // Redis writes 0 where checksums are switched off.
    if stored != 0 && stored != update(crc, &[END]) {
        return Ok(Err((Problem::Corrupt, "its CRC-64 is another one".to_owned())));
    }
    Ok(Ok(()))
}

fn incomplete() -> (Problem, String) {
    (Problem::Incomplete, "it ends before the end of a snapshot of Redis".to_owned())
}

fn update(crc: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(crc, |crc, byte| TABLE[usize::from(crc.to_le_bytes()[0] ^ byte)] ^ (crc >> 8))
}

const fn table() -> [u64; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u64;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_crc_is_that_of_redis() {
        // The check value in crc64.c.
        assert_eq!(super::update(0, b"123456789"), 0xe9c6_d914_c4b8_d9ca);
    }
}
