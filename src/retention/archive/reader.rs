//! Reads archives: which runs there are, whether they are whole, and what is in them.

use crate::retention::archive::form::{Form, Manifest, RunFile, SegmentReceipt, SegmentSum, VERSION};
use crate::retention::archive::layout::{self, Kind};
use crate::retention::archive::segment;
use crate::retention::archive::writer::{on_another_thread, parse};
use crate::retention::archive::{ArchiveError, Damage, Place, Target};

/// A receipt may have so many bytes: each record needs about a hundred.
const MAX_RECEIPT: usize = 256 << 20;

/// A run by the names of its folders.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct RunName {
    policy: String,
    run: String,
}

/// One run's archive, open for reading.
#[derive(Debug)]
pub struct Run {
    target: Target,
    folder: String,
    identity: RunFile,
    manifest: Option<Manifest>,
}

/// A segment of a run, by what is there of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Segment {
    folder: String,
    /// Its number within its unit.
    pub number: u32,
    /// The name of its file, where that is there.
    pub file: Option<String>,
    /// Whether there is a receipt. Without one it is what a crash left behind.
    pub has_receipt: bool,
}

/// Something about an archive that the operator should know.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Where it is.
    pub place: Place,
    /// What it is.
    pub message: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// Nothing is lost.
    Note,
    /// Something cannot be restored as it was.
    Damage,
}

// === impl RunName ===

impl RunName {
    /// The run of a policy.
    #[must_use]
    pub fn of(policy: &str, run: &str) -> Self {
        Self { policy: layout::folder(policy), run: layout::folder(run) }
    }

    /// All runs in a target, of one policy or of all, those of a policy from the earliest to the latest.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn list(target: &Target, policy: Option<&str>) -> Result<Vec<Self>, ArchiveError> {
        let policies = match policy {
            Some(policy) => vec![layout::folder(policy)],
            None => target.list("").await?.folders,
        };
        let mut runs = Vec::new();
        for policy in policies {
            for run in target.list(&policy).await?.folders {
                let name = Self { policy: policy.clone(), run };
                let inside = target.list(&name.folder()).await?;
                // What a crash leaves before the run's own file is whole holds nothing that was archived.
                if !inside.folders.is_empty() || inside.files.iter().any(|file| !file.starts_with('.')) {
                    runs.push(name);
                }
            }
        }
        Ok(runs)
    }

    /// Whether it is the run of this name.
    #[must_use]
    pub fn is(&self, run: &str) -> bool {
        self.run == layout::folder(run)
    }

    fn folder(&self) -> String {
        format!("{}/{}", self.policy, self.run)
    }
}

// === impl Run ===

impl Run {
    /// Opens a run.
    ///
    /// # Errors
    /// When there is none of this name, or it cannot be understood.
    pub async fn open(target: &Target, name: &RunName) -> Result<Self, ArchiveError> {
        let folder = name.folder();
        let unreadable =
            |key: &str, what, problem: &str| ArchiveError::Unreadable { place: target.place(key), what, problem: problem.to_owned() };
        let key = format!("{folder}/{}", layout::RUN);
        let text = target.read(&key).await?.ok_or_else(|| unreadable(&key, "run file", "it is not there"))?;
        let identity: RunFile = parse(&text, target, &key, "run file")?;
        if identity.format != VERSION {
            return Err(unreadable(&key, "run file", "it is of another version"));
        }
        if RunName::of(&identity.policy, &identity.run) != *name {
            return Err(unreadable(&key, "run file", "it is of a run of another name"));
        }
        let key = format!("{folder}/{}", layout::MANIFEST);
        let manifest = match target.read(&key).await? {
            Some(text) => Some(parse(&text, target, &key, "manifest")?),
            None => None,
        };
        Ok(Self { target: target.clone(), folder, identity, manifest })
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> &str {
        &self.identity.policy
    }

    /// The run's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.identity.run
    }

