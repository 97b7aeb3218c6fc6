//! What an archive must stand: a round trip of anything, a crash at any file, a flipped bit, a full disk's leavings.

use std::fs;
use std::path::{Path, PathBuf};

use mongodb::bson::oid::ObjectId;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, DateTime, Decimal128, Document, Regex, Timestamp as BsonTimestamp, doc};
use proptest::prelude::*;

use super::*;
use crate::config::storage::StorageAccess;

fn identity() -> RunIdentity {
    RunIdentity {
        system: "decisionbox".to_owned(),
        policy: "discoveries".to_owned(),
        run: "2026-11-21T03-17-00Z".to_owned(),
        plan: "ab".repeat(32),
        cutoff: "2026-08-23T00:00:00Z".parse().unwrap(),
        database: "decisionbox".to_owned(),
    }
}

fn target(folder: &Path) -> Target {
    Target::open(&format!("file://{}", folder.display()), &StorageAccess::default()).unwrap()
}

fn documents(numbers: std::ops::Range<i32>) -> Vec<Vec<u8>> {
    numbers.map(|number| bytes(&doc! { "_id": number, "text": "x".repeat(300) })).collect()
}

fn bytes(document: &Document) -> Vec<u8> {
    mongodb::bson::RawDocumentBuf::try_from(document).unwrap().into_bytes()
}

fn records(documents: &[Vec<u8>]) -> Vec<Record<'_>> {
    documents.iter().enumerate().map(|(position, bytes)| Record { id: position.to_string(), bytes }).collect()
}

async fn open(target: &Target) -> Run {
    Run::open(target, &RunName::list(target, None).await.unwrap()[0]).await.unwrap()
}

async fn all(target: &Target) -> Vec<Vec<u8>> {
    let run = open(target).await;
    let mut all = Vec::new();
    for segment in run.segments().await.unwrap().iter().filter(|segment| segment.has_receipt) {
        let (_, records, damage) = run.records(segment).await.unwrap();
        assert_eq!(damage, None);
        all.extend(records);
    }
    all
}

async fn damages(target: &Target) -> Vec<String> {
    let findings = open(target).await.verify(|_, _| {}).await.unwrap();
    let damaged = findings.into_iter().filter(|finding| finding.severity == Severity::Damage);
    damaged.map(|finding| format!("{}: {}", finding.place, finding.message)).collect()
}

/// A finished archive of three segments, and its folder.
async fn three_segments() -> (tempfile::TempDir, Target, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let target = target(folder.path());
    let mut writer = ArchiveWriter::create(&target, identity()).await.unwrap();
    for start in [0, 10, 20] {
        writer.append("discoveries", &records(&documents(start..start + 10))).await.unwrap();
    }
    writer.finish(Timestamp::UNIX_EPOCH).await.unwrap();
    let run = folder.path().join("discoveries/2026-11-21T03-17-00Z");
    (folder, target, run)
}

#[tokio::test]
async fn what_is_archived_is_read_again_byte_by_byte_and_summed_up() {
    let (_folder, target, run) = three_segments().await;
    assert_eq!(all(&target).await, documents(0..30));
    assert_eq!(damages(&target).await, [""; 0]);
    let manifest: Manifest = serde_json::from_slice(&fs::read(run.join("manifest.json")).unwrap()).unwrap();
    assert_eq!((manifest.records, manifest.units.len(), manifest.units[0].segments.len()), (30, 1, 3));
    assert_eq!((manifest.units[0].segments[1].first.as_str(), manifest.units[0].segments[1].last.as_str()), ("0", "9"));
    // What `zstdcat *.bson.zst` writes is what mongorestore reads.
    let whole: Vec<u8> = (1..=3)
        .flat_map(|number| zstd::decode_all(&*fs::read(run.join(format!("discoveries/{number:06}.bson.zst"))).unwrap()).unwrap())
        .collect();
    assert_eq!(whole, documents(0..30).concat());
}

