//! Archives in Azure and in Google Cloud Storage, from a run that deletes to its restore. Azure is Azurite, Microsoft's own
//! emulator (`scripts/azurite.sh` fetches it); Google's interface is spoken by our bucket.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use bellwether::config::environment::Environment;
use bellwether::config::storage::StorageAccess;
use bellwether::retention::archive::{ArchiveWriter, Record, Target};
use serde_json::Value;
use tempfile::TempDir;

use crate::archive::{identity, there_and_back, tool};
use crate::bucket::{Bucket, Fault};
use crate::mongod::{Mongod, eventually};
use crate::retention_bench::{Bench, DATABASE};
use crate::sidecar::{command, free_port};

/// The account and the key that Azurite knows: printed in its documentation, and no secret.
const ACCOUNT: &str = "devstoreaccount1";
const ACCOUNT_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Where archives go, and what opens it.
struct Cloud {
    url: &'static str,
    variables: Vec<(String, String)>,
    target: Target,
}

/// A server of object storage with an empty bucket `archive`, until it is dropped.
struct Azurite {
    child: Child,
    address: String,
    cloud: Cloud,
    _folder: TempDir,
}

// === impl Azurite ===

impl Azurite {
    /// `None` where there is no such program, which is said.
    async fn start() -> Option<Self> {
        let cached = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/azurite/node_modules/.bin/azurite-blob");
        let Some(program) = tool("azurite-blob", "BELLWETHER_AZURITE").or_else(|| Some(cached).filter(|path| path.is_file())) else {
            eprintln!("NOT SHOWN: there is no azurite-blob (scripts/azurite.sh fetches it); archives in Azure were not tried");
            return None;
        };
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let address = format!("127.0.0.1:{port}");
        let mut server = Command::new(program);
        server
            .args(["--blobPort", &port.to_string(), "--silent", "--disableTelemetry", "--skipApiVersionCheck", "--location"])
            .arg(folder.path());
        let child = server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let endpoint = format!("http://{address}/{ACCOUNT}");
        let variables = of_azure(&endpoint, ACCOUNT_KEY);
        let cloud = Cloud::open("az://archive/bellwether", variables);
        let azurite = Self { child, address, cloud, _folder: folder };
        eventually("the storage listens", async || std::net::TcpStream::connect(&azurite.address).ok()).await;
        make_container(&azurite.address).await;
        Some(azurite)
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn of_azure<'a>(endpoint: &'a str, key: &'a str) -> [(&'static str, &'a str); 4] {
    [
        ("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT),
        ("AZURE_STORAGE_ACCOUNT_KEY", key),
        ("AZURE_ENDPOINT", endpoint),
        ("AZURE_ALLOW_HTTP", "true"),
    ]
}

// === impl Cloud ===

impl Cloud {
    fn open<const N: usize>(url: &'static str, variables: [(&str, &str); N]) -> Self {
        let target = Target::open(url, &StorageAccess::of(&Environment::of(variables))).unwrap();
        Self { url, variables: variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(), target }
    }
}

/// Containers are not the sidecar's to make: a shared key signs the call (Azure's "Authorize with Shared Key").
async fn make_container(address: &str) {
    use base64::Engine as _;
    let key = base64::engine::general_purpose::STANDARD.decode(ACCOUNT_KEY).unwrap();
    let date = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let version = "2021-12-02";
    // Eleven standard headers without a value, our two, and the resource: the account stands twice, as the path holds it, too.
    let resource = format!("/{ACCOUNT}/{ACCOUNT}/archive\nrestype:container");
    let text = format!("PUT{}x-ms-date:{date}\nx-ms-version:{version}\n{resource}", "\n".repeat(12));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &key);
    let signature = base64::engine::general_purpose::STANDARD.encode(aws_lc_rs::hmac::sign(&key, text.as_bytes()));
    let made = reqwest::Client::new()
        .put(format!("http://{address}/{ACCOUNT}/archive?restype=container"))
        .header("x-ms-date", date)
        .header("x-ms-version", version)
        .header("authorization", format!("SharedKey {ACCOUNT}:{signature}"))
        .send()
        .await
        .unwrap();
    assert!(made.status().is_success(), "{}", made.text().await.unwrap());
}

/// A run that archives there and deletes, its verification, and the restore of everything.
async fn deletes_and_restores(cloud: &Cloud) {
    let bench = Bench::on(Mongod::start().await).await;
    bench.seed(120, 20).await;
    let before = bench.contents().await;
    let file = bench.folder.path().join("bellwether.yaml");
    let text = format!(
        "stores: {{ mongodb: {{ uri: \"{}\", database: {DATABASE} }} }}
retention:
  mode: enforce
  archive: {}
  guards: {{ max_fraction: 1.0 }}
  policies:
    - name: discoveries
      mongodb: {{ collection: discoveries, field: created_at }}
      keep: 30d
      children: [{{ collection: feedback, field: discovery_id, id: objectid_hex }}]
",
        bench.server.uri(),
        cloud.url
    );
    std::fs::write(&file, text).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = command();
        command.arg("retention").args(arguments).arg("--config").arg(&file).envs(cloud.variables.iter().cloned());
        let output = command.output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code(), said, output.stdout)
    };
    let (code, said, out) = run(&["apply", "--now", "--yes", "--json", "--log", "error"]);
    assert_eq!(code, Some(0), "{said}");
    let outcomes: Value = serde_json::from_slice(&out).unwrap();
    assert!(outcomes.to_string().contains("\"deleted\":120"), "{outcomes}");
    let left = bench.contents().await;
    assert_eq!(left.keys().filter(|(collection, _)| collection == "discoveries").count(), 20);
    let (code, said, _) = run(&["verify", "--policy", "discoveries"]);
    assert!(code == Some(0) && said.contains("240 records"), "{said}");
    let (code, said, _) = run(&["restore", "--yes", "--policy", "discoveries"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(bench.contents().await, before, "byte by byte");
    for (_, value) in cloud.variables.iter().filter(|(name, _)| name.contains("KEY")) {
        assert!(!said.contains(value));
    }
}

/// What is there is not written over, and told apart from what one wrote oneself.
async fn nothing_is_written_over(cloud: &Cloud) {
    let target = &cloud.target;
    let (mut one, mut other) = (
        ArchiveWriter::create(target, identity("twice", "run-1")).await.unwrap(),
        ArchiveWriter::create(target, identity("twice", "run-1")).await.unwrap(),
    );
    let record = |bytes| [Record { id: "1".to_owned(), bytes }];
    one.append("c", &record(b"\x05\0\0\0\0")).await.unwrap();
    let error = other.append("c", &record(b"\x0c\0\0\0\x10a\0\x01\0\0\0\0")).await.map(drop).unwrap_err();
    assert!(error.to_string().contains("is there already"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn azure_takes_archives_and_gives_them_back() {
    let Some(azurite) = Azurite::start().await else { return };
    there_and_back(&azurite.cloud.target).await;
    nothing_is_written_over(&azurite.cloud).await;
    deletes_and_restores(&azurite.cloud).await;
    let endpoint = format!("http://{}/{ACCOUNT}", azurite.address);
    let wrong = Cloud::open(azurite.cloud.url, of_azure(&endpoint, "aHVudGVyMmh1bnRlcjI="));
    let error = ArchiveWriter::create(&wrong.target, identity("discoveries", "run-9")).await.map(drop).unwrap_err();
    let said = format!("{error} {error:?}");
    assert!(said.contains("credentials") && !said.contains("aHVudGVy") && !said.contains("SharedKey"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn google_takes_archives_and_gives_them_back() {
    let (bucket, folder) = (Bucket::google().await, tempfile::tempdir().unwrap());
    // A service account's key as the client reads it, which names the server and asks for no token.
    let account = folder.path().join("account.json");
    let text = format!(
        r#"{{"gcs_base_url":"http://{}","disable_oauth":true,"client_email":"","private_key":"","private_key_id":""}}"#,
        bucket.address
    );
    std::fs::write(&account, text).unwrap();
    let variables = [("GOOGLE_SERVICE_ACCOUNT", account.to_str().unwrap()), ("GOOGLE_ALLOW_HTTP", "true")];
    let cloud = Cloud::open("gs://archive/bellwether", variables);
    there_and_back(&cloud.target).await;
    nothing_is_written_over(&cloud).await;
    deletes_and_restores(&cloud).await;
    bucket.fails(Fault::Flip);
    let mut writer = ArchiveWriter::create(&cloud.target, identity("flips", "run-1")).await;
    let lost = match &mut writer {
        Ok(writer) => writer.append("c", &[Record { id: "1".to_owned(), bytes: b"\x05\0\0\0\0" }]).await.map(drop),
        Err(_) => Err(writer.map(drop).unwrap_err()),
    };
    assert!(lost.is_err(), "a bit that has flipped gets no receipt");
}