    /// The database that the records are of.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.identity.database
    }

    /// The sum of the run, where it has ended.
    #[must_use]
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    /// Where it is.
    #[must_use]
    pub fn place(&self) -> Place {
        self.target.place(&self.folder)
    }

    /// What there is of segments, unit by unit, in order.
    ///
    /// # Errors
    /// When the storage fails.
    pub async fn segments(&self) -> Result<Vec<Segment>, ArchiveError> {
        let mut segments: Vec<Segment> = Vec::new();
        for folder in self.target.list(&self.folder).await?.folders {
            let mut files = self.target.list(&format!("{}/{folder}", self.folder)).await?.files;
            files.sort_by_key(|file| layout::numbered(file).map(|(number, _)| number));
            for file in files {
                let Some((number, kind)) = layout::numbered(&file) else { continue };
                if segments.last().is_none_or(|last| (&last.folder, last.number) != (&folder, number)) {
                    segments.push(Segment { folder: folder.clone(), number, file: None, has_receipt: false });
                }
                let Some(segment) = segments.last_mut() else { continue };
                match kind {
                    Kind::Segment => segment.file = Some(file),
                    Kind::Receipt => segment.has_receipt = true,
                }
            }
        }
        Ok(segments)
    }

    /// The receipt of a segment, and its sum.
    ///
    /// # Errors
    /// When it is not there or cannot be understood.
    pub async fn receipt(&self, segment: &Segment) -> Result<(SegmentReceipt, SegmentSum), ArchiveError> {
        read_receipt(&self.target, &self.folder, segment).await
    }

    /// The records of a segment that are as they were, in order, and the first thing that is wrong.
    ///
    /// # Errors
    /// When the storage fails or the receipt cannot be understood.
    pub async fn records(&self, segment: &Segment) -> Result<(SegmentReceipt, Vec<Vec<u8>>, Option<Damage>), ArchiveError> {
        let (receipt, _) = self.receipt(segment).await?;
        let missing = || Damage { record: None, problem: "it is not there, although there is a receipt for it".to_owned() };
        let Some(file) = &segment.file else { return Ok((receipt, Vec::new(), Some(missing()))) };
        let key = format!("{}/{}/{file}", self.folder, segment.folder);
        let Some(stored) = self.target.read(&key).await? else { return Ok((receipt, Vec::new(), Some(missing()))) };
        on_another_thread(move || {
            let mut records = Vec::with_capacity(receipt.records.len());
            let damage = segment::decode(&stored, &receipt, |_, bytes| records.push(bytes.to_vec())).err();
            (receipt, records, damage)
        })
        .await
    }

    /// Where a segment is.
    #[must_use]
    pub fn place_of(&self, segment: &Segment) -> Place {
        self.target.place(&format!("{}/{}", self.folder, segment.path()))
    }

    /// Reads the whole run and compares every record. `each` is told of every segment and how many records of it are as
    /// they were.
    ///
    /// # Errors
    /// When the storage fails. What is wrong with the archive is a finding and no error.
    pub async fn verify(&self, mut each: impl FnMut(&Segment, u64)) -> Result<Vec<Finding>, ArchiveError> {
        let mut findings = Vec::new();
        let mut found = Vec::new();
        for segment in self.segments().await? {
            let mut say = |severity, message: String| findings.push(Finding { severity, place: self.place_of(&segment), message });
            if !segment.has_receipt {
                let key = format!("{}/{}", self.folder, segment.path());
                let stored = self.target.read(&key).await?.unwrap_or_default();
                let form = segment.guessed_form();
                let whole = on_another_thread(move || segment::count(&stored, &form)).await?;
                let message =
                    format!("there is no receipt for it, so that it counts for nothing: {whole} whole records, which were not deleted");
                say(Severity::Note, message);
                continue;
            }
            let (receipt, sum) = match self.receipt(&segment).await {
                Ok(receipt) => receipt,
                Err(ArchiveError::Storage(error)) => return Err(error.into()),
                Err(error) => {
                    say(Severity::Damage, error.to_string());
                    continue;
                }
            };
            if receipt.run != self.identity.run || receipt.plan != self.identity.plan {
                say(Severity::Damage, format!("its receipt is of the run {} of the plan {}", receipt.run, receipt.plan));
            }
            let (_, records, damage) = self.records(&segment).await?;
            if let Some(damage) = damage {
                say(Severity::Damage, damage.to_string());
            }
            each(&segment, records.len() as u64);
            found.push((receipt.unit, sum));
        }
        findings.extend(self.compare_with_manifest(&found));
        Ok(findings)
    }

    fn compare_with_manifest(&self, found: &[(String, SegmentSum)]) -> Vec<Finding> {
        let place = self.target.place(&format!("{}/{}", self.folder, layout::MANIFEST));
        let finding = |severity, message: String| Finding { severity, place: place.clone(), message };
        let Some(manifest) = &self.manifest else {
            return vec![finding(Severity::Note, "there is no manifest: the run has not ended, or was cut off".to_owned())];
        };
        let mut findings = Vec::new();
        let listed = || manifest.units.iter().flat_map(|unit| unit.segments.iter().map(move |segment| (unit.unit.as_str(), segment)));
        for (unit, segment) in listed() {
            match found.iter().find(|(name, sum)| name == unit && sum.number == segment.number) {
                Some((_, sum)) if sum == segment => {}
                Some(_) => {
                    findings.push(finding(Severity::Damage, format!("segment {} of {unit} is another one than it says", segment.number)))
                }
                None => findings.push(finding(
                    Severity::Damage,
                    format!("segment {} of {unit} with {} records is gone", segment.number, segment.records),
                )),
            }
        }
        for (unit, sum) in found {
            if !listed().any(|(name, segment)| name == unit && segment.number == sum.number) {
                let message = format!("segment {} of {unit} came later: the run was gone on with and has not ended again", sum.number);
                findings.push(finding(Severity::Note, message));
            }
        }
        findings
    }
}