#[tokio::test]
async fn a_run_goes_on_after_a_crash_and_never_trusts_half_a_segment() {
    let folder = tempfile::tempdir().unwrap();
    let target = target(folder.path());
    let mut writer = ArchiveWriter::create(&target, identity()).await.unwrap();
    let first = writer.append("discoveries", &records(&documents(0..10))).await.unwrap();
    assert_eq!((first.segment.as_str(), first.records), ("discoveries/000001.bson.zst", 10));
    writer.append("discoveries", &records(&documents(10..20))).await.unwrap();
    drop(writer);
    let unit = folder.path().join("discoveries/2026-11-21T03-17-00Z/discoveries");
    // The crash came between the two names, and another one while a file was written.
    fs::remove_file(unit.join("000002.receipt.json.zst")).unwrap();
    let half = fs::read(unit.join("000002.bson.zst")).unwrap();
    fs::write(unit.join(".000003.bson.zst.part"), &half[..half.len() / 2]).unwrap();

    let mut writer = ArchiveWriter::create(&target, identity()).await.unwrap();
    assert_eq!(writer.segments().collect::<Vec<_>>(), [("discoveries", "discoveries/000001.bson.zst".to_owned())]);
    let (again, entries) = writer.recheck(&first.segment).await.unwrap();
    assert_eq!((again, entries.len()), (first, 10));
    assert!(writer.recheck("discoveries/000002.bson.zst").await.is_err(), "half a segment proves nothing");
    let third = writer.append("discoveries", &records(&documents(10..20))).await.unwrap();
    assert_eq!(third.segment, "discoveries/000003.bson.zst", "what the crash left behind is not written over");
    writer.finish(Timestamp::UNIX_EPOCH).await.unwrap();

    assert_eq!(all(&target).await, documents(0..20));
    let findings = open(&target).await.verify(|_, _| {}).await.unwrap();
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].severity, Severity::Note);
    assert!(findings[0].place.0.ends_with("/000002.bson.zst") && findings[0].message.contains("10 whole records"), "{findings:?}");
}

#[tokio::test]
async fn another_run_of_the_same_name_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let target = target(folder.path());
    ArchiveWriter::create(&target, identity()).await.unwrap();
    let other = RunIdentity { plan: "cd".repeat(32), ..identity() };
    let error = ArchiveWriter::create(&target, other).await.unwrap_err().to_string();
    assert!(error.contains("the plan is abab") && error.contains("nothing is written over it"), "{error}");
}

#[tokio::test]
async fn a_flipped_bit_anywhere_is_found_and_named() {
    let (_folder, target, run) = three_segments().await;
    let path = run.join("discoveries/000002.bson.zst");
    let good = fs::read(&path).unwrap();
    for position in 0..good.len() {
        let mut bad = good.clone();
        bad[position] ^= 0x10;
        fs::write(&path, &bad).unwrap();
        let damages = damages(&target).await;
        assert_eq!(damages.len(), 1, "byte {position}: {damages:?}");
        assert!(damages[0].contains("discoveries/000002.bson.zst: "), "{damages:?}");
    }
    fs::write(&path, &good).unwrap();
    assert_eq!(damages(&target).await, [""; 0]);
}

#[tokio::test]
async fn what_is_cut_off_is_named_by_the_first_record_that_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let target = target(folder.path());
    let mut writer = ArchiveWriter::create(&target, identity()).await.unwrap();
    // Noise does not compress, so that half the file is about half the records.
    let noise: Vec<Vec<u8>> = (0..20)
        .map(|number| {
            let noise = std::iter::repeat_with(|| fastrand::u8(..)).take(100_000).collect();
            bytes(&doc! { "_id": number, "noise": Binary { subtype: BinarySubtype::Generic, bytes: noise } })
        })
        .collect();
    let receipt = writer.append("insights", &records(&noise)).await.unwrap();
    let path = folder.path().join("discoveries/2026-11-21T03-17-00Z").join(&receipt.segment);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let error = writer.recheck(&receipt.segment).await.unwrap_err().to_string();
    assert!(error.contains("/insights/000001.bson.zst is damaged: record 1") && error.contains("cannot be read"), "{error}");
    fs::remove_file(&path).unwrap();
    assert!(writer.recheck(&receipt.segment).await.unwrap_err().to_string().contains("it is not there"));
    assert!(damages(&target).await[0].contains("although there is a receipt"));
}

#[tokio::test]
async fn a_receipt_that_is_gone_or_wrong_is_damage_once_the_run_was_summed_up() {
    let (_folder, target, run) = three_segments().await;
    let receipt = run.join("discoveries/000002.receipt.json.zst");
    let good = fs::read(&receipt).unwrap();
    fs::write(&receipt, b"nothing").unwrap();
    let found = damages(&target).await;
    assert!(
        found[0].contains("cannot be decompressed") && found[1].contains("segment 2 of discoveries with 10 records is gone"),
        "{found:?}"
    );
    assert!(ArchiveWriter::create(&target, identity()).await.is_err(), "nothing goes on over it");
    fs::remove_file(&receipt).unwrap();
    assert!(damages(&target).await[0].contains("segment 2 of discoveries with 10 records is gone"));
    // The receipt of another segment does not pass for it.
    fs::copy(run.join("discoveries/000003.receipt.json.zst"), &receipt).unwrap();
    assert!(damages(&target).await[0].contains("it is of another segment"));
    fs::write(&receipt, good).unwrap();
    assert_eq!(damages(&target).await, [""; 0]);
}

