//! A real Kubernetes for a test: etcd, the API server and the controllers of Jobs, of garbage and of what is finished. No node
//! is there: the test says what a kubelet would say of a pod.
//!
//! The programs are in `BELLWETHER_KUBERNETES` (`scripts/kubernetes.sh`), etcd is on PATH. Where there are none, what needs
//! them is not shown, and that is said.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bellwether::config::cluster::ClusterAccess;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::archive::tool;
use crate::mongod::eventually;
use crate::sidecar::free_port;
use crate::tls::Authority;

/// Where agents run.
const NAMESPACE: &str = "decisionbox";
/// All that the sidecar's user may do.
const ROLE: &str = include_str!("../../deploy/kubernetes/agents.yaml");
const USERS: [&str; 2] = ["admin", "bellwether"];

/// A cluster without nodes.
pub struct Cluster {
    programs: Vec<Child>,
    folder: TempDir,
    port: u16,
    admin: Option<Client>,
}

// === impl Cluster ===

impl Cluster {
    /// A cluster with a namespace in which the user `bellwether` may do what its role says. `None` where there is none to be had.
    pub async fn start() -> Option<Self> {
        let Some((kubernetes, etcd)) = std::env::var_os("BELLWETHER_KUBERNETES").map(PathBuf::from).zip(tool("etcd", "BELLWETHER_ETCD"))
        else {
            eprintln!("NOT SHOWN: there is no Kubernetes in BELLWETHER_KUBERNETES, or no etcd; agents as Jobs were not tried");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let mut cluster = Self { programs: Vec::new(), folder, port: free_port(), admin: None };
        let (client, peer) = (format!("http://127.0.0.1:{}", free_port()), format!("http://127.0.0.1:{}", free_port()));
        let cluster_of_one = format!("default={peer}");
        cluster.run(
            &etcd,
            &[
                ("data-dir", "etcd"),
                ("listen-client-urls", &client),
                ("advertise-client-urls", &client),
                ("listen-peer-urls", &peer),
                ("initial-advertise-peer-urls", &peer),
                ("initial-cluster", &cluster_of_one),
                ("unsafe-no-fsync", "true"),
            ],
        );
        cluster.write_credentials();
        let port = cluster.port.to_string();
        cluster.run(
            &kubernetes.join("kube-apiserver"),
            &[
                ("etcd-servers", &client),
                ("bind-address", "127.0.0.1"),
                ("secure-port", &port),
                ("tls-cert-file", "server.pem"),
                ("tls-private-key-file", "server.key"),
                ("cert-dir", "certificates"),
                ("token-auth-file", "tokens.csv"),
                ("authorization-mode", "RBAC"),
                ("service-account-issuer", "https://kubernetes.default.svc"),
                ("service-account-key-file", "accounts.pub"),
                ("service-account-signing-key-file", "accounts.key"),
                ("service-cluster-ip-range", "10.0.0.0/24"),
                // There is nobody who would make the service accounts of pods, nor an endpoint of the API.
                ("disable-admission-plugins", "ServiceAccount"),
                ("endpoint-reconciler-type", "none"),
            ],
        );
        cluster.log_in().await;
        cluster.run(
            &kubernetes.join("kube-controller-manager"),
            &[
                ("kubeconfig", "admin.kubeconfig"),
                ("controllers", "job-controller,garbage-collector-controller,ttl-after-finished-controller"),
                ("leader-elect", "false"),
                ("secure-port", "0"),
            ],
        );
        cluster.make_namespace().await;
        Some(cluster)
    }

    fn run(&mut self, program: &Path, flags: &[(&str, &str)]) {
        let name = program.file_name().unwrap().to_str().unwrap();
        let log = std::fs::File::create(self.folder.path().join(format!("{name}.log"))).unwrap();
        let flags = flags.iter().map(|(key, value)| format!("--{key}={value}"));
        let mut command = Command::new(program);
        command.args(flags).current_dir(self.folder.path()).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.programs.push(command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {error}")));
    }

    fn write_credentials(&self) {
        let folder = self.folder.path();
        let authority = Authority::new();
        authority.issue("localhost", -1, 90).write(folder);
        let accounts = rcgen::KeyPair::generate().unwrap();
        std::fs::write(folder.join("accounts.key"), accounts.serialize_pem()).unwrap();
        std::fs::write(folder.join("accounts.pub"), accounts.public_key_pem()).unwrap();
        let authority = std::fs::copy(authority.file(), folder.join("ca.pem")).map(|_| folder.join("ca.pem")).unwrap();
        let tokens = USERS.map(|user| {
            let group = if user == "admin" { ",system:masters" } else { "" };
            format!("token-of-{user},{user},{user}{group}\n")
        });
        std::fs::write(folder.join("tokens.csv"), tokens.concat()).unwrap();
        for user in USERS {
            let kubeconfig = json!({
                "apiVersion": "v1", "kind": "Config", "current-context": "it",
                "clusters": [{ "name": "it", "cluster": { "server": format!("https://localhost:{}", self.port), "certificate-authority": authority } }],
                "users": [{ "name": "it", "user": { "token": format!("token-of-{user}") } }],
                "contexts": [{ "name": "it", "context": { "cluster": "it", "user": "it", "namespace": NAMESPACE } }],
            });
            std::fs::write(self.kubeconfig(user), kubeconfig.to_string()).unwrap();
        }
    }

    fn kubeconfig(&self, user: &str) -> PathBuf {
        self.folder.path().join(format!("{user}.kubeconfig"))
    }

    async fn log_in(&mut self) {
        let kubeconfig = kube::config::Kubeconfig::read_from(self.kubeconfig("admin")).unwrap();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await.unwrap();
        let client = Client::try_from(config).unwrap();
        let ready = axum::http::Request::get("/readyz").body(Vec::new()).unwrap();
        eventually("the API server is ready", async || {
            let ended = self.programs[1].try_wait().unwrap();
            let log = || std::fs::read_to_string(self.folder.path().join("kube-apiserver.log")).unwrap();
            assert!(ended.is_none(), "the API server has ended: {}", log());
            client.request_text(ready.clone()).await.ok()
        })
        .await;
        self.admin = Some(client);
    }

    async fn make_namespace(&self) {
        let namespace: Namespace = serde_json::from_value(json!({ "metadata": { "name": NAMESPACE } })).unwrap();
        Api::all(self.client()).create(&PostParams::default(), &namespace).await.unwrap();
        let (role, binding) = ROLE.split_once("\n---\n").unwrap();
        let role: Role = serde_saphyr::from_str(role).unwrap();
        let mut binding: Value = serde_saphyr::from_str(binding).unwrap();
        binding["subjects"] = json!([{ "kind": "User", "name": "bellwether", "apiGroup": "rbac.authorization.k8s.io" }]);
        let binding: RoleBinding = serde_json::from_value(binding).unwrap();
        self.api::<Role>().create(&PostParams::default(), &role).await.unwrap();
        self.api::<RoleBinding>().create(&PostParams::default(), &binding).await.unwrap();
    }

    fn client(&self) -> Client {
        self.admin.clone().unwrap()
    }

    /// All of a kind, for an administrator.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client(), NAMESPACE)
    }

    /// What the sidecar is configured with.
    pub fn access(&self) -> ClusterAccess {
        ClusterAccess { kubeconfig: Some(self.kubeconfig("bellwether")), namespace: None }
    }

    /// Whether the API server would make this object, and knows each of its fields.
    pub async fn takes(&self, object: &Value) {
        let (kind, version) = (object["kind"].as_str().unwrap(), object["apiVersion"].as_str().unwrap());
        let root = if version.contains('/') { "apis" } else { "api" };
        let path = format!("/{root}/{version}/namespaces/{NAMESPACE}/{}s?dryRun=All&fieldValidation=Strict", kind.to_lowercase());
        let request = axum::http::Request::post(&path).header("content-type", "application/json");
        let answer: kube::Result<Value> = self.client().request(request.body(object.to_string().into_bytes()).unwrap()).await;
        // The role of this cluster is one of them.
        let is_there = matches!(&answer, Err(kube::Error::Api(status)) if status.code == 409);
        assert!(answer.is_ok() || is_there, "{kind}: {answer:?}\n{object}");
    }

    /// Takes all rights on something away from the sidecar.
    pub async fn forbid(&self, resource: &str) {
        self.set_role(|rule| rule["resources"][0] != resource).await;
    }

    /// Gives the sidecar all rights of its role.
    pub async fn permit_all(&self) {
        self.set_role(|_| true).await;
    }

    async fn set_role(&self, is_kept: impl Fn(&Value) -> bool) {
        let mut role: Value = serde_saphyr::from_str(ROLE.split_once("\n---\n").unwrap().0).unwrap();
        role["rules"].as_array_mut().unwrap().retain(is_kept);
        let role = json!({ "rules": role["rules"] });
        self.api::<Role>().patch("bellwether-agents", &PatchParams::default(), &Patch::Merge(role)).await.unwrap();
    }

    /// The API server does not answer, until it is woken up.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub fn wake_up(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let server = Pid::from_raw(i32::try_from(self.programs[1].id()).unwrap()).unwrap();
        kill_process(server, signal).unwrap();
    }

