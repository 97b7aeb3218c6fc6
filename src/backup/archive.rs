//! What `mongodump` writes: a folder of BSON files, or one archive file.
//!
//! Format of the archive: <https://github.com/mongodb/mongo-tools/blob/master/common/archive/archive.go>.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use crate::backup::Problem;
use crate::backup::paced::{Pace, Paced};

/// The first bytes of an archive.
pub(super) const MAGIC: [u8; 4] = [0x6d, 0xe2, 0x99, 0x81];
/// What stands where a document's length would, at the end of a part.
const TERMINATOR: u32 = 0xffff_ffff;
/// A document of MongoDB has at most 16 MiB and a little.
const MAX_DOCUMENT: u32 = 17 << 20;

type Checked = io::Result<Result<Vec<String>, (Problem, String)>>;

/// Reads every file of a dump, and says which collections it holds.
pub(super) fn check_folder(folder: &Path, pace: &Pace) -> Checked {
    let mut collections = Vec::new();
    let mut files = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            let name = entry.file_name().to_string_lossy().into_owned();
            if kind.is_dir() {
                folders.push(path);
                continue;
            }
            let Some(collection) = name.strip_suffix(".bson").or_else(|| name.strip_suffix(".bson.gz")) else { continue };
            files += 1;
            let file = BufReader::new(Paced::new(File::open(&path)?, pace));
            let documents = if name.ends_with(".gz") { documents(BufReader::new(MultiGzDecoder::new(file))) } else { documents(file) };
            if let Err((problem, message)) = classify(documents)? {
                return Ok(Err((problem, format!("{name}: {message}"))));
            }
            let gz = if name.ends_with(".gz") { ".gz" } else { "" };
            let metadata = path.with_file_name(format!("{collection}.metadata.json{gz}"));
            if collection != "oplog" && !metadata.is_file() {
                // Written at the end of each collection: it holds the indexes.
                return Ok(Err((Problem::Incomplete, format!("{collection}.metadata.json{gz} is missing, which holds the indexes"))));
            }
            collections.push(collection.to_owned());
        }
    }
    if files == 0 {
        return Ok(Err((Problem::Incomplete, "there is no .bson file in it".to_owned())));
    }
    collections.sort();
    Ok(Ok(collections))
}

/// Reads an archive to its end, where every collection must have come to its own.
pub(super) fn check_archive(content: impl BufRead) -> Checked {
    match classify(archive(content))? {
        Ok(collections) => Ok(Ok(collections)),
        Err(problem) => Ok(Err(problem)),
    }
}

/// An end that comes too early is one thing, bytes that make no sense another, and a disk that fails a third.
fn classify<T>(read: io::Result<T>) -> io::Result<Result<T, (Problem, String)>> {
    match read {
        Ok(value) => Ok(Ok(value)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Ok(Err((Problem::Incomplete, "it ends within a document or before its end".to_owned())))
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) => {
            Ok(Err((Problem::Corrupt, error.to_string())))
        }
        Err(error) => Err(error),
    }
}

fn archive(mut content: impl BufRead) -> io::Result<Vec<String>> {
    let mut magic = [0; 4];
    content.read_exact(&mut magic)?;
    if magic != MAGIC {
        return Err(invalid("it does not begin as an archive of mongodump does"));
    }
    // The head, and one document for each collection.
    let mut open: BTreeMap<String, bool> = BTreeMap::new();
    let mut is_first = true;
    while let Some(document) = document(&mut content, true)? {
        if !std::mem::take(&mut is_first) {
            open.insert(namespace(&document)?, false);
        }
    }
    while !content.fill_buf()?.is_empty() {
        let header = document(&mut content, true)?.ok_or_else(|| invalid("a part of it has no head"))?;
        let name = namespace(&header)?;
        let parsed = bson(&header)?;
        if parsed.get_bool("EOF").unwrap_or(false) {
            open.insert(name, true);
        }
        while document(&mut content, true)?.is_some() {}
    }
    if open.values().any(|is_done| !is_done) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(open.into_keys().map(|name| name.split_once('.').map_or(name.clone(), |(_, collection)| collection.to_owned())).collect())
}

fn documents(mut content: impl BufRead) -> io::Result<()> {
    while !content.fill_buf()?.is_empty() {
        document(&mut content, false)?;
    }
    Ok(())
}

/// One whole document; `None` at a terminator.
fn document(content: &mut impl BufRead, may_end: bool) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    content.read_exact(&mut length)?;
    let bytes = u32::from_le_bytes(length);
    if bytes == TERMINATOR && may_end {
        return Ok(None);
    }
    if !(5..=MAX_DOCUMENT).contains(&bytes) {
        return Err(invalid("the length of a document is that of none"));
    }
    let mut document = length.to_vec();
    let rest = u64::from(bytes) - 4;
    if content.take(rest).read_to_end(&mut document)? as u64 != rest {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if document.last() != Some(&0) {
        return Err(invalid("a document has no end"));
    }
    Ok(Some(document))
}

fn bson(document: &[u8]) -> io::Result<mongodb::bson::Document> {
    mongodb::bson::deserialize_from_slice(document).map_err(|_| invalid("the head of a part is no document"))
}

fn namespace(document: &[u8]) -> io::Result<String> {
    let head = bson(document)?;
    let part = |name| head.get_str(name).map(str::to_owned).unwrap_or_default();
    Ok(format!("{}.{}", part("db"), part("collection")))
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.to_owned())
}