#[tokio::test]
async fn what_is_no_document_or_row_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let target = target(folder.path());
    let mut writer = ArchiveWriter::create(&target, identity()).await.unwrap();
    writer.declare_table("chat_history", "public.chat_history".to_owned(), vec!["id".to_owned()]);
    for (unit, wrong) in [
        ("c", &b""[..]),
        ("c", b"\x05\0\0\0"),
        ("c", b"\x06\0\0\0\0"),
        ("chat_history", b"1"),
        ("chat_history", b"1\n2\n"),
        ("chat_history", b"\\.\n"),
    ] {
        let error = writer.append(unit, &[Record { id: "7".to_owned(), bytes: wrong }]).await.unwrap_err().to_string();
        assert!(error.contains("the record 7 of") && error.contains("not one whole document or row"), "{error}");
    }
    assert!(writer.append("c", &[]).await.is_err());
    let row = writer.append("chat_history", &[Record { id: "7".to_owned(), bytes: b"7\ta\\nb\n" }]).await.unwrap();
    assert_eq!(row.segment, "chat_history/000004.copy.zst");
    assert_eq!(all(&target).await, [b"7\ta\\nb\n"]);
}

#[tokio::test]
async fn a_name_that_would_leave_the_archive_stays_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let target = target(&folder.path().join("archive"));
    let hostile = RunIdentity { policy: "../../up".to_owned(), ..identity() };
    let mut writer = ArchiveWriter::create(&target, hostile).await.unwrap();
    writer.append("../x", &records(&documents(0..2))).await.unwrap();
    writer.finish(Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    assert_eq!((all(&target).await, damages(&target).await), (documents(0..2), Vec::new()));
}

fn value() -> impl Strategy<Value = Bson> {
    let leaf = prop_oneof![
        any::<i32>().prop_map(Bson::Int32),
        any::<i64>().prop_map(Bson::Int64),
        any::<u64>().prop_map(|bits| Bson::Double(f64::from_bits(bits))),
        any::<[u8; 16]>().prop_map(|bytes| Bson::Decimal128(Decimal128::from_bytes(bytes))),
        any::<i64>().prop_map(|millis| Bson::DateTime(DateTime::from_millis(millis))),
        any::<[u8; 12]>().prop_map(|bytes| Bson::ObjectId(ObjectId::from_bytes(bytes))),
        any::<(u32, u32)>().prop_map(|(time, increment)| Bson::Timestamp(BsonTimestamp { time, increment })),
        (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..200))
            // The subtype 2 has a length of its own, which the driver writes by itself.
            .prop_map(|(subtype, bytes)| Bson::Binary(Binary { subtype: BinarySubtype::from(subtype), bytes })),
        any::<String>().prop_map(Bson::String),
        any::<bool>().prop_map(Bson::Boolean),
        "[a-z.*+?]{0,9}".prop_map(|pattern| Bson::RegularExpression(Regex {
            pattern: pattern.try_into().unwrap(),
            options: String::new().try_into().unwrap()
        })),
        Just(Bson::Null),
        Just(Bson::MinKey),
        Just(Bson::MaxKey),
        Just(Bson::Undefined),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Bson::Array),
            proptest::collection::vec(("[a-zA-Z$_é]{0,6}", inner), 0..6).prop_map(|fields| Bson::Document(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Every type, every order of fields, every bit of a number that is none.
    #[test]
    fn arbitrary_documents_come_back_byte_by_byte(
        batches in proptest::collection::vec(
            proptest::collection::vec(proptest::collection::vec(("[a-zA-Z_$.é]{1,6}", value()), 0..5), 1..8), 1..4)
    ) {
        let folder = tempfile::tempdir().unwrap();
        let target = target(folder.path());
        let batches: Vec<Vec<Vec<u8>>> =
            batches.iter().map(|batch| batch.iter().map(|fields| bytes(&fields.iter().cloned().collect())).collect()).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut writer = ArchiveWriter::create(&target, identity()).await.unwrap();
            for batch in &batches {
                writer.append("discoveries", &records(batch)).await.unwrap();
            }
            writer.finish(Timestamp::UNIX_EPOCH).await.unwrap();
            prop_assert_eq!(all(&target).await, batches.concat());
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn a_run_that_was_cut_off_before_it_began_is_no_run() {
    let folder = tempfile::tempdir().unwrap();
    let target = Target::open(&format!("file://{}", folder.path().display()), &StorageAccess::default()).unwrap();
    let begun = folder.path().join("discoveries").join("20261121T000000Z-00000000");
    std::fs::create_dir_all(&begun).unwrap();
    std::fs::write(begun.join(".run.json.part"), "{").unwrap();
    assert_eq!(RunName::list(&target, None).await.unwrap(), []);
    // With something in it that may be an archive, it is one that has lost its file.
    std::fs::create_dir(begun.join("discoveries")).unwrap();
    assert_eq!(RunName::list(&target, None).await.unwrap().len(), 1);
}
