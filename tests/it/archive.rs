//! Archives with real parts: documents of a real mongod, there and back; buckets that fail; a disk that is full.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use bellwether::config::environment::Environment;
use bellwether::config::storage::StorageAccess;
use bellwether::retention::archive::{ArchiveError, ArchiveWriter, Record, RunIdentity, RunName, Target};
use bellwether::retention::archive::{Manifest, Run, Severity};
use futures_util::TryStreamExt as _;
use jiff::Timestamp;
use mongodb::Database;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, DateTime, Decimal128, Document, RawDocumentBuf, doc};

use crate::bucket::{Bucket, Fault};
use crate::mongod::Mongod;
use crate::sidecar::{command, eventually, free_port};

const DATABASE: &str = "decisionbox";

pub fn identity(policy: &str, run: &str) -> RunIdentity {
    RunIdentity {
        system: "decisionbox".to_owned(),
        policy: policy.to_owned(),
        run: run.to_owned(),
        plan: "ab".repeat(32),
        cutoff: "2026-08-23T00:00:00Z".parse().unwrap(),
        database: DATABASE.to_owned(),
    }
}

fn file_target(folder: &Path) -> (String, Target) {
    let url = format!("file://{}", folder.display());
    let target = Target::open(&url, &StorageAccess::default()).unwrap();
    (url, target)
}

/// One document of every kind that loses something where it goes through JSON.
fn odd_documents() -> Vec<Document> {
    let mut documents = vec![
        doc! { "_id": ObjectId::new(), "b": 1_i32, "a": 1_i64, "c": 1.0 },
        doc! { "_id": ObjectId::new(), "a": f64::NAN, "b": -0.0, "c": f64::INFINITY },
        doc! { "_id": ObjectId::new(), "price": "12.3400".parse::<Decimal128>().unwrap() },
        doc! { "_id": "text", "at": DateTime::from_millis(-62_135_596_800_000), "later": DateTime::from_millis(i64::MAX) },
        doc! { "_id": 7_i64, "bytes": Binary { subtype: BinarySubtype::Uuid, bytes: vec![7; 16] } },
        doc! { "_id": { "k": 1, "j": 2 }, "empty": {}, "list": [{}, [], Bson::Null, Bson::MinKey, Bson::MaxKey] },
        doc! { "_id": ObjectId::new(), "": "no name", "a.b": 1, "$set": { "x": 1 }, "é": "\0" },
    ];
    documents.extend((0..500).map(|number| doc! { "_id": format!("n{number}"), "text": "x".repeat(200), "number": number }));
    documents
}

async fn raw(database: &Database, collection: &str) -> Vec<Vec<u8>> {
    let mut documents: Vec<RawDocumentBuf> =
        database.collection::<RawDocumentBuf>(collection).find(doc! {}).await.unwrap().try_collect().await.unwrap();
    documents.sort_by(|one, other| one.as_bytes().cmp(other.as_bytes()));
    documents.into_iter().map(RawDocumentBuf::into_bytes).collect()
}

fn id_of(bytes: &[u8]) -> String {
    let document = RawDocumentBuf::from_bytes(bytes.to_vec()).unwrap();
    match Bson::try_from(document.get("_id").unwrap().unwrap()).unwrap() {
        Bson::String(text) => text,
        other => other.to_string(),
    }
}

async fn archive(target: &Target, run: &str, collection: &str, documents: &[Vec<u8>]) -> Manifest {
    let mut writer = ArchiveWriter::create(target, identity("discoveries", run)).await.unwrap();
    for batch in documents.chunks(200) {
        let records: Vec<_> = batch.iter().map(|bytes| Record { id: id_of(bytes), bytes }).collect();
        writer.append(collection, &records).await.unwrap();
    }
    writer.finish(Timestamp::UNIX_EPOCH).await.unwrap()
}