    /// The Job of a run, if there is one.
    pub async fn job(&self, run: &str) -> Option<Job> {
        self.api::<Job>().get_opt(&format!("discovery-{run}")).await.unwrap()
    }

    /// The Secret of a run, if there is one.
    pub async fn secret(&self, run: &str) -> Option<Secret> {
        self.api::<Secret>().get_opt(&format!("discovery-{run}")).await.unwrap()
    }

    /// The pod of a run, once the controller has made it.
    pub async fn pod(&self, run: &str) -> Pod {
        let wanted = ListParams::default().labels(&format!("run-id={run}"));
        eventually("the pod of a run", async || self.api::<Pod>().list(&wanted).await.unwrap().items.pop()).await
    }

    /// What a kubelet says of the container of an agent.
    pub async fn say(&self, run: &str, phase: &str, state: Value) {
        let name = self.pod(run).await.metadata.name.unwrap();
        let container = json!({ "name": "agent", "image": "agent", "imageID": "", "ready": false, "restartCount": 0, "state": state });
        let status = json!({ "status": { "phase": phase, "containerStatuses": [container] } });
        self.api::<Pod>().patch_status(&name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    }

    /// The agent of a run runs.
    pub async fn begin(&self, run: &str) {
        self.say(run, "Running", json!({ "running": { "startedAt": "2026-04-04T09:00:00Z" } })).await;
    }

    /// The agent of a run has ended.
    pub async fn end(&self, run: &str, code: i32, reason: &str, message: &str) {
        let phase = if code == 0 { "Succeeded" } else { "Failed" };
        self.say(run, phase, json!({ "terminated": { "exitCode": code, "reason": reason, "message": message } })).await;
    }

    /// The pod of a run is on a node, where it goes only when its kubelet says so.
    pub async fn bind(&self, run: &str) {
        let name = self.pod(run).await.metadata.name.unwrap();
        let binding = json!({ "metadata": { "name": name }, "target": { "kind": "Node", "name": "node-1" } });
        let body = serde_json::to_vec(&binding).unwrap();
        let request = axum::http::Request::post(format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}/binding"))
            .header("content-type", "application/json");
        let _: Value = self.client().request(request.body(body).unwrap()).await.unwrap();
    }

    /// The node has ended what was on it.
    pub async fn let_go(&self, run: &str) {
        let name = self.pod(run).await.metadata.name.unwrap();
        drop(self.api::<Pod>().delete(&name, &DeleteParams::default().grace_period(0)).await.unwrap());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for program in self.programs.iter_mut().rev() {
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}