/// Reads a receipt and sees whether it is of this segment.
pub(super) async fn read_receipt(target: &Target, run: &str, segment: &Segment) -> Result<(SegmentReceipt, SegmentSum), ArchiveError> {
    let key = format!("{run}/{}", segment.receipt_path());
    let unreadable = |problem: &str| ArchiveError::Unreadable { place: target.place(&key), what: "receipt", problem: problem.to_owned() };
    let stored = target.read(&key).await?.ok_or_else(|| unreadable("it is not there"))?;
    let text = zstd::bulk::Decompressor::new()
        .and_then(|mut decompressor| decompressor.decompress(&stored, capacity(&stored)))
        .map_err(|_| unreadable("it cannot be decompressed"))?;
    let receipt: SegmentReceipt = parse(&text, target, &key, "receipt")?;
    if receipt.format != VERSION {
        return Err(unreadable("it is of another version"));
    }
    if layout::folder(&receipt.unit) != segment.folder || receipt.number != segment.number {
        return Err(unreadable("it is of another segment"));
    }
    let sum = receipt.sum(&stored);
    Ok((receipt, sum))
}

/// As much as the frame says, within bounds.
fn capacity(stored: &[u8]) -> usize {
    let said = zstd::zstd_safe::get_frame_content_size(stored).ok().flatten().unwrap_or_default();
    usize::try_from(said).unwrap_or(MAX_RECEIPT).min(MAX_RECEIPT)
}

// === impl Segment ===

impl Segment {
    /// The segment of a name such as `discoveries/000001.bson.zst`.
    pub(super) fn named(path: &str) -> Option<Self> {
        let (folder, file) = path.rsplit_once('/')?;
        let (number, kind) = layout::numbered(file)?;
        (kind == Kind::Segment && !folder.contains('/') && !folder.starts_with('.')).then(|| Self {
            folder: folder.to_owned(),
            number,
            file: Some(file.to_owned()),
            has_receipt: true,
        })
    }

    pub(super) fn unit_folder(&self) -> &str {
        &self.folder
    }

    fn path(&self) -> String {
        match &self.file {
            Some(file) => format!("{}/{file}", self.folder),
            None => self.receipt_path(),
        }
    }

    fn receipt_path(&self) -> String {
        layout::receipt_in(&self.folder, self.number)
    }

    fn guessed_form(&self) -> Form {
        if self.file.as_ref().is_some_and(|file| file.contains(".copy.")) {
            return Form::Copy { table: String::new(), columns: Vec::new() };
        }
        Form::Bson
    }
}