#[track_caller]
fn run(server: &Mongod, arguments: &[&str]) -> (i32, String) {
    let uri = server.uri();
    let Output { status, stdout, stderr } = command()
        .args(["retention"])
        .args(arguments)
        .args(["--profile", "decisionbox"])
        .envs([("MONGODB_URI", uri.as_str()), ("MONGODB_DB", DATABASE)])
        .output()
        .unwrap();
    (status.code().unwrap(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_comes_back_byte_by_byte_and_what_changed_is_left_alone() {
    let server = Mongod::start().await;
    let database = server.database(DATABASE).await;
    let collection = database.collection::<Document>("discoveries");
    collection.insert_many(odd_documents()).await.unwrap();
    let before = raw(&database, "discoveries").await;
    let folder = tempfile::tempdir().unwrap();
    let (url, target) = file_target(folder.path());
    assert_eq!(archive(&target, "run-1", "discoveries", &before).await.records, 507);

    let (code, said) = run(&server, &["verify", "--archive", &url]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("whole: ") && said.contains("507 records of decisionbox"), "{said}");

    // All but one are gone.
    collection.delete_many(doc! { "_id": { "$ne": "text" } }).await.unwrap();
    let (code, said) = run(&server, &["restore", "--archive", &url]);
    assert_eq!(code, 64, "nobody is there to ask: {said}");
    let (code, said) = run(&server, &["restore", "--archive", &url, "--dry-run"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("DRY RUN") && said.contains("506 would be brought back") && said.contains("1 there already"), "{said}");
    assert_eq!(raw(&database, "discoveries").await.len(), 1, "a dry run writes nothing");
    let (code, said) = run(&server, &["restore", "--archive", &url, "--yes", "--id", "n42", "--id", "7"]);
    assert_eq!((code, raw(&database, "discoveries").await.len()), (0, 3), "{said}");
    let (code, said) = run(&server, &["restore", "--archive", &url, "--yes", "--policy", "discoveries"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(raw(&database, "discoveries").await, before);

    // One has changed since.
    collection.update_one(doc! { "_id": "n1" }, doc! { "$set": { "text": "newer" } }).await.unwrap();
    let (code, said) = run(&server, &["restore", "--archive", &url, "--yes"]);
    assert_eq!(code, 65, "{said}");
    assert!(said.contains("506 there already") && said.contains("1 there and other: left as they are") && said.contains("n1"), "{said}");
    assert_eq!(collection.find_one(doc! { "_id": "n1" }).await.unwrap().unwrap().get_str("text").unwrap(), "newer");
    let (code, said) = run(&server, &["restore", "--archive", &url, "--yes", "--overwrite"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(raw(&database, "discoveries").await, before);

    let (code, said) = run(&server, &["restore", "--archive", &url, "--yes", "--policy", "nope"]);
    assert_eq!(code, 69, "{said}");
    assert!(said.contains("there is no archive of `nope`"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_state_of_a_document_is_the_one_that_comes_back() {
    let server = Mongod::start().await;
    let database = server.database(DATABASE).await;
    let folder = tempfile::tempdir().unwrap();
    let (url, target) = file_target(folder.path());
    let state = |text: &str| RawDocumentBuf::try_from(&doc! { "_id": 1, "text": text }).unwrap().into_bytes();
    // Archived, changed before it was deleted, archived again and deleted; and once more in a later run.
    archive(&target, "run-1", "discoveries", &[state("first")]).await;
    archive(&target, "run-2", "discoveries", &[state("second")]).await;
    for manner in [&["--yes"][..], &["--yes", "--overwrite"]] {
        let (_, said) = run(&server, &[&["restore", "--archive", &url], manner].concat());
        assert_eq!(raw(&database, "discoveries").await, [state("second")], "{manner:?}: {said}");
    }
    let dump = folder.path().join("dump");
    run(&server, &["restore", "--archive", &url, "--to-dump", dump.to_str().unwrap()]);
    assert_eq!(std::fs::read(dump.join("decisionbox/discoveries.bson")).unwrap(), state("second"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_archive_is_named_and_what_is_whole_of_it_comes_back() {
    let server = Mongod::start().await;
    let database = server.database(DATABASE).await;
    let folder = tempfile::tempdir().unwrap();
    let (url, target) = file_target(folder.path());
    let documents: Vec<Vec<u8>> = odd_documents().iter().map(|document| RawDocumentBuf::try_from(document).unwrap().into_bytes()).collect();
    archive(&target, "run-1", "discoveries", &documents).await;
    let segment = folder.path().join("discoveries/run-1/discoveries/000002.bson.zst");
    let bytes = std::fs::read(&segment).unwrap();
    std::fs::write(&segment, &bytes[..bytes.len() - 40]).unwrap();

    let (code, said) = run(&server, &["verify", "--archive", &url]);
    assert_eq!(code, 65, "{said}");
    assert!(
        said.contains("DAMAGED: ") && said.contains("discoveries/000002.bson.zst: record ") && said.contains("cannot be read"),
        "{said}"
    );
    let (code, said) = run(&server, &["restore", "--archive", &url, "--yes"]);
    assert_eq!(code, 65, "{said}");
    let back = raw(&database, "discoveries").await;
    assert!((307..507).contains(&back.len()), "{}", back.len());
    assert!(back.iter().all(|document| documents.contains(document)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_is_what_mongorestore_reads() {
    let server = Mongod::start().await;
    let database = server.database(DATABASE).await;
    database.collection::<Document>("discoveries").insert_many(odd_documents()).await.unwrap();
    let before = raw(&database, "discoveries").await;
    let folder = tempfile::tempdir().unwrap();
    let (url, target) = file_target(&folder.path().join("archive"));
    archive(&target, "run-1", "discoveries", &before).await;
    let dump = folder.path().join("dump");
    let (code, said) = run(&server, &["restore", "--archive", &url, "--to-dump", dump.to_str().unwrap()]);
    assert_eq!(code, 0, "{said}");
    let mut dumped = split(&std::fs::read(dump.join("decisionbox/discoveries.bson")).unwrap());
    dumped.sort();
    assert_eq!(dumped, before);
    let (code, said) = run(&server, &["restore", "--archive", &url, "--to-dump", dump.to_str().unwrap()]);
    assert_eq!(code, 69, "a dump is not written over: {said}");

    let Some(mongorestore) = tool("mongorestore", "BELLWETHER_MONGORESTORE") else {
        eprintln!("NOT SHOWN: there is no mongorestore on PATH or in BELLWETHER_MONGORESTORE; the dump was only taken apart by hand");
        return;
    };
    database.drop().await.unwrap();
    let restored = Command::new(mongorestore).args(["--uri", &server.uri()]).arg(&dump).output().unwrap();
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    assert_eq!(raw(&database, "discoveries").await, before);
}

fn split(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut documents = Vec::new();
    while let Some(length) = bytes.first_chunk::<4>() {
        let (document, rest) = bytes.split_at(u32::from_le_bytes(*length) as usize);
        documents.push(document.to_vec());
        bytes = rest;
    }
    documents
}

/// The path of a program: what the variable names, or what is on PATH.
pub fn tool(name: &str, variable: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let given = std::env::var_os(variable).map(PathBuf::from);
    given.or_else(|| std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file()))
}

fn bucket_target(address: &str) -> Target {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "hunter2hunter2\n").unwrap();
    let environment = Environment::of([
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT", &format!("http://{address}")),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", "AKIDTEST"),
        ("AWS_SECRET_ACCESS_KEY_FILE", secret.to_str().unwrap()),
    ]);
    Target::open("s3://archive/bellwether", &StorageAccess::of(&environment)).unwrap()
}

fn documents(numbers: std::ops::Range<i32>) -> Vec<Vec<u8>> {
    numbers.map(|number| RawDocumentBuf::try_from(&doc! { "_id": number, "x": "y".repeat(50) }).unwrap().into_bytes()).collect()
}

pub async fn there_and_back(target: &Target) {
    let documents = documents(0..500);
    archive(target, "run-1", "fs.chunks", &documents).await;
    // The same run goes on.
    let mut writer = ArchiveWriter::create(target, identity("discoveries", "run-1")).await.unwrap();
    assert_eq!(writer.segments().count(), 3);
    let receipt = writer.append("fs.chunks", &[Record { id: "0".to_owned(), bytes: &documents[0] }]).await.unwrap();
    assert_eq!(receipt.segment, "fs.chunks/000004.bson.zst");
    writer.finish(Timestamp::UNIX_EPOCH).await.unwrap();
    let names = RunName::list(target, None).await.unwrap();
    let run = Run::open(target, &names[0]).await.unwrap();
    let mut read = Vec::new();
    for segment in run.segments().await.unwrap() {
        read.extend(run.records(&segment).await.unwrap().1);
    }
    assert_eq!(read[..500], documents);
    assert!(run.verify(|_, _| {}).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_bucket_holds_archives_as_a_folder_does() {
    let bucket = Bucket::start().await;
    there_and_back(&bucket_target(&bucket.address)).await;
    assert!(bucket.keys().contains(&"bellwether/discoveries/run-1/fs.chunks/000001.bson.zst".to_owned()), "{:?}", bucket.keys());
}

#[tokio::test]
async fn what_a_bucket_loses_gets_no_receipt_and_no_secret_is_told() {
    let bucket = Bucket::start().await;
    let target = bucket_target(&bucket.address);
    let mut writer = ArchiveWriter::create(&target, identity("discoveries", "run-1")).await.unwrap();
    let batch = documents(0..20);
    let records: Vec<_> = batch.iter().map(|bytes| Record { id: id_of(bytes), bytes }).collect();
    for (fault, named) in [
        (Fault::Truncate, "damaged"),
        (Fault::Flip, "000002"),
        (Fault::RefuseWrites(500), "the storage answered with the status 500"),
        (Fault::RefuseWrites(403), "the credentials do not allow it"),
    ] {
        bucket.fails(fault);
        let error = writer.append("discoveries", &records).await.unwrap_err();
        let said = format!("{error} {error:?}");
        assert!(said.contains(named) || matches!(error, ArchiveError::Unreadable { .. }), "{fault:?}: {said}");
        assert!(!said.contains("hunter2") && !said.contains("AKIDTEST") && !said.contains("Signature"), "{said}");
    }
    // Tried again and again, and then given up.
    assert!(bucket.writes() > 6, "{}", bucket.writes());
    bucket.fails(Fault::None);
    let receipt = writer.append("discoveries", &records).await.unwrap();
    assert_eq!(receipt.records, 20);
    let manifest = writer.finish(Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!((manifest.records, manifest.units[0].segments.len()), (20, 1), "only what was read back counts");
}

#[tokio::test]
async fn moto_takes_archives_as_our_own_bucket_does() {
    let Some(server) = tool("moto_server", "BELLWETHER_MOTO").or_else(cached_moto) else {
        panic!("there is no moto_server: run scripts/moto.sh, or set BELLWETHER_MOTO to its path");
    };
    let port = free_port();
    let mut child = Command::new(server)
        .args(["-H", "127.0.0.1", "-p", &port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let address = format!("127.0.0.1:{port}");
    eventually("moto listens", || std::net::TcpStream::connect(&address).is_ok(), |listens| *listens);
    let made = reqwest::Client::new().put(format!("http://{address}/archive")).send().await.unwrap();
    assert!(made.status().is_success());
    there_and_back(&bucket_target(&address)).await;
    child.kill().unwrap();
    child.wait().unwrap();
}

pub fn cached_moto() -> Option<PathBuf> {
    Some(Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/moto/bin/moto_server")).filter(|path| path.is_file())
}

/// Runs in a process of its own that may not write files larger than 64 KiB, as on a full disk.
#[tokio::test]
#[ignore = "only within the test of the full disk"]
async fn full_disk_child() {
    let folder = PathBuf::from(std::env::var_os("BELLWETHER_TEST_FOLDER").unwrap());
    let (_, target) = file_target(&folder);
    let mut writer = ArchiveWriter::create(&target, identity("discoveries", "run-1")).await.unwrap();
    let small = documents(0..10);
    let records = |documents: &'static [Vec<u8>]| documents.iter().map(|bytes| Record { id: id_of(bytes), bytes }).collect::<Vec<_>>();
    writer.append("discoveries", &records(small.leak())).await.unwrap();
    let noise = std::iter::repeat_with(|| fastrand::u8(..)).take(200_000).collect();
    let large = RawDocumentBuf::try_from(&doc! { "_id": 1, "b": Binary { subtype: BinarySubtype::Generic, bytes: noise } }).unwrap();
    let error = writer.append("discoveries", &records(vec![large.into_bytes()].leak())).await.unwrap_err();
    assert!(error.to_string().contains("cannot write to file://"), "{error}");
    writer.append("discoveries", &records(documents(10..20).leak())).await.unwrap();
    assert_eq!(writer.finish(Timestamp::UNIX_EPOCH).await.unwrap().records, 20);
}

#[tokio::test]
async fn a_full_disk_stops_the_batch_and_leaves_what_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    // The shell ignores the signal of the limit, and so does what it becomes: writing fails then.
    let script = "trap '' XFSZ; ulimit -f 64; exec \"$0\" --exact archive::full_disk_child --ignored";
    let output = Command::new("bash")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .env("BELLWETHER_TEST_FOLDER", folder.path())
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    let unit = folder.path().join("discoveries/run-1/discoveries");
    let mut left: Vec<String> = std::fs::read_dir(&unit).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, ["000001.bson.zst", "000001.receipt.json.zst", "000003.bson.zst", "000003.receipt.json.zst"]);
    let (_, target) = file_target(folder.path());
    let run = Run::open(&target, &RunName::of("discoveries", "run-1")).await.unwrap();
    assert!(run.verify(|_, _| {}).await.unwrap().iter().all(|finding| finding.severity == Severity::Note));
}
